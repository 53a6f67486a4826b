-- +goose Up
-- Nodes of older schemas would not take over what a row of medilab.claims holds: all stop for this one.

-- What nodes claimed in the appends that queued it, a row an append instead of one in medilab.queue
-- for each delivery. A delivery has ended, or has a row of its own, as soon as its stream has an
-- event. The node deletes the row when that is so of all of them.
CREATE TABLE medilab.claims (
    node       bigint NOT NULL,
    first      uuid NOT NULL, -- of the deliveries
    deliveries uuid[] NOT NULL,
    webhooks   uuid[] NOT NULL,
    events     uuid[] NOT NULL,
    sizes      integer[] NOT NULL,
    queued_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (node, first)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0,
        toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 10000, toast.autovacuum_vacuum_cost_delay = 0);

-- Random numbers do not compress.
ALTER TABLE medilab.claims ALTER COLUMN deliveries SET STORAGE EXTERNAL, ALTER COLUMN webhooks SET STORAGE EXTERNAL,
    ALTER COLUMN events SET STORAGE EXTERNAL, ALTER COLUMN sizes SET STORAGE EXTERNAL;

-- The deliveries of claims that have not ended. The scalar subquery goes by the key, whatever is
-- known of the tables.
CREATE VIEW medilab.claimed AS
SELECT d.delivery_id, d.webhook_id, d.event_id, d.size, c.queued_at AS due_at, c.node, c.first
FROM medilab.claims AS c
CROSS JOIN LATERAL unnest(c.deliveries, c.webhooks, c.events, c.sizes) AS d (delivery_id, webhook_id, event_id, size)
WHERE (SELECT true FROM medilab.events AS e WHERE e.stream = 'delivery-' || d.delivery_id::text LIMIT 1) IS NULL;

-- All deliveries that have not ended and do not wait for a batch.
CREATE VIEW medilab.pending AS
SELECT delivery_id, webhook_id, event_id, size, attempt, version, due_at, node, batch FROM medilab.queue
UNION ALL
SELECT delivery_id, webhook_id, event_id, size, 1, 0, due_at, node, false FROM medilab.claimed;
