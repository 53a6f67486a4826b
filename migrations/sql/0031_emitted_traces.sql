-- +goose Up

-- The trace that the emitting transaction is part of, by its setting medilab.traceparent (W3C Trace
-- Context). As a default of the column it needs no other functions. The relay ignores what is malformed, as a text that is too long.
ALTER TABLE medilab.outbox ADD COLUMN traceparent text;
ALTER TABLE medilab.outbox ALTER COLUMN traceparent SET DEFAULT left(current_setting('medilab.traceparent', true), 56);
