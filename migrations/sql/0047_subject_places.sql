-- +goose Up
SET LOCAL medilab.oldest_schema = 46;
SET LOCAL lock_timeout = '500ms';

-- A read model: the events, and tests, that tell of each subject. It takes the place of
-- subject_events, which had a row and a key of its own for each of them. A row holds those of one in
-- 128 subjects in a block of 4096 positions: of each the position within the block, in two
-- bytes, and the owner, in 16, in this order.
CREATE TABLE medilab.subject_places (
    kind   integer NOT NULL, -- the first 7 bits of the owner
    block  bigint NOT NULL,
    places bytea NOT NULL,
    PRIMARY KEY (kind, block)
) WITH (fillfactor = 70, autovacuum_analyze_scale_factor = 0.2, autovacuum_analyze_threshold = 10000);
ALTER TABLE medilab.subject_places ALTER COLUMN places SET STORAGE EXTERNAL; -- it does not compress

-- What there is until a node of this version rebuilds it, as older ones go on with subject_events.
INSERT INTO medilab.subject_places (kind, block, places)
SELECT get_byte(owner, 0) >> 1, position >> 12, string_agg(substr(int8send(position & 4095), 7) || owner, ''::bytea ORDER BY position, owner)
FROM (SELECT position, uuid_send(owner) AS owner FROM medilab.subject_events) AS s GROUP BY 1, 2;
