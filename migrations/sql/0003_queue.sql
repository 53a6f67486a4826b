-- +goose Up

CREATE SEQUENCE medilab.webhook_number;

-- The queue: one row a delivery that is not at its end. Rows change only in the
-- transaction that appends the event which says so.
CREATE TABLE medilab.queue (
    delivery_id uuid PRIMARY KEY,
    webhook_id  uuid NOT NULL,        -- the lane
    event_id    uuid NOT NULL,
    size        integer NOT NULL,     -- bytes of event_data, so that a claim bounds its memory
    attempt     integer NOT NULL,     -- the number that the next attempt gets
    retries     integer NOT NULL,     -- of max_retries, used
    version     bigint NOT NULL,      -- events in the delivery's stream
    due_at      timestamptz NOT NULL,
    node        bigint                -- who claimed it; null: nobody
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0);

-- Claims go lane by lane, the earliest due first: a lane that is full costs one
-- step over, however long its backlog. Rows that a node inserts as its own are
-- never in these indexes.
CREATE INDEX queue_lane ON medilab.queue (webhook_id, due_at) WHERE node IS NULL;
CREATE INDEX queue_due ON medilab.queue (due_at) WHERE node IS NULL;
-- What a dead node had.
CREATE INDEX queue_node ON medilab.queue (node) WHERE node IS NOT NULL;
