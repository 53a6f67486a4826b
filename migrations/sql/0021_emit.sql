-- +goose Up

-- emitted_at is when an event was emitted, or what its emitter said of that; how long a row waits
-- is measured from inserted_at.
ALTER TABLE medilab.outbox ADD COLUMN inserted_at timestamptz;
ALTER TABLE medilab.outbox ALTER COLUMN inserted_at SET DEFAULT clock_timestamp();

-- The roles that may emit only some types: see allow_emit. Names, which a dump keeps.
CREATE TABLE medilab.emitters (
    role  name PRIMARY KEY,
    types text[] -- null: all
);

-- The checks and the row; the emit functions are what roles may call.
-- +goose StatementBegin
CREATE FUNCTION medilab.emit_json(
    event_type     text,
    event_data     json,
    correlation_id text,
    event_id       uuid,
    source         text,
    occurred_at    timestamptz
) RETURNS uuid LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    id   uuid := coalesce(emit_json.event_id, medilab.uuid_v7());
    size integer := octet_length(emit_json.event_data::text);
BEGIN
    IF emit_json.event_type IS NULL THEN
        RAISE EXCEPTION 'event_type is required'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'Name one, as in patient.created.';
    END IF;
    -- The table is empty until the service has started once: the relay decides then.
    IF NOT EXISTS (SELECT FROM medilab.event_types AS t WHERE t.type = emit_json.event_type)
            AND EXISTS (SELECT FROM medilab.event_types) THEN
        RAISE EXCEPTION 'unknown event type "%"', emit_json.event_type
            USING ERRCODE = 'invalid_parameter_value', HINT = 'The table medilab.event_types lists the known ones.';
    END IF;
    -- A role may emit what one of its roles may; those that have the owner's rights, and those that
    -- were given EXECUTE alone, may emit all.
    IF NOT pg_has_role(session_user, current_user, 'USAGE') AND (
        SELECT NOT bool_or(e.types IS NULL OR emit_json.event_type = ANY (e.types))
        FROM medilab.emitters AS e JOIN pg_roles AS r ON r.rolname = e.role
        WHERE pg_has_role(session_user, r.oid, 'MEMBER')) THEN
        RAISE EXCEPTION 'role "%" may not emit "%"', session_user, emit_json.event_type
            USING ERRCODE = 'insufficient_privilege', HINT = 'The owner of the schema allows it by medilab.allow_emit.';
    END IF;
    IF emit_json.event_data IS NULL OR json_typeof(emit_json.event_data) <> 'object' THEN
        RAISE EXCEPTION 'event_data must be a JSON object, not %', coalesce(json_typeof(emit_json.event_data), 'nothing')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Wrap it, as in {"value": ...}.';
    END IF;
    IF size > 10485760 THEN
        RAISE EXCEPTION 'event_data has % bytes, the most is 10485760 (10 MB)', size
            USING ERRCODE = 'program_limit_exceeded', HINT = 'Emit a reference to the data instead.';
    END IF;
    IF length(emit_json.correlation_id) > 500 OR length(emit_json.source) > 500 THEN
        RAISE EXCEPTION 'correlation_id and source have at most 500 characters'
            USING ERRCODE = 'string_data_right_truncation';
    END IF;
    -- Clocks differ a little.
    IF emit_json.occurred_at > clock_timestamp() + interval '5 seconds' OR emit_json.occurred_at < '0001-01-02 00:00Z' THEN
        RAISE EXCEPTION 'occurred_at must be a time since the year 1 that is not in the future'
            USING ERRCODE = 'datetime_field_overflow';
    END IF;
    -- The transaction gets its id before the row gets its number: the relay tells by
    -- the ids when no smaller number can show up any more.
    PERFORM pg_current_xact_id();
    INSERT INTO medilab.outbox (event_id, event_type, event_data, size, correlation_id, source, emitted_by, emitted_at)
    VALUES (id, emit_json.event_type, emit_json.event_data, size, emit_json.correlation_id, emit_json.source, session_user,
        coalesce(emit_json.occurred_at, clock_timestamp()));
    RETURN id;
END $$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION medilab.emit_json(text, json, text, uuid, text, timestamptz) FROM PUBLIC;

-- One function for each type of event_data: varchar and untyped literals and parameters are text.
-- They run with their owner's rights, so that a clinic's role needs none on the tables, and send no
-- NOTIFY: that takes a lock of the whole cluster at commit, and would make the clinic's commits
-- wait for each other. Roles keep the right that they had.
-- +goose StatementBegin
DO $do$
DECLARE
    roles     text;
    data_type text;
BEGIN
    SELECT string_agg(DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END, ', ') INTO roles
    FROM pg_proc AS p, aclexplode(p.proacl)
    WHERE p.oid = 'medilab.emit(text, json, text, uuid, text)'::regprocedure AND grantee <> p.proowner;
    DROP FUNCTION medilab.emit(text, json, text, uuid, text);
    FOREACH data_type IN ARRAY ARRAY['json', 'jsonb', 'text'] LOOP
        EXECUTE format($sql$
            CREATE FUNCTION medilab.emit(
                event_type     text,
                event_data     %s,
                correlation_id text DEFAULT NULL,
                event_id       uuid DEFAULT NULL,
                source         text DEFAULT 'sql',
                occurred_at    timestamptz DEFAULT NULL
            ) RETURNS uuid LANGUAGE sql VOLATILE SECURITY DEFINER
            SET search_path = pg_catalog, pg_temp AS $$
                SELECT medilab.emit_json(event_type, event_data::json, correlation_id, event_id, source, occurred_at)
            $$
            $sql$, data_type);
        EXECUTE format('REVOKE ALL ON FUNCTION medilab.emit(text, %s, text, uuid, text, timestamptz) FROM PUBLIC', data_type);
        IF roles IS NOT NULL THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION medilab.emit(text, %s, text, uuid, text, timestamptz) TO %s', data_type, roles);
        END IF;
    END LOOP;
END $do$;
-- +goose StatementEnd

-- allow_emit gives a role the right to emit events of the types (null: of all), and to read which
-- types there are. Called again it replaces the types. Only the schema's owner may call it.
-- +goose StatementBegin
CREATE FUNCTION medilab.allow_emit(role name, types text[] DEFAULT NULL) RETURNS void LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    unknown text := (SELECT string_agg(t, ', ') FROM unnest(allow_emit.types) AS t
        WHERE t IS NULL OR t NOT IN (SELECT type FROM medilab.event_types) AND EXISTS (SELECT FROM medilab.event_types));
BEGIN
    IF unknown IS NOT NULL THEN
        RAISE EXCEPTION 'unknown event types: %', unknown
            USING ERRCODE = 'invalid_parameter_value', HINT = 'The table medilab.event_types lists the known ones.';
    END IF;
    INSERT INTO medilab.emitters AS e VALUES (allow_emit.role, allow_emit.types)
        ON CONFLICT ON CONSTRAINT emitters_pkey DO UPDATE SET types = excluded.types;
    EXECUTE format('GRANT USAGE ON SCHEMA medilab TO %I', role);
    EXECUTE format('GRANT SELECT ON medilab.event_types TO %I', role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION medilab.emit(text, json, text, uuid, text, timestamptz),
        medilab.emit(text, jsonb, text, uuid, text, timestamptz), medilab.emit(text, text, text, uuid, text, timestamptz) TO %I', role);
END $$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION medilab.allow_emit(name, text[]) FROM PUBLIC;
