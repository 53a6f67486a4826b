package eventstore

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/medilab/webhooks/eventstore/failpoint"
)

// The appender merges all appends that wait into one transaction: batches grow
// with the load by themselves, with no timer.

const (
	maxBatchEvents = 1000
	maxBatchBytes  = 16 << 20
	maxWaiting     = 16384 // units; beyond them ErrBusy
	maxWaitBytes   = 256 << 20
	appendTimeout  = 30 * time.Second
)

type pending struct {
	unit       Unit
	configures bool
	events     int
	bytes      int
	done       chan struct{}
	result     Appended
	err        error
}

type appender struct {
	log  *Log
	stop chan struct{} // closed by close
	gone chan struct{} // closed when the loop has ended

	mu      sync.Mutex
	waiting []*pending
	bytes   int
	closed  bool
	wake    chan struct{} // holds a token when something waits
	pause   chan func()   // run between two batches

	// The loop's own:
	columns columns
	digest  hash.Hash
}

func newAppender(l *Log) *appender {
	a := &appender{log: l, stop: make(chan struct{}), gone: make(chan struct{}), wake: make(chan struct{}, 1), pause: make(chan func()), digest: sha256.New()}
	go a.run()
	return a
}

func (a *appender) close() {
	a.mu.Lock()
	if !a.closed {
		a.closed = true
		close(a.stop)
	}
	a.mu.Unlock()
	<-a.gone
}

func (a *appender) append(ctx context.Context, unit Unit) (Appended, error) {
	p, err := a.submit(unit)
	if err != nil {
		return Appended{}, err
	}
	return p.wait(ctx)
}

func (p *pending) wait(ctx context.Context) (Appended, error) {
	select {
	case <-p.done:
		return p.result, p.err
	case <-ctx.Done():
		return Appended{}, fmt.Errorf("append: %w", context.Cause(ctx))
	}
}

// submit lets the unit wait for the next batch.
func (a *appender) submit(unit Unit) (*pending, error) {
	p := &pending{unit: unit, configures: unit.configures(), done: make(chan struct{})}
	for _, w := range unit.Writes {
		p.events += len(w.Events)
		for _, e := range w.Events {
			p.bytes += len(e.Data)
		}
	}
	if p.events == 0 {
		return nil, errors.New("append: the unit holds no events")
	}
	return p, a.enqueue(p)
}

func (a *appender) enqueue(p *pending) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return ErrClosed
	}
	if len(a.waiting) >= maxWaiting || a.bytes > maxWaitBytes {
		return ErrBusy
	}
	a.waiting = append(a.waiting, p)
	a.bytes += p.bytes
	select {
	case a.wake <- struct{}{}:
	default:
	}
	return nil
}

// take removes the next batch from those that wait. Two units that write the
// same stream never share a batch: one of them is about to lose a race, and it
// alone is answered. A unit that changes the configuration is the last of its batch, so
// that the others stand on the configuration that they were decided by.
func (a *appender) take() []*pending {
	a.mu.Lock()
	defer a.mu.Unlock()
	events, bytes, n := 0, 0, 0
	var streams map[string]struct{}
	if len(a.waiting) > 1 {
		streams = make(map[string]struct{}, len(a.waiting))
	}
	for _, p := range a.waiting {
		if n > 0 && (events+p.events > maxBatchEvents || bytes+p.bytes > maxBatchBytes) {
			break
		}
		if streams != nil && !addStreams(streams, p.unit.Writes) {
			break
		}
		events, bytes, n = events+p.events, bytes+p.bytes, n+1
		if p.configures {
			break
		}
	}
	batch := slices.Clone(a.waiting[:n])
	rest := copy(a.waiting, a.waiting[n:])
	clear(a.waiting[rest:])
	a.waiting = a.waiting[:rest]
	a.bytes -= bytes
	return batch
}

func addStreams(streams map[string]struct{}, writes []Write) bool {
	for _, w := range writes {
		if _, taken := streams[w.Stream]; taken {
			return false
		}
	}
	for _, w := range writes {
		streams[w.Stream] = struct{}{}
	}
	return true
}

func (a *appender) run() {
	defer close(a.gone)
	for {
		if batch := a.take(); len(batch) > 0 {
			a.commit(batch)
			select {
			case f := <-a.pause:
				f()
			default:
			}
			continue
		}
		select {
		case <-a.wake:
		case f := <-a.pause:
			f()
		case <-a.stop:
			for batch := a.take(); len(batch) > 0; batch = a.take() {
				a.commit(batch)
			}
			return
		}
	}
}

