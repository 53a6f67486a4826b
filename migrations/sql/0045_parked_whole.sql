-- +goose Up
SET LOCAL medilab.oldest_schema = 42;
SET LOCAL lock_timeout = '500ms';

-- A parked event that is accepted after all keeps its trace, and whether it is only recorded.
ALTER TABLE medilab.parked_events ADD COLUMN imported boolean NOT NULL DEFAULT false,
	ADD COLUMN traceparent text, ADD COLUMN tracestate text;
