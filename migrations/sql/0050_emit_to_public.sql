-- +goose Up
SET LOCAL medilab.oldest_schema = 46;
SET LOCAL lock_timeout = '500ms';

-- Types that public is limited to would hold for nobody: roles without a row in emitters may emit all.
-- +goose StatementBegin
DO $do$
BEGIN
    EXECUTE replace(pg_get_functiondef('medilab.allow_emit(name, text[])'::regprocedure), E'\nBEGIN\n', $$
BEGIN
    IF allow_emit.role = 'public' AND NOT allow_emit.types IS NULL THEN
        RAISE EXCEPTION 'public cannot be limited to some event types'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Name the roles that may emit these types.';
    END IF;
$$);
END $do$;
-- +goose StatementEnd
