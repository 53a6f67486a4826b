-- +goose Up

-- Up to where entries of versions that did not encrypt are encrypted since, on record.
ALTER TABLE medilab.unencrypted ADD COLUMN encrypted_to bigint NOT NULL DEFAULT 0;

-- For each batch of such entries, what seals them as they are now. The seals that they were
-- appended with stay, as what follows builds on them.
CREATE TABLE medilab.resealed (
    last_position bigint PRIMARY KEY,
    seal          bytea NOT NULL
);

-- Puts encrypted entries in the place of those in clear, up to the last of the batches, in the
-- append that records it. It takes the lock of archives ("archive" as bytes).
-- +goose StatementBegin
CREATE FUNCTION medilab.encrypt_entries(begun bigint, batches bigint[], new_seals bytea[], positions bigint[], contents bytea[])
RETURNS void LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    done  bigint := batches[cardinality(batches)];
    moved medilab.events[];
BEGIN
    IF NOT pg_try_advisory_xact_lock(27428844020004453) THEN
        RAISE EXCEPTION 'an archive command is running' USING ERRCODE = 'MA003';
    END IF;
    UPDATE medilab.unencrypted SET encrypted_to = done WHERE encrypted_to = begun AND position >= done;
    IF NOT FOUND OR begun < medilab.archived_to() OR EXISTS (SELECT FROM unnest(positions) AS p WHERE p <= begun OR p > done) THEN
        RAISE EXCEPTION 'positions % to % are not what is encrypted next', begun + 1, done;
    END IF;
    moved := ARRAY(SELECT e FROM medilab.events AS e WHERE e.position = ANY(positions));
    PERFORM set_config('medilab.archiving', pg_current_xact_id()::text, true);
    DELETE FROM medilab.events WHERE position = ANY(positions);
    PERFORM set_config('medilab.archiving', '', true);
    INSERT INTO medilab.events (position, stream, version, type, data, metadata, recorded_at)
        SELECT m.position, m.stream, m.version, m.type, n.content, m.metadata, m.recorded_at
        FROM unnest(moved) AS m JOIN unnest(positions, contents) AS n (position, content) ON n.position = m.position;
    INSERT INTO medilab.resealed SELECT * FROM unnest(batches, new_seals);
END $$;
-- +goose StatementEnd

-- Anybody can set what drop_archived and encrypt_entries set, so only the table's owner may
-- delete, who could disable the trigger as well.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION medilab.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('medilab.archiving', true) = pg_current_xact_id()::text
            AND pg_has_role((SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'USAGE') THEN
        RETURN NULL; -- by medilab.drop_archived, for the owner
    END IF;
    RAISE EXCEPTION 'medilab.% is append-only: % is refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege';
END $$;
-- +goose StatementEnd
