-- +goose Up

-- The figures of all webhooks in an hour, or of all time (hour -1), without those
-- of every other hour. Its columns never change, so updates of a row stay HOT.
CREATE INDEX stats_hour ON medilab.stats (hour, webhook);
