-- +goose Up

-- Triggered events that the dispatcher could not read when it came to them: they
-- are in nobody's way, and are tried again until they can be read.
CREATE TABLE medilab.undispatched (
    position bigint PRIMARY KEY,
    reason   text NOT NULL,
    since    timestamptz NOT NULL DEFAULT clock_timestamp()
);