// commit appends the batch and answers its members. A conflict or bad data fails
// the transaction: the member at fault is answered and taken out, or, when it can't
// be named, each goes alone. When the configuration has changed, those that were
// decided by it are answered and the others go on without them.
func (a *appender) commit(batch []*pending) {
	for len(batch) > 0 {
		err := a.send(batch)
		if err == nil {
			return
		}
		if errors.Is(err, ErrConfigurationChanged) {
			batch = withoutDecided(batch)
			continue
		}
		var pgErr *pgconn.PgError
		if !errors.As(err, &pgErr) || cannotServe(pgErr) {
			a.log.logger.Error("append failed", "events", len(batch), "error", err)
			fail(batch, fmt.Errorf("%w: %w", ErrUnavailable, err))
			return
		}
		if len(batch) == 1 {
			batch[0].finish(Appended{}, refusal(batch[0].unit, pgErr))
			return
		}
		at := slices.IndexFunc(batch, func(p *pending) bool { return names(pgErr, p.unit) })
		if at < 0 {
			for _, p := range batch {
				a.commit([]*pending{p})
			}
			return
		}
		batch[at].finish(Appended{}, refusal(batch[at].unit, pgErr))
		batch = slices.Delete(batch, at, at+1)
	}
}

// withoutDecided answers the members whose configuration is out of date, and returns
// the others.
func withoutDecided(batch []*pending) []*pending {
	return slices.DeleteFunc(batch, func(p *pending) bool {
		if p.unit.Configuration == nil {
			return false
		}
		p.finish(Appended{}, ErrConfigurationChanged)
		return true
	})
}

// condition returns the configuration that the batch demands, or -1. Members with an
// older one than another member's are out of date: it reports false.
func condition(batch []*pending) (Position, bool) {
	demanded := Position(-1)
	for _, p := range batch {
		switch c := p.unit.Configuration; {
		case c == nil || *c == demanded:
		case demanded < 0:
			demanded = *c
		default:
			return 0, false
		}
	}
	return demanded, true
}

func (a *appender) flatten(batch []*pending) []Event {
	n := 0
	for _, p := range batch {
		n += p.events
	}
	events := make([]Event, 0, n)
	for i, p := range batch {
		for _, w := range p.unit.Writes {
			metadata := w.Metadata.json()
			for j, e := range w.Events {
				events = append(events, Event{Stream: w.Stream, Version: w.Expected + int64(j) + 1,
					Type: e.Type, Data: e.Data, Metadata: metadata, Value: e.Value, unit: i})
			}
		}
	}
	return events
}

// appendSQL moves the head, seals and inserts, in one statement. $6 is the
// configuration that the batch was decided by, or -1: when it is no longer current,
// the division by zero undoes the transaction. $9 is the number, within the batch, of
// its last event that changes the configuration, or 0.
//
// The time is read once, under the head's lock, so that times are in the order
// of positions; greatest() keeps them so when the clock steps back. OFFSET 0
// keeps the planner from reading it twice.
const appendSQL = `
WITH head AS (
	UPDATE medilab.log_head AS h SET (position, recorded_at, last_seal, configuration) = (
		SELECT h.position + $7, t.now, sha256(h.last_seal || int8send(h.position + 1) ||
			int8send((extract(epoch FROM t.now) * 1000000)::bigint) || $8),
			CASE WHEN $9::bigint > 0 THEN h.position + $9 ELSE h.configuration END
		FROM (SELECT greatest(h.recorded_at, clock_timestamp()) AS now OFFSET 0) AS t)
	WHERE $6 < 0 OR h.configuration = $6
	RETURNING h.position - $7 AS base, h.recorded_at, h.last_seal AS seal
), sealed AS (
	INSERT INTO medilab.seals (first_position, last_position, recorded_at, seal)
	SELECT base + 1, base + $7, recorded_at, seal FROM head
), inserted AS (
	INSERT INTO medilab.events (position, stream, version, type, data, metadata, recorded_at)
	SELECT head.base + e.n, e.stream, e.version, e.type, e.data, e.metadata::json, head.recorded_at
	FROM head, unnest($1::text[], $2::bigint[], $3::text[], $4::bytea[], $5::text[])
		WITH ORDINALITY AS e (stream, version, type, data, metadata, n)
)
SELECT (SELECT base FROM head), (SELECT recorded_at FROM head), 1 / (SELECT count(*) FROM head)`

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
	data     pgtype.FlatArray[[]byte]
	metadata pgtype.FlatArray[[]byte]
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

