-- +goose Up

-- Statistics: a row a webhook, and one for the whole system (the nil webhook), with
-- the figures of all time and of the latest hour in which anything happened to it.
-- So a call changes one row of its webhook. Hours before that do not change, and
-- have a table of their own. Nothing is lost: what there is moves as it is.

-- A rebuild that an older version has begun would put its tables in the place of
-- these: this waits for its end.
SELECT pg_advisory_xact_lock(32199620896058468);

ALTER TABLE medilab.stats RENAME TO stats_hours;
ALTER INDEX medilab.stats_pkey RENAME TO stats_hours_pkey;
ALTER INDEX medilab.stats_hour RENAME TO stats_hours_hour;
ALTER TABLE medilab.stats_hours RESET (fillfactor, autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);

-- No column but the key is indexed, and most of each block is left free, so that
-- updates of a row stay in its block (HOT): 97 of 100 do, and at 50 only 82. Those
-- leave little to vacuum, and how many rows there are changes slowly.
CREATE TABLE medilab.stats (
    webhook      uuid PRIMARY KEY,
    calls        bigint NOT NULL,
    tally        bytea NOT NULL,   -- of all time: all figures, see projections/tally.go
    latest       integer NOT NULL, -- hour since 1970, UTC
    latest_calls bigint NOT NULL,
    latest_tally bytea NOT NULL
) WITH (fillfactor = 30, autovacuum_vacuum_scale_factor = 1, autovacuum_vacuum_threshold = 5000,
        autovacuum_analyze_scale_factor = 10, autovacuum_analyze_threshold = 10000);

INSERT INTO medilab.stats (webhook, calls, tally, latest, latest_calls, latest_tally)
SELECT t.webhook, t.calls, t.tally, l.hour, l.calls, l.tally
FROM medilab.stats_hours AS t
CROSS JOIN LATERAL (SELECT hour, calls, tally FROM medilab.stats_hours WHERE webhook = t.webhook AND hour >= 0 ORDER BY hour DESC LIMIT 1) AS l
WHERE t.hour = -1;

DELETE FROM medilab.stats_hours AS h USING medilab.stats AS s WHERE h.webhook = s.webhook AND (h.hour = s.latest OR h.hour = -1);

UPDATE medilab.read_models SET shape = 2 WHERE name = 'stats' AND shape = 1;
