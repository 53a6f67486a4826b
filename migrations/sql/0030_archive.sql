-- +goose Up

-- Streams of the log that an archive holds and the database drops: events of the clinic
-- and their deliveries, which belong together by their event. A row is in force when the
-- log says that it is archived up to its cut; before, an export is still gathering. The stream
-- '~' marks that read models are to be rebuilt when the others are gone.
CREATE TABLE medilab.archiving (
    stream text COLLATE "C" NOT NULL,
    event  uuid NOT NULL,
    cut    bigint NOT NULL,                -- the last position of the archive
    live   boolean NOT NULL DEFAULT false, -- something still needs it: it stays
    PRIMARY KEY (stream, event)
);
CREATE INDEX archiving_event ON medilab.archiving (event);

-- The last position that archives hold; 0: none.
CREATE FUNCTION medilab.archived_to() RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT (convert_from(data, 'UTF8')::json ->> 'archived_to')::bigint FROM medilab.events
        WHERE stream = 'archive-00000000-0000-0000-0000-000000000000' ORDER BY version DESC LIMIT 1), 0)
$$;

-- Refuses to go on with deliveries of events that are archived: it runs in the append.
-- +goose StatementBegin
CREATE FUNCTION medilab.refuse_archived(events uuid[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    archived bigint := medilab.archived_to();
BEGIN
    IF archived = 0 THEN
        RETURN; -- before the right to read the table is needed
    END IF;
    IF EXISTS (SELECT FROM unnest(events) AS u (id) WHERE
            NOT EXISTS (SELECT FROM medilab.events AS e WHERE e.stream = 'event-' || u.id AND e.version = 1)
            OR EXISTS (SELECT FROM medilab.archiving AS a WHERE a.event = u.id AND a.cut <= archived)) THEN
        RAISE EXCEPTION 'the event is archived' USING ERRCODE = 'MA001';
    END IF;
END $$;
-- +goose StatementEnd

-- Undoes the append that records an archive when something that it drops, or may drop, was
-- needed since the position.
-- +goose StatementBegin
CREATE FUNCTION medilab.check_archiving(after bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM medilab.events AS e WHERE e.position > after AND (e.type = 'replay.requested'
            OR EXISTS (SELECT FROM medilab.archiving AS a WHERE a.stream = e.stream)
            OR e.type = 'delivery.retry_requested' AND EXISTS (
                SELECT FROM medilab.archiving AS a WHERE a.event = (convert_from(e.data, 'UTF8')::json ->> 'event_id')::uuid))) THEN
        RAISE EXCEPTION 'what was to be archived is needed again' USING ERRCODE = 'MA002';
    END IF;
END $$;
-- +goose StatementEnd

-- The one way in which entries leave the log: what the log says is archived, and that alone.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION medilab.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('medilab.archiving', true) = pg_current_xact_id()::text THEN
        RETURN NULL; -- by medilab.drop_archived
    END IF;
    RAISE EXCEPTION 'medilab.% is append-only: % is refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege';
END $$;
-- +goose StatementEnd

-- Drops up to so many streams that are archived, whole, of those after the given one, and
-- returns the last of them; null: there are none. With them go their seals, but for those of the
-- ends of archives, and of the last hour, by which running processes know the log.
-- +goose StatementBegin
CREATE FUNCTION medilab.drop_archived(after text, most integer) RETURNS text LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    archived bigint := medilab.archived_to();
    chosen   text[] := ARRAY(SELECT DISTINCT stream FROM (
        SELECT stream FROM medilab.archiving AS a WHERE a.stream > after AND a.stream < '~' AND a.cut <= archived ORDER BY stream LIMIT most) AS s);
BEGIN
    PERFORM set_config('medilab.archiving', pg_current_xact_id()::text, true);
    DELETE FROM medilab.events WHERE stream = ANY(chosen) AND position <= archived
        AND (stream LIKE 'event-%' OR stream LIKE 'delivery-%');
    DELETE FROM medilab.archiving WHERE stream = ANY(chosen);
    IF cardinality(chosen) = 0 THEN
        DELETE FROM medilab.seals WHERE last_position < archived AND recorded_at < clock_timestamp() - interval '1 hour'
            AND last_position NOT IN (SELECT (convert_from(data, 'UTF8')::json ->> 'archived_to')::bigint FROM medilab.events
                WHERE stream = 'archive-00000000-0000-0000-0000-000000000000');
    END IF;
    PERFORM set_config('medilab.archiving', '', true);
    RETURN (SELECT max(c) FROM unnest(chosen) AS c);
END $$;
-- +goose StatementEnd

-- Where the log has holes, the next entry tells the time.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION medilab.position_before(at timestamptz) RETURNS bigint
    LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    low    bigint := 0; -- recorded before, or none
    high   bigint;      -- recorded at the time or later, or none yet
    middle bigint;
    found  timestamptz;
BEGIN
    SELECT position + 1 INTO high FROM medilab.log_head;
    WHILE low + 1 < high LOOP
        middle := (low + high) / 2;
        SELECT e.recorded_at INTO found FROM medilab.events e WHERE e.position >= middle ORDER BY e.position LIMIT 1;
        IF found < at THEN low := middle; ELSE high := middle; END IF;
    END LOOP;
    RETURN low;
END $$;
-- +goose StatementEnd
