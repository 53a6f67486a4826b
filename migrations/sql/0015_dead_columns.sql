-- +goose Up

-- What nothing reads any more leaves.

-- A rebuild that an older version has begun would put its tables in the place of
-- these: this waits for its end.
SELECT pg_advisory_xact_lock(32199620896058468);

-- Webhooks are listed and searched in memory. A row keeps what other lists show of
-- its webhook. The name stands third in the former state, after id and number.
CREATE TABLE medilab.webhooks_named (
    id     uuid PRIMARY KEY,
    number bigint NOT NULL,
    status text NOT NULL, -- active, inactive, deleted
    name   text NOT NULL
);
INSERT INTO medilab.webhooks_named (id, number, status, name)
SELECT id, number, status, coalesce(regexp_replace(
    substring(convert_from(state, 'UTF8') FROM '^\{"ID":"[^"]*","Number":[0-9]+,"Name":("(?:[^"\\]|\\.)*")'),
    '(?<!\\)((?:\\\\)*)\\u0000', '\1\\ufffd', 'g')::json #>> '{}', '')
FROM medilab.webhooks;
DROP TABLE medilab.webhooks;
ALTER TABLE medilab.webhooks_named RENAME TO webhooks;
ALTER INDEX medilab.webhooks_named_pkey RENAME TO webhooks_pkey;
CREATE UNIQUE INDEX webhooks_number_idx ON medilab.webhooks (number);
-- A row whose name was not found, if there is one, has them rebuilt.
UPDATE medilab.read_models SET shape = 2 WHERE name = 'webhooks' AND shape = 1
    AND NOT EXISTS (SELECT FROM medilab.webhooks WHERE name = '');

-- A time is found by a binary search of positions.
DROP INDEX medilab.events_recorded_at;

-- Indexes have the names that CREATE TABLE ... (LIKE ... INCLUDING INDEXES) gives them,
-- so that they keep them in a rebuild.
ALTER INDEX medilab.alerts_id RENAME TO alerts_id_idx;
ALTER INDEX medilab.alerts_open RENAME TO alerts_position_idx;
ALTER INDEX medilab.stats_hours_hour RENAME TO stats_hours_hour_webhook_idx;
