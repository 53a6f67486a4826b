-- +goose Up

-- Alerts are acknowledged. An alert about deliveries that were given up counts those from
-- the position since on, and once it is resolved, up to the position through.
ALTER TABLE medilab.alerts
    ADD COLUMN acknowledged_at timestamptz,
    ADD COLUMN acknowledged_by text,
    ADD COLUMN since bigint,
    ADD COLUMN through bigint;

-- Deliveries that ran out of retries and have not been delivered or cancelled since.
CREATE TABLE medilab.given_up (
    delivery uuid PRIMARY KEY,
    webhook  uuid NOT NULL,
    batch    uuid,               -- that it went in; null: alone
    position bigint NOT NULL,    -- where it was given up
    at       timestamptz NOT NULL
);
CREATE INDEX given_up_webhook_position_idx ON medilab.given_up (webhook, position);
CREATE INDEX given_up_batch_idx ON medilab.given_up (batch) WHERE batch IS NOT NULL;

-- E-mails about alerts that are to be sent: an event of the log each.
CREATE TABLE medilab.alert_mails (
    id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    type text NOT NULL,
    data bytea NOT NULL,
    at   timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO medilab.readers (name, position) VALUES ('alert_mails', NULL);
