-- +goose Up

-- Batches that nobody has tried yet, for the list of what is pending. Other deliveries are
-- not in it.
CREATE INDEX queue_batch ON medilab.queue (webhook_id, due_at) WHERE batch AND version = 1;

-- A rebuild that an older version has begun would put its tables in the place of
-- these: this waits for its end.
SELECT pg_advisory_xact_lock(32199620896058468);

-- The blocks of 1024 positions in which an event went to the webhook.
CREATE TABLE medilab.reached (
    webhook integer NOT NULL, -- its short number
    block   bigint NOT NULL,
    PRIMARY KEY (webhook, block)
) WITH (autovacuum_analyze_scale_factor = 0.2, autovacuum_analyze_threshold = 10000);

-- When events occurred of which somebody said when, by blocks of 256 positions: lists by the
-- event's time look for what was accepted later in those.
CREATE TABLE medilab.occurred (
    block    bigint PRIMARY KEY,
    earliest timestamptz NOT NULL,
    latest   timestamptz NOT NULL
);
