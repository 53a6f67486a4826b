-- +goose Up

-- Each session says for which schema its program was made. What was made for an older
-- one appends nothing and gets no lease: neither a program that starts on a newer schema
-- nor one that still runs, or wakes up, after the schema moved on.
ALTER TABLE medilab.log_head ADD COLUMN schema_version bigint NOT NULL DEFAULT 0;
-- +goose StatementBegin
CREATE FUNCTION medilab.note_schema_version() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE medilab.log_head SET schema_version = (SELECT max(version_id) FROM medilab.schema_version);
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER note_schema_version AFTER INSERT OR DELETE ON medilab.schema_version
    FOR EACH STATEMENT EXECUTE FUNCTION medilab.note_schema_version();

-- +goose StatementBegin
CREATE FUNCTION medilab.check_schema_version() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    present bigint := (SELECT schema_version FROM medilab.log_head);
BEGIN
    IF current_setting('application_name') = 'medilab-webhooks' -- psql may
            AND coalesce(nullif(current_setting('medilab.schema_version', true), ''), '0')::bigint < present THEN
        RAISE EXCEPTION 'the schema medilab is at version %, which this program does not know', present
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Use the version of medilab-webhooks that migrated the database.';
    END IF;
    RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER check_schema_version BEFORE INSERT OR UPDATE ON medilab.nodes
    FOR EACH STATEMENT EXECUTE FUNCTION medilab.check_schema_version();
-- Each append meets this one: to call the function took longer than to insert ten events.
CREATE TRIGGER check_schema_version BEFORE UPDATE ON medilab.log_head FOR EACH ROW
    WHEN (coalesce(nullif(current_setting('medilab.schema_version', true), ''), '0')::bigint < OLD.schema_version)
    EXECUTE FUNCTION medilab.check_schema_version();

-- A text that the keyset of this database encrypted: a keyset that does not decrypt it is
-- another's.
CREATE TABLE medilab.keyset_probe (
    one       boolean PRIMARY KEY DEFAULT true CHECK (one),
    encrypted text NOT NULL
);
