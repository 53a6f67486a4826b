-- +goose Up
SET LOCAL medilab.oldest_schema = 42;
SET LOCAL lock_timeout = '500ms';

-- A webhook's own alerts are a list.
CREATE INDEX alerts_webhook_position_idx ON medilab.alerts (webhook, position);
