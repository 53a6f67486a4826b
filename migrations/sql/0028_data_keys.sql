-- +goose Up

-- The keys that content of the log is encrypted with, themselves encrypted with the keyset.
-- Destroying a key, a row, is forgetting what it encrypted. owner is a keyed hash of a
-- subject's id; an owner may have several keys, as each process makes its own. until, in
-- seconds since 1970, is when the key's period ends. The row of the owner zero is the key of
-- the hash.
CREATE TABLE medilab.data_keys (
    owner   uuid NOT NULL,
    number  bigint NOT NULL,
    until   bigint NOT NULL,
    wrapped bytea NOT NULL,
    PRIMARY KEY (owner, number)
);
-- Rows come in about the order of until: this costs an insert next to nothing.
CREATE INDEX data_keys_until ON medilab.data_keys USING brin (until);

-- Up to where the log was written by versions that did not encrypt.
CREATE TABLE medilab.unencrypted (position bigint NOT NULL);
INSERT INTO medilab.unencrypted SELECT position FROM medilab.log_head WHERE position > 0;

-- A read model: the events, and tests, that tell of each subject.
CREATE TABLE medilab.subject_events (
    owner    uuid NOT NULL,
    position bigint NOT NULL,
    PRIMARY KEY (owner, position)
);
-- What older versions wrote names no subject that could be found.
INSERT INTO medilab.read_models (name, shape)
SELECT 'subjects', 1 WHERE EXISTS (SELECT FROM medilab.readers WHERE name = 'projections' AND position > 0);
