-- +goose Up
-- Everything of this product lives in one schema, so that it can share a database with the clinic.
CREATE SCHEMA IF NOT EXISTS medilab;
