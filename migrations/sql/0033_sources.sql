-- +goose Up

-- Messages of brokers that cannot be accepted are parked, too. Emitted_by names their source.
ALTER TABLE medilab.parked_events ADD COLUMN from_source boolean NOT NULL DEFAULT false;
