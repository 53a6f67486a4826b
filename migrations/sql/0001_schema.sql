-- +goose Up
-- Everything of this product lives in one schema, so that it can share a database with the clinic.
-- It is there already: migrations.go makes it, unless the administrator did.
SELECT FROM pg_namespace WHERE nspname = 'medilab';
