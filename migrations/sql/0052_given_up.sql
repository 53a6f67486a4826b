-- +goose Up
SET LOCAL medilab.oldest_schema = 47;
SET LOCAL lock_timeout = '500ms';

-- The read model of alerts is filled anew: what a replay has delivered of a batch is no longer given up with it.
