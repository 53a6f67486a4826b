-- +goose Up

-- Batches that nobody has tried yet, for the list of what is pending. Other deliveries are
-- not in it.
CREATE INDEX queue_batch ON medilab.queue (webhook_id, due_at) WHERE batch AND version = 1;
