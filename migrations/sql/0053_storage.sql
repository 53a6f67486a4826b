-- +goose Up
SET LOCAL medilab.oldest_schema = 47;
SET LOCAL lock_timeout = '500ms';

-- Encrypted data do not compress, which Postgres tried with each entry of over 2 KB, for as long as the rest of its
-- insertion took. Entries of up to half a page stay in it.
ALTER TABLE medilab.events ALTER COLUMN data SET STORAGE EXTERNAL;
ALTER TABLE medilab.events SET (toast_tuple_target = 4080);
