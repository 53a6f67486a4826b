-- +goose Up

-- What the lists of calls and of deliveries go by.

-- A rebuild that an older version has begun would put its tables in the place of
-- these: this waits for its end.
SELECT pg_advisory_xact_lock(32199620896058468);

-- Calls of events with a correlation id, in the order of the log.
CREATE TABLE medilab.called (
    position    bigint NOT NULL,
    correlation integer NOT NULL, -- the correlation id's hash
    PRIMARY KEY (correlation, position)
) WITH (autovacuum_analyze_scale_factor = 0.2, autovacuum_analyze_threshold = 10000);

-- Deliveries that something happened to besides a first attempt that succeeded, and that
-- are not delivered since: those that failed, were cancelled, or wait for another attempt.
CREATE TABLE medilab.undelivered (
    ordinal bigint PRIMARY KEY, -- the event's position << 22 | the webhook's number: the newest event first
    webhook integer NOT NULL,   -- its short number
    kind    integer NOT NULL    -- state << 29 | the event type's hash << 10 | the last answer's status
) WITH (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000);
CREATE INDEX undelivered_kind_ordinal_idx ON medilab.undelivered (kind, ordinal);
CREATE INDEX undelivered_webhook_kind_ordinal_idx ON medilab.undelivered (webhook, kind, ordinal);
