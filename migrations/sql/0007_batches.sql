-- +goose Up

-- Deliveries that wait for others to go with: one row each until it joins a
-- batch, is cancelled, or is asked for at once. Rows change only in the
-- transaction that appends the event which says so, as the queue's do.
CREATE TABLE medilab.batch_members (
    delivery_id uuid PRIMARY KEY,
    webhook_id  uuid NOT NULL,
    position    bigint NOT NULL,  -- of the event: their order in the batch
    event_id    uuid NOT NULL,
    size        integer NOT NULL, -- bytes of event_data
    max_events  integer NOT NULL, -- the rule it was dispatched under
    due_at      timestamptz NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX batch_members_line ON medilab.batch_members (webhook_id, position);
CREATE INDEX batch_members_due ON medilab.batch_members (due_at);

-- A batch is queued as one delivery; its event_id is that of its first member.
ALTER TABLE medilab.queue ADD COLUMN batch boolean NOT NULL DEFAULT false;
