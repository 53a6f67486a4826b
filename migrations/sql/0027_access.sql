-- +goose Up

-- The readings of payloads: the lowest byte of the position of each, a row a block of 256
-- positions (see 0012).
CREATE TABLE medilab.accesses (
    kind   integer NOT NULL, -- 0: one list has them all
    block  bigint NOT NULL,
    places bytea NOT NULL,
    PRIMARY KEY (kind, block)
) WITH (fillfactor = 80, autovacuum_analyze_scale_factor = 0.2, autovacuum_analyze_threshold = 10000);
-- No log has a reading yet, so there is nothing to rebuild it from.
INSERT INTO medilab.read_models (name, shape)
SELECT 'access', 1 WHERE EXISTS (SELECT FROM medilab.readers WHERE name = 'projections' AND position > 0);

-- The key that signs receipts, which all nodes share; the keyset encrypts it.
CREATE TABLE medilab.receipt_key (
    one       boolean PRIMARY KEY DEFAULT true CHECK (one),
    encrypted text NOT NULL
);
