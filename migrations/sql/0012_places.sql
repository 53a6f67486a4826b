-- +goose Up

-- The call log and the list of events, a row a list and block of 256 positions: its
-- places are the lowest byte of each position, in the order of the log. A row an
-- entry, with its place in the index, was a quarter of what Postgres did for a
-- delivery.

-- A rebuild that an older version has begun would put its tables in the place of
-- these: this waits for its end.
SELECT pg_advisory_xact_lock(32199620896058468);

CREATE TABLE medilab.calls_by_block (
    webhook integer NOT NULL, -- its short number
    kind    integer NOT NULL, -- the event type's hash; the lowest bit: it succeeded
    block   bigint NOT NULL,
    places  bytea NOT NULL,
    PRIMARY KEY (webhook, kind, block)
) WITH (fillfactor = 80, autovacuum_analyze_scale_factor = 0.2, autovacuum_analyze_threshold = 10000);
INSERT INTO medilab.calls_by_block (webhook, kind, block, places)
SELECT webhook, kind, position >> 8, string_agg(set_byte('\x00', 0, (position & 255)::integer), '' ORDER BY position)
FROM medilab.calls GROUP BY webhook, kind, position >> 8;
DROP TABLE medilab.calls;
ALTER TABLE medilab.calls_by_block RENAME TO calls;
ALTER INDEX medilab.calls_by_block_pkey RENAME TO calls_pkey;

-- Few events of all have a correlation id, or all of one service's: they are found one by one.
CREATE TABLE medilab.correlated (
    position    bigint NOT NULL,
    correlation integer NOT NULL, -- the correlation id's hash
    kind        integer NOT NULL, -- the event type's hash
    PRIMARY KEY (correlation, position)
) WITH (autovacuum_analyze_scale_factor = 0.2, autovacuum_analyze_threshold = 10000);
INSERT INTO medilab.correlated (position, correlation, kind)
SELECT position, correlation, kind FROM medilab.triggered WHERE correlation IS NOT NULL;

CREATE TABLE medilab.triggered_by_block (
    kind   integer NOT NULL, -- the event type's hash
    block  bigint NOT NULL,
    places bytea NOT NULL,
    PRIMARY KEY (kind, block)
) WITH (fillfactor = 80, autovacuum_analyze_scale_factor = 0.2, autovacuum_analyze_threshold = 10000);
INSERT INTO medilab.triggered_by_block (kind, block, places)
SELECT kind, position >> 8, string_agg(set_byte('\x00', 0, (position & 255)::integer), '' ORDER BY position)
FROM medilab.triggered GROUP BY kind, position >> 8;
DROP TABLE medilab.triggered;
ALTER TABLE medilab.triggered_by_block RENAME TO triggered;
ALTER INDEX medilab.triggered_by_block_pkey RENAME TO triggered_pkey;

UPDATE medilab.read_models SET shape = 2 WHERE name IN ('calls', 'events') AND shape = 1;
