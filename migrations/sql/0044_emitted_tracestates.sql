-- +goose Up
SET LOCAL medilab.oldest_schema = 42;
SET LOCAL lock_timeout = '500ms';

-- The tracestate of outbox.traceparent, by the setting medilab.tracestate. One that is too long is left
-- out whole: cut off, its last member would be another.
ALTER TABLE medilab.outbox ADD COLUMN tracestate text;
ALTER TABLE medilab.outbox ALTER COLUMN tracestate SET DEFAULT
	CASE WHEN length(current_setting('medilab.tracestate', true)) <= 4096 THEN current_setting('medilab.tracestate', true) END;
