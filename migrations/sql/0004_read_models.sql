-- +goose Up

-- The read models. Each can be dropped and rebuilt from the log to the same
-- content: what changes how one is filled also changes its shape number.

-- Which shape of each read model its tables hold, and how far a rebuild has come.
CREATE TABLE medilab.read_models (
    name     text PRIMARY KEY,
    shape    integer NOT NULL,
    building bigint -- of the log; counts only while somebody holds the rebuild's lock
);

-- The place in the log that was current at a time: times are in the order of
-- positions, so it is a binary search of the primary key.
-- +goose StatementBegin
CREATE FUNCTION medilab.position_before(at timestamptz) RETURNS bigint
    LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    low    bigint := 0; -- recorded before, or none
    high   bigint;      -- recorded at the time or later, or none yet
    middle bigint;
    found  timestamptz;
BEGIN
    SELECT position + 1 INTO high FROM medilab.log_head;
    WHILE low + 1 < high LOOP
        middle := (low + high) / 2;
        SELECT e.recorded_at INTO found FROM medilab.events e WHERE e.position = middle;
        IF found < at THEN low := middle; ELSE high := middle; END IF;
    END LOOP;
    RETURN low;
END $$;
-- +goose StatementEnd

-- Log entries that no read model can take, each with its reason. They block nothing.
CREATE TABLE medilab.parked (
    position bigint PRIMARY KEY,
    reason   text NOT NULL,
    at       timestamptz NOT NULL
);

-- Webhooks as they are. What a list filters by is in the row; the rest is the
-- webhook's whole state as JSON, kept out of line so that a search reads little.
CREATE TABLE medilab.webhooks (
    id     uuid PRIMARY KEY,
    number bigint NOT NULL,
    status text NOT NULL,   -- active, inactive, deleted
    events text[] NOT NULL, -- what it subscribes to
    search text NOT NULL,   -- name, description and url in lower case
    state  bytea NOT NULL
) WITH (toast_tuple_target = 256);
ALTER TABLE medilab.webhooks ALTER COLUMN state SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX webhooks_number ON medilab.webhooks (number);

-- The call log: which calls there were. What each was is read from the log at
-- its position. One index answers every filter: kind holds the event type's
-- hash and, in its lowest bit, whether the call succeeded, so the calls of one
-- kind are one run of the index in the order of time, and a list merges a few runs.
CREATE TABLE medilab.calls (
    position bigint NOT NULL,
    webhook  integer NOT NULL, -- its short number
    kind     integer NOT NULL,
    PRIMARY KEY (webhook, kind, position)
);

-- The clinic's events, the same way.
CREATE TABLE medilab.triggered (
    position    bigint NOT NULL,
    kind        integer NOT NULL, -- the event type's hash
    correlation integer,          -- the correlation id's hash, if it has one
    PRIMARY KEY (kind, position)
);
CREATE INDEX triggered_correlation ON medilab.triggered (correlation, position) WHERE correlation IS NOT NULL;

-- Statistics: a row an hour and webhook, one for all time, and the same for the
-- whole system (the nil webhook). Figures are only ever added to, so rows add up
-- over any range.
CREATE TABLE medilab.stats (
    webhook uuid NOT NULL,
    hour    integer NOT NULL, -- since 1970, UTC; -1: all time
    calls   bigint NOT NULL,
    tally   bytea NOT NULL,   -- all figures, see projections/tally.go
    PRIMARY KEY (webhook, hour)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);

-- Alerts, open and resolved.
CREATE TABLE medilab.alerts (
    position bigint PRIMARY KEY, -- where it was raised
    id       uuid NOT NULL,
    webhook  uuid NOT NULL,
    kind     text NOT NULL,
    details  bytea NOT NULL,     -- JSON
    raised_at   timestamptz NOT NULL,
    resolved_at timestamptz
);
CREATE UNIQUE INDEX alerts_id ON medilab.alerts (id);
CREATE INDEX alerts_open ON medilab.alerts (position) WHERE resolved_at IS NULL;
