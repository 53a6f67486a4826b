-- +goose Up

-- Each session says for which schema its program was made. What was made for an older
-- one appends nothing and gets no lease: neither a program that starts on a newer schema
-- nor one that still runs, or wakes up, after the schema moved on.
-- +goose StatementBegin
CREATE FUNCTION medilab.check_schema_version() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    present bigint := (SELECT max(version_id) FROM medilab.schema_version);
BEGIN
    IF current_setting('application_name') = 'medilab-webhooks' -- psql may
            AND coalesce(nullif(current_setting('medilab.schema_version', true), ''), '0')::bigint < present THEN
        RAISE EXCEPTION 'the schema medilab is at version %, which this program does not know', present
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Use the version of medilab-webhooks that migrated the database.';
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER check_schema_version BEFORE INSERT OR UPDATE ON medilab.nodes
    FOR EACH STATEMENT EXECUTE FUNCTION medilab.check_schema_version();
CREATE TRIGGER check_schema_version BEFORE UPDATE ON medilab.log_head
    FOR EACH STATEMENT EXECUTE FUNCTION medilab.check_schema_version();

-- A text that the keyset of this database encrypted: a keyset that does not decrypt it is
-- another's.
CREATE TABLE medilab.keyset_probe (
    one       boolean PRIMARY KEY DEFAULT true CHECK (one),
    encrypted text NOT NULL
);