// send appends the batch in one transaction.
func (a *appender) send(batch []*pending) error {
	demanded, ok := condition(batch)
	if !ok {
		return ErrConfigurationChanged
	}
	events := a.flatten(batch)
	var q pgx.Batch
	a.columns.fill(events)
	defer a.columns.release()
	c := &a.columns
	q.Queue(planOnceSQL)
	q.Queue(appendSQL, c.streams, c.versions, c.types, c.data, c.metadata, int64(demanded), int64(len(events)), a.hash(events), lastConfiguring(events))
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
	base, recordedAt, err := a.exchange(ctx, &q)
	if err != nil {
		return err
	}
	failpoint.Pass(failpoint.AfterCommit)
	a.log.clock.Observe(recordedAt, sent)
	for i := range events {
		events[i].Position = base + Position(i) + 1
		events[i].RecordedAt = recordedAt
	}
	a.log.Announce(announce...)
	a.committed(batch, events)
	return nil
}

// lastConfiguring returns the number, from 1, of the last event that changes the
// configuration, or 0.
func lastConfiguring(events []Event) int64 {
	for i := range slices.Backward(events) {
		if strings.HasPrefix(events[i].Stream, configurationStreams) {
			return int64(i + 1)
		}
	}
	return 0
}

func queue(q *pgx.Batch, statements []Statement) {
	for _, s := range statements {
		q.Queue(s.SQL, s.Args...)
	}
}

// exchange runs the batch in one round trip, which is one implicit transaction.
func (a *appender) exchange(ctx context.Context, q *pgx.Batch) (base Position, recordedAt time.Time, err error) {
	results := a.log.pool.SendBatch(ctx, q)
	var one int64
	if _, err = results.Exec(); err == nil {
		err = results.QueryRow().Scan(&base, &recordedAt, &one)
	}
	for i := 2; i < q.Len() && err == nil; i++ {
		_, err = results.Exec()
	}
	if closeErr := results.Close(); err == nil {
		err = closeErr
	}
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && pgErr.Code == "22012" {
		return 0, time.Time{}, ErrConfigurationChanged
	}
	if err != nil {
		return 0, time.Time{}, err
	}
	return base, recordedAt.UTC(), nil
}

// committed notifies first the readers of this process, then the callers: a
// caller that was answered finds its event everywhere in memory.
func (a *appender) committed(batch []*pending, events []Event) {
	a.log.tail.add(events)
	for _, observe := range a.log.config.Observers {
		observe(events)
	}
	a.log.notifyListeners(events)
	a.log.announceConfiguration(events)
	next := 0
	for i, p := range batch {
		for events[next].unit != i {
			next++
		}
		p.finish(Appended{First: events[next].Position, RecordedAt: events[next].RecordedAt}, nil)
	}
}

// hash covers the batch's events in order: all that the database keeps of them,
// each part with its length before it.
func (a *appender) hash(events []Event) []byte {
	a.digest.Reset()
	for i := range events {
		hashEvent(a.digest, &events[i])
	}
	return a.digest.Sum(nil)
}

func hashEvent(h hash.Hash, e *Event) {
	var head [8]byte
	part := func(b []byte) {
		binary.BigEndian.PutUint64(head[:], uint64(len(b)))
		h.Write(head[:])
		h.Write(b)
	}
	var text [128]byte
	part(append(text[:0], e.Stream...))
	binary.BigEndian.PutUint64(head[:], uint64(e.Version))
	h.Write(head[:])
	part(append(text[:0], e.Type...))
	part(e.Data)
	part(e.Metadata)
}

func (p *pending) finish(result Appended, err error) {
	p.result, p.err = result, err
	close(p.done)
}

func fail(batch []*pending, err error) {
	for _, p := range batch {
		p.finish(Appended{}, err)
	}
}

const uniqueViolation = "23505"

// names reports whether the database's error is about the unit: the detail of a
// unique violation quotes the key.
func names(e *pgconn.PgError, unit Unit) bool {
	if e.Code != uniqueViolation || e.ConstraintName != "events_stream_version" {
		return false
	}
	for _, w := range unit.Writes {
		if strings.Contains(e.Detail, "("+w.Stream+", ") {
			return true
		}
	}
	return false
}

func refusal(unit Unit, e *pgconn.PgError) error {
	if e.Code == uniqueViolation && e.ConstraintName == "events_stream_version" {
		for _, w := range unit.Writes {
			if strings.Contains(e.Detail, "("+w.Stream+", ") {
				return &ConflictError{Stream: w.Stream, Expected: w.Expected}
			}
		}
		return &ConflictError{Stream: unit.Writes[0].Stream, Expected: unit.Writes[0].Expected}
	}
	return fmt.Errorf("append to %s: %w", unit.Writes[0].Stream, e)
}
