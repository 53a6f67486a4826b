-- +goose Up

-- The node that makes the calls of a webhook which limits them, so that it can count them.
-- Webhooks without limits, and those that were not called lately, have no row.
CREATE TABLE IF NOT EXISTS medilab.paced (
    webhook_id uuid PRIMARY KEY,
    node       bigint NOT NULL,
    since      timestamptz NOT NULL -- it began to; tells one time from another
);
