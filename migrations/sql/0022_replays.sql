-- +goose Up

-- The replay that asked for a delivery; null: none did. Deliveries of replays are few at a
-- time, so the index is small, and rows of no replay are not in it.
ALTER TABLE medilab.queue ADD COLUMN replay uuid;
CREATE INDEX queue_replay ON medilab.queue (replay) WHERE replay IS NOT NULL;

-- The read model of replays: how far each has come.
CREATE TABLE medilab.replays (
    id           uuid PRIMARY KEY,
    position     bigint NOT NULL UNIQUE, -- of replay.requested
    webhook      uuid,                   -- null: all
    request      bytea NOT NULL,         -- replay.requested, as the log has it
    requested_by text NOT NULL,
    created_at   timestamptz NOT NULL,
    state        text NOT NULL,
    matched      bigint,                 -- null: it is being counted
    queued       bigint NOT NULL,
    delivered    bigint NOT NULL,
    failed       bigint NOT NULL,
    cancelled    bigint NOT NULL,
    finished_at  timestamptz
);
CREATE INDEX replays_webhook ON medilab.replays (webhook, position);
