-- +goose Up

-- Whom an event goes to is decided before it is appended, by the configuration at some
-- position; the append demands that configuration is still that position. It is the
-- position of the last event of a webhook's stream.
ALTER TABLE medilab.log_head ADD COLUMN configuration bigint NOT NULL DEFAULT 0;
UPDATE medilab.log_head SET configuration =
    coalesce((SELECT position FROM medilab.events WHERE stream LIKE 'webhook-%' ORDER BY position DESC LIMIT 1), 0);

-- Versions before this one do not maintain configuration. The new name makes their
-- appends fail instead: stop every node of an older version first.
ALTER TABLE medilab.log_head RENAME COLUMN seal TO last_seal;

-- Events that a version before recorded without deciding whom they go to. The first
-- start decides them; see commands/saga/upgrade.go.
CREATE TABLE medilab.undecided (position bigint PRIMARY KEY);
SET LOCAL enable_seqscan = off; -- the log is long, and what is looked for are its last few events
INSERT INTO medilab.undecided (position)
    SELECT e.position FROM (
        SELECT position, stream, type FROM medilab.events
            WHERE position > coalesce((SELECT position FROM medilab.readers WHERE name = 'dispatcher'), 0)
        UNION
        SELECT e.position, e.stream, e.type FROM medilab.undispatched AS u
            CROSS JOIN LATERAL (SELECT * FROM medilab.events WHERE position = u.position LIMIT 1) AS e
    ) AS e
    WHERE e.type = 'event.triggered' AND (
        SELECT d.type FROM medilab.events AS d WHERE d.stream = e.stream AND d.version = 2 LIMIT 1) IS DISTINCT FROM 'event.dispatched';
SET LOCAL enable_seqscan = on;
DROP TABLE medilab.undispatched;
DELETE FROM medilab.readers WHERE name = 'dispatcher';

-- A lease that is no reader's has no position.
ALTER TABLE medilab.readers ALTER COLUMN position DROP NOT NULL;
INSERT INTO medilab.readers (name, position) VALUES ('replays', NULL), ('relay', NULL);
DROP TABLE medilab.relay;

-- What a node has done since it joined; null: it makes no calls. Nodes even it out.
ALTER TABLE medilab.nodes ADD COLUMN work bigint;
