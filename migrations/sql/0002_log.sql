-- +goose Up

-- The log: every webhook change, every event and every attempt, for ever.
--
-- Its position is dense and is the order of commits: an append updates the one
-- row of log_head first, and the row's lock is the sequencer. A reader needs
-- only "position > $1".
CREATE TABLE medilab.log_head (
    one         boolean PRIMARY KEY DEFAULT true CHECK (one),
    position    bigint NOT NULL,
    seal        bytea NOT NULL,
    recorded_at timestamptz NOT NULL
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

INSERT INTO medilab.log_head (position, seal, recorded_at) VALUES (0, '\x', clock_timestamp());

CREATE TABLE medilab.events (
    position    bigint PRIMARY KEY,
    stream      text COLLATE "C" NOT NULL,
    version     bigint NOT NULL,
    type        text COLLATE "C" NOT NULL,
    data        bytea NOT NULL, -- JSON, byte for byte as it was appended
    metadata    json NOT NULL,  -- actor, correlation_id, causation_id, request_id
    recorded_at timestamptz NOT NULL,
    CONSTRAINT events_stream_version UNIQUE (stream, version)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.05);

-- Configuration (webhooks and tokens) is folded by every node at its start: few
-- events among very many.
CREATE INDEX events_configuration ON medilab.events (position)
    WHERE stream LIKE 'webhook-%' OR stream LIKE 'token-%';

-- Point-in-time questions turn a time into a position.
CREATE INDEX events_recorded_at ON medilab.events USING brin (recorded_at) WITH (pages_per_range = 32);

-- +goose StatementBegin
DO $$
BEGIN
    -- Large payloads are compressed by lz4 where the server has it: pglz would
    -- cost more than the disk it saves.
    ALTER TABLE medilab.events ALTER COLUMN data SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported OR invalid_parameter_value THEN
    NULL;
END $$;
-- +goose StatementEnd

-- One row a batch seals the log up to its last position:
-- seal = sha256(previous seal || first position || recorded_at in microseconds || sha256 of the batch).
CREATE TABLE medilab.seals (
    last_position  bigint PRIMARY KEY,
    first_position bigint NOT NULL,
    recorded_at    timestamptz NOT NULL,
    seal           bytea NOT NULL
);

-- The log is only ever appended to.
-- +goose StatementBegin
CREATE FUNCTION medilab.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'medilab.% is append-only: % is refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege';
END $$;
-- +goose StatementEnd

CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON medilab.events
    FOR EACH STATEMENT EXECUTE FUNCTION medilab.refuse_change();
CREATE TRIGGER seals_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON medilab.seals
    FOR EACH STATEMENT EXECUTE FUNCTION medilab.refuse_change();
ALTER TABLE medilab.events ENABLE ALWAYS TRIGGER events_append_only;
ALTER TABLE medilab.seals ENABLE ALWAYS TRIGGER seals_append_only;

-- The nodes that work on this database. A node owns what it claimed while its
-- lease is good; an id is never used twice, so it is the fencing token too.
CREATE TABLE medilab.nodes (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL,
    joined_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    lease_until timestamptz NOT NULL
);

-- A reader's place in the log, and the node that reads for all.
CREATE TABLE medilab.readers (
    name     text PRIMARY KEY,
    position bigint NOT NULL DEFAULT 0,
    node     bigint
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

-- For people at psql.
CREATE VIEW medilab.log AS
    SELECT position, recorded_at, stream, version, type, convert_from(data, 'UTF8') AS data, metadata
    FROM medilab.events;
