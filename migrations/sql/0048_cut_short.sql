-- +goose Up
SET LOCAL medilab.oldest_schema = 46;
SET LOCAL lock_timeout = '500ms';

-- The deliveries that were cancelled while a node had them, so that a call may be under way. The node
-- deletes the row when it has recorded how that ended, or knows that there was none; who takes over
-- from it when it is dead records that nobody knows.
CREATE TABLE medilab.cut_short (
    delivery_id uuid PRIMARY KEY,
    node        bigint NOT NULL,
    webhook_id  uuid NOT NULL,
    event_id    uuid NOT NULL, -- of a batch: its first member's
    attempt     integer NOT NULL, -- that may be under way
    batch       boolean NOT NULL
);
