-- +goose Up

-- log_head.schema_version is the oldest schema whose programs may append and have leases. A
-- migration that programs of an older schema survive says so for its transaction, by
--     SET LOCAL medilab.oldest_schema = 42;
--     SET LOCAL lock_timeout = '500ms';
-- Others raise it to their own number. What a program survives: docs/decisions/0017.
--
-- Such a migration holds locks while appends go on: the row of log_head, which appends lock first,
-- must not be among them.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION medilab.note_schema_version() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    oldest bigint := coalesce(nullif(current_setting('medilab.oldest_schema', true), '')::bigint,
        (SELECT max(version_id) FROM medilab.schema_version));
BEGIN
    UPDATE medilab.log_head SET schema_version = oldest WHERE schema_version < oldest;
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- The schema that the node's program was made for, as its session says.
ALTER TABLE medilab.nodes ADD COLUMN schema_version bigint NOT NULL
    DEFAULT coalesce(nullif(current_setting('medilab.schema_version', true), ''), '0')::bigint;
