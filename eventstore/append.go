package eventstore

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/eventstore/failpoint"
)

// appendSQL moves the head, seals and inserts, in one statement. $5 is the
// configuration that the batch was decided by, or -1: when it is no longer current,
// the division by zero undoes the transaction. So does the root when the log does not
// have the end that is known, $9 with its seal $10; 0: none is. $8 is the number, within
// the batch, of its last event that changes the configuration, or 0. The data come last: the
// buffer of the arguments is copied each time that it grows.
//
// The time is read once, under the head's lock, so that times are in the order
// of positions; greatest() keeps them so when the clock steps back. OFFSET 0
// keeps the planner from reading it twice.
const appendSQL = `
WITH head AS (
	UPDATE medilab.log_head AS h SET (position, recorded_at, last_seal, configuration) = (
		SELECT h.position + $6, t.now, sha256(h.last_seal || int8send(h.position + 1) ||
			int8send((extract(epoch FROM t.now) * 1000000)::bigint) || $7),
			CASE WHEN $8::bigint > 0 THEN h.position + $8 ELSE h.configuration END
		FROM (SELECT greatest(h.recorded_at, clock_timestamp()) AS now OFFSET 0) AS t)
	WHERE $5 < 0 OR h.configuration = $5
	RETURNING h.position - $6 AS base, h.recorded_at, h.last_seal AS seal
), sealed AS (
	INSERT INTO medilab.seals (first_position, last_position, recorded_at, seal)
	SELECT base + 1, base + $6, recorded_at, seal FROM head
), inserted AS (
	INSERT INTO medilab.events (position, stream, version, type, data, metadata, recorded_at)
	SELECT head.base + e.n, e.stream, e.version, e.type, e.data, e.metadata::json, head.recorded_at
	FROM head, unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $11::bytea[])
		WITH ORDINALITY AS e (stream, version, type, metadata, data, n)
)
SELECT (SELECT base FROM head), (SELECT recorded_at FROM head), (SELECT seal FROM head), 1 / (SELECT count(*) FROM head),
	sqrt(CASE WHEN $9::bigint > 0 THEN (SELECT count(*) FROM medilab.seals WHERE last_position = $9 AND seal = $10) - 1 ELSE 0 END)`

// Codes of what undoes an append: a division by zero, a root of a negative number.
const (
	codeConfigurationChanged = "22012"
	codeTailLost             = "2201F"
)

// planOnceSQL makes the transaction's statements keep to their generic plans. They
// go by keys whatever their arguments, and Postgres planned most appends again, for
// longer than it then took to carry them out.
const planOnceSQL = `SELECT set_config('plan_cache_mode', 'force_generic_plan', true)`

// columns are the arrays that unnest takes, kept between batches. Metadata goes as text:
// pgx would check JSON that was just made, and Postgres checks it anyway.
type columns struct {
	streams  []string
	versions []int64
	types    []string
	data     [][]byte
	metadata [][]byte
}

func (c *columns) fill(events []Event) {
	c.streams, c.versions, c.types, c.data, c.metadata = c.streams[:0], c.versions[:0], c.types[:0], c.data[:0], c.metadata[:0]
	for i := range events {
		e := &events[i]
		c.streams = append(c.streams, e.Stream)
		c.versions = append(c.versions, e.Version)
		c.types = append(c.types, e.Type)
		c.data = append(c.data, e.Data)
		c.metadata = append(c.metadata, e.Metadata)
	}
}

func (c *columns) release() {
	clear(c.data)
	clear(c.metadata)
	clear(c.streams)
}

