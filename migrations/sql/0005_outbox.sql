-- +goose Up

-- The clinic's own services emit events by medilab.emit() inside their own
-- transactions. What it writes here exists if and only if that transaction
-- commits; the relay moves it into the log.

-- What can be emitted: the catalogue, as the service that started last knows it.
CREATE TABLE medilab.event_types (
    type           text COLLATE "C" PRIMARY KEY,
    description_ru text NOT NULL,
    description_en text NOT NULL
);

-- Rows live for moments. No emitter waits for another: the sequence has no lock
-- that outlives a call, and nothing here is unique but the sequence's number.
CREATE TABLE medilab.outbox (
    seq            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id       uuid NOT NULL,
    event_type     text NOT NULL,
    event_data     json NOT NULL, -- not jsonb, which would reorder keys and refuse \u0000
    size           integer NOT NULL, -- bytes of event_data, so that a batch bounds its memory
    correlation_id text,
    source         text,
    emitted_by     text NOT NULL, -- the role that logged in
    emitted_at     timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_cost_delay = 0);

-- Which node relays: one at a time, while its lease is good.
CREATE TABLE medilab.relay (
    one  boolean PRIMARY KEY DEFAULT true CHECK (one),
    node bigint
);
INSERT INTO medilab.relay DEFAULT VALUES;

-- What was emitted and cannot be accepted, with the reason, for people to look at.
CREATE TABLE medilab.parked_events (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id       uuid NOT NULL,
    event_type     text NOT NULL,
    event_data     json NOT NULL,
    correlation_id text,
    source         text,
    emitted_by     text NOT NULL,
    emitted_at     timestamptz NOT NULL,
    parked_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    reason         text NOT NULL
);

-- +goose StatementBegin
DO $$
BEGIN
    ALTER TABLE medilab.outbox ALTER COLUMN event_data SET COMPRESSION lz4;
    ALTER TABLE medilab.parked_events ALTER COLUMN event_data SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported OR invalid_parameter_value THEN
    NULL; -- the server was built without lz4
END $$;
-- +goose StatementEnd

-- A UUID of version 7 (RFC 9562): 48 bits of milliseconds, then chance. The built-in
-- random UUID has the variant's bits already and version 4, whose bits 0100 become
-- 0111 by setting two.
-- +goose StatementBegin
CREATE FUNCTION medilab.uuid_v7() RETURNS uuid LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
        PLACING substring(int8send(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
        FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid
$$;
-- +goose StatementEnd

-- It runs with its owner's rights, so that a clinic's role needs none on the tables:
--
--     GRANT USAGE ON SCHEMA medilab TO clinic;
--     GRANT EXECUTE ON FUNCTION medilab.emit TO clinic;
--
-- It sends no NOTIFY: that takes a lock of the whole cluster at commit, and would
-- make the clinic's commits wait for each other. The relay polls.
-- +goose StatementBegin
CREATE FUNCTION medilab.emit(
    event_type     text,
    event_data     json,
    correlation_id text DEFAULT NULL,
    event_id       uuid DEFAULT NULL,
    source         text DEFAULT 'sql'
) RETURNS uuid LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    id   uuid := coalesce(emit.event_id, medilab.uuid_v7());
    size integer := octet_length(emit.event_data::text);
BEGIN
    IF emit.event_type IS NULL THEN
        RAISE EXCEPTION 'event_type is required'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'Name one, as in patient.created.';
    END IF;
    -- The table is empty until the service has started once: the relay decides then.
    IF NOT EXISTS (SELECT FROM medilab.event_types AS t WHERE t.type = emit.event_type)
            AND EXISTS (SELECT FROM medilab.event_types) THEN
        RAISE EXCEPTION 'unknown event type "%"', emit.event_type
            USING ERRCODE = 'invalid_parameter_value', HINT = 'The table medilab.event_types lists the known ones.';
    END IF;
    IF emit.event_data IS NULL OR json_typeof(emit.event_data) <> 'object' THEN
        RAISE EXCEPTION 'event_data must be a JSON object, not %', coalesce(json_typeof(emit.event_data), 'nothing')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Wrap it, as in {"value": ...}.';
    END IF;
    IF size > 10485760 THEN
        RAISE EXCEPTION 'event_data has % bytes, the most is 10485760 (10 MB)', size
            USING ERRCODE = 'program_limit_exceeded', HINT = 'Emit a reference to the data instead.';
    END IF;
    IF length(emit.correlation_id) > 500 OR length(emit.source) > 500 THEN
        RAISE EXCEPTION 'correlation_id and source have at most 500 characters'
            USING ERRCODE = 'string_data_right_truncation';
    END IF;
    -- The transaction gets its id before the row gets its number: the relay tells by
    -- the ids when no smaller number can show up any more.
    PERFORM pg_current_xact_id();
    INSERT INTO medilab.outbox (event_id, event_type, event_data, size, correlation_id, source, emitted_by)
    VALUES (id, emit.event_type, emit.event_data, size, emit.correlation_id, emit.source, session_user);
    RETURN id;
END $$;
-- +goose StatementEnd

REVOKE ALL ON FUNCTION medilab.uuid_v7() FROM PUBLIC;
REVOKE ALL ON FUNCTION medilab.emit(text, json, text, uuid, text) FROM PUBLIC;

-- Runs in the transaction that appends the events. A plan made while the table was
-- small would read all of it for ever after: this one always goes by the key.
-- +goose StatementBegin
CREATE FUNCTION medilab.outbox_done(seqs bigint[]) RETURNS void LANGUAGE plpgsql
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    DELETE FROM medilab.outbox AS o WHERE o.seq = ANY (seqs);
END $$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION medilab.outbox_done(bigint[]) FROM PUBLIC;
