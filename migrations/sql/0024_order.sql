-- +goose Up

-- A line: deliveries of a webhook that are sent one after another, in the order of their
-- events' positions. Those that wait for their turn have node 0, which no claim takes; the
-- transaction that appends the end of one gives the turn to the next. One that gave up and
-- holds up its line stays, due at infinity.
ALTER TABLE medilab.queue ADD COLUMN line bigint, ADD COLUMN position bigint; -- null: not in a line
-- The two indexes share no row, so that no plan takes the long one for the short one.
CREATE INDEX queue_held ON medilab.queue (webhook_id, line, position) WHERE line IS NOT NULL AND node = 0;
CREATE INDEX queue_turn ON medilab.queue (webhook_id, line) WHERE line IS NOT NULL AND node IS DISTINCT FROM 0;
ALTER TABLE medilab.batch_members ADD COLUMN line bigint;

-- The numbers of deliveries of webhooks that want them: inserted by the append that
-- dispatches the event, and kept.
CREATE TABLE medilab.sequence (
    delivery_id uuid PRIMARY KEY,
    webhook_id  uuid NOT NULL,
    since       bigint NOT NULL, -- the version of the webhook from which it is numbered
    number      bigint NOT NULL, -- 1, 2, 3 ... in the order of position
    position    bigint NOT NULL  -- of the event
) WITH (autovacuum_analyze_scale_factor = 0.2, autovacuum_analyze_threshold = 10000);
CREATE UNIQUE INDEX sequence_number ON medilab.sequence (webhook_id, since, number);