// send appends the batch in one transaction, if the configuration is the demanded one (-1:
// any) and the log has what is known of it in the generation.
func (a *appender) send(batch []*pending, demanded Position, generation int64, known Anchor) error {
	events := a.flatten(batch)
	keys := unstoredKeys(batch, generation)
	var q pgx.Batch
	a.columns.fill(events)
	defer a.columns.release()
	c := &a.columns
	q.Queue(planOnceSQL)
	queue(&q, storeKeys(keys))
	var base Position
	var end Anchor
	q.Queue(appendSQL, c.streams, c.versions, c.types, c.metadata, int64(demanded), int64(len(events)), a.hash(events), lastConfiguring(events),
		known.Position, []byte(known.Seal), c.data).QueryRow(func(row pgx.Row) error {
		var one int64
		var zero float64
		return row.Scan(&base, &end.RecordedAt, &end.Seal, &one, &zero)
	})
	var announce []string
	for _, inline := range a.log.config.Inline {
		statements, keys, err := inline.Statements(events)
		if err != nil {
			return fmt.Errorf("inline projection: %w", err)
		}
		queue(&q, statements)
		announce = append(announce, keys...)
	}
	for _, p := range batch {
		queue(&q, p.unit.With)
	}

	// The callers may go; the batch goes on.
	ctx, cancel := context.WithTimeout(context.Background(), appendTimeout)
	defer cancel()
	sent := time.Now()
	if err := a.exchange(ctx, &q, roomFor(events)); err != nil {
		return err
	}
	end.RecordedAt = end.RecordedAt.UTC()
	failpoint.Pass(failpoint.AfterCommit)
	for _, key := range keys {
		key.stored.Store(1 + generation)
	}
	a.log.clock.Observe(end.RecordedAt, sent)
	for i := range events {
		events[i].Position = base + Position(i) + 1
		events[i].RecordedAt = end.RecordedAt
	}
	a.log.noteActivity()
	end.Position = base + Position(len(events))
	a.log.knowledge.saw(generation, end)
	if a.log.config.Announce {
		announce = append(announce, announcedAppend)
	}
	a.log.Announce(announce...)
	a.committed(batch, events, generation)
	return nil
}

// lastConfiguring returns the number, from 1, of the last event that changes the
// configuration, or 0.
func lastConfiguring(events []Event) int64 {
	for i := range slices.Backward(events) {
		if configures(events[i].Stream) {
			return int64(i + 1)
		}
	}
	return 0
}

func queue(q *pgx.Batch, statements []Statement) {
	for _, s := range statements {
		if queued := q.Queue(s.SQL, s.Args...); s.Rows != nil {
			queued.Query(s.Rows)
		}
	}
}

// exchange runs the batch in one round trip, which is one implicit transaction. The connection's
// buffer has room for all of it from the start: it would be copied each time that it grows.
func (a *appender) exchange(ctx context.Context, q *pgx.Batch, room messageRoom) error {
	conn, err := a.log.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	conn.Conn().PgConn().Frontend().Send(room)
	switch err = conn.SendBatch(ctx, q).Close(); {
	case HasCode(err, codeConfigurationChanged):
		return ErrConfigurationChanged
	case HasCode(err, codeTailLost):
		return ErrTailLost
	}
	return err
}

// messageRoom is no message to Postgres, but room for as many bytes of messages.
type messageRoom int

func roomFor(events []Event) (room messageRoom) {
	const around = 160 // bytes of an event's other columns, and of what is stored beside it
	for i := range events {
		e := &events[i]
		room += messageRoom(len(e.Stream) + len(e.Type) + len(e.Data) + len(e.Metadata) + around)
	}
	return room
}

func (r messageRoom) Encode(buffer []byte) ([]byte, error) { return slices.Grow(buffer, int(r)), nil }
func (messageRoom) Decode([]byte) error                    { return errors.ErrUnsupported }
func (messageRoom) Frontend()                              {}

// hash covers the batch's events in order: all that the database keeps of them,
// each part with its length before it.
func (a *appender) hash(events []Event) []byte {
	a.digest.Reset()
	for i := range events {
		a.digest.add(&events[i])
	}
	return a.digest.Sum(nil)
}

// digest is the hash of events, each part with its length before it.
type digest struct {
	hash.Hash
	small []byte // the parts before the data, or after them
}

func newDigest() *digest { return &digest{Hash: sha256.New()} }

func (d *digest) add(e *Event) {
	number := func(n int) { d.small = binary.BigEndian.AppendUint64(d.small, uint64(n)) }
	d.small = d.small[:0]
	number(len(e.Stream))
	d.small = append(d.small, e.Stream...)
	number(int(e.Version))
	number(len(e.Type))
	d.small = append(d.small, e.Type...)
	number(len(e.Data))
	d.Write(d.small)
	d.Write(e.Data)
	d.small = d.small[:0]
	number(len(e.Metadata))
	d.small = append(d.small, e.Metadata...)
	d.Write(d.small)
}
