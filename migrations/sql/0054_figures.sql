-- +goose Up
SET LOCAL medilab.oldest_schema = 47;
SET LOCAL lock_timeout = '500ms';

-- The read models of alerts and statistics are rebuilt: what is erased of a batch is not given up any more once a
-- replay has sent the rest, and a batch of nothing but the service's own events counts for no alert.
