package eventstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// The appender merges all appends that wait into one transaction: batches grow
// with the load by themselves, with no timer.

const (
	maxBatchEvents = 1000
	maxBatchBytes  = 16 << 20
	maxBatchRows   = 20_000 // about half a second's work under the head's lock
	maxWaiting     = 16384  // units; beyond them ErrBusy
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
	digest  *digest
}

func newAppender(l *Log) *appender {
	a := &appender{log: l, stop: make(chan struct{}), gone: make(chan struct{}), wake: make(chan struct{}, 1), pause: make(chan func()), digest: newDigest()}
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
	Signal(a.wake)
	return nil
}

// take removes the next batch from those that wait. Two units that write the
// same stream never share a batch: one of them is about to lose a race, and it
// alone is answered. A unit that changes the configuration is the last of its batch, so
// that the others stand on the configuration that they were decided by.
func (a *appender) take() []*pending {
	a.mu.Lock()
	defer a.mu.Unlock()
	events, bytes, rows, n := 0, 0, 0, 0
	var streams map[string]struct{}
	if len(a.waiting) > 1 {
		streams = make(map[string]struct{}, len(a.waiting))
	}
	for _, p := range a.waiting {
		if n > 0 && (events+p.events > maxBatchEvents || bytes+p.bytes > maxBatchBytes || rows+p.unit.Rows > maxBatchRows) {
			break
		}
		if streams != nil && !addStreams(streams, p.unit.Writes) {
			break
		}
		events, bytes, rows, n = events+p.events, bytes+p.bytes, rows+p.unit.Rows, n+1
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
// be named, each half of the batch goes alone. When the configuration has changed, or the log has lost its
// tail, those that were decided by it are answered and the others go on without them.
func (a *appender) commit(batch []*pending) {
	for len(batch) > 0 {
		generation, known := a.log.knowledge.now()
		batch = withoutLost(batch, generation)
		demanded := demandedBy(batch)
		if batch = withoutOlder(batch, demanded); len(batch) == 0 {
			return
		}
		err := a.send(batch, demanded, generation, known)
		if err == nil {
			return
		}
		if errors.Is(err, ErrTailLost) {
			if err = a.checkLog(generation); err == nil {
				continue
			}
		}
		if errors.Is(err, ErrConfigurationChanged) {
			batch = withoutOlder(batch, demanded+1)
			continue
		}
		pgErr, refused := errors.AsType[*pgconn.PgError](err)
		if !refused || IsOutage(err) {
			a.log.logger.Error("append failed", "events", len(batch), "error", err)
			fail(batch, fmt.Errorf("%w: %w", ErrUnavailable, err))
			return
		}
		if len(batch) == 1 {
			batch[0].finish(Appended{}, refusal(batch[0].unit, pgErr))
			return
		}
		at := slices.IndexFunc(batch, func(p *pending) bool { return conflictOf(p.unit, pgErr) != nil })
		if at < 0 {
			half := len(batch) / 2
			a.commit(batch[:half:half])
			a.commit(batch[half:])
			return
		}
		batch[at].finish(Appended{}, refusal(batch[at].unit, pgErr))
		batch = a.withoutConflicts(slices.Delete(batch, at, at+1))
	}
}

// takenSQL returns which writes, numbered from 0, expect a version that their stream has gone beyond.
const takenSQL = `SELECT w.n - 1 FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS w (stream, expected, n)
	CROSS JOIN LATERAL (SELECT FROM medilab.events WHERE stream = w.stream AND version = w.expected + 1 LIMIT 1) AS e`

// withoutConflicts answers the members that lost a race, and returns the others. An append
// names one at a time: where hundreds lost, nobody else would be served meanwhile.
func (a *appender) withoutConflicts(batch []*pending) []*pending {
	var streams []string
	var expected []int64
	var of []*pending
	for _, p := range batch {
		for _, w := range p.unit.Writes {
			streams, expected, of = append(streams, w.Stream), append(expected, w.Expected), append(of, p)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), appendTimeout)
	defer cancel()
	rows, _ := a.log.pool.Query(ctx, takenSQL, streams, expected)
	taken, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return batch // the next append says what is wrong
	}
	lost := map[*pending]bool{}
	for _, n := range taken {
		if p := of[n]; !lost[p] {
			lost[p] = true
			p.finish(Appended{}, &ConflictError{Stream: streams[n], Expected: expected[n]})
		}
	}
	return slices.DeleteFunc(batch, func(p *pending) bool { return lost[p] })
}

// checkLog begins a new generation after an append found that the log has lost its tail.
func (a *appender) checkLog(generation int64) error {
	ctx, cancel := context.WithTimeout(context.Background(), appendTimeout)
	defer cancel()
	if _, err := a.log.knowledge.check(ctx, a.log.pool); err != nil {
		return err
	}
	if a.log.Generation() == generation { // servers that do not agree
		return ErrTailLost
	}
	return nil
}

// withoutLost answers the members that were decided in an earlier generation, and returns
// the others.
func withoutLost(batch []*pending, generation int64) []*pending {
	return slices.DeleteFunc(batch, func(p *pending) bool {
		if p.unit.Generation == 0 || p.unit.Generation == generation {
			return false
		}
		p.finish(Appended{}, ErrTailLost)
		return true
	})
}

// withoutOlder answers the members that were decided by an older configuration than the
// demanded one, and returns the others.
func withoutOlder(batch []*pending, demanded Position) []*pending {
	return slices.DeleteFunc(batch, func(p *pending) bool {
		if c := p.unit.Configuration; c == nil || *c >= demanded {
			return false
		}
		p.finish(Appended{}, ErrConfigurationChanged)
		return true
	})
}

// demandedBy returns the newest configuration that members were decided by, or -1.
func demandedBy(batch []*pending) Position {
	demanded := Position(-1)
	for _, p := range batch {
		if c := p.unit.Configuration; c != nil {
			demanded = max(demanded, *c)
		}
	}
	return demanded
}

func (a *appender) flatten(batch []*pending) []Event {
	n := 0
	for _, p := range batch {
		n += p.events
	}
	events := make([]Event, 0, n)
	for _, p := range batch {
		for _, w := range p.unit.Writes {
			metadata := w.Metadata.json()
			for j, e := range w.Events {
				events = append(events, Event{Stream: w.Stream, Version: w.Expected + int64(j) + 1,
					Type: e.Type, Data: e.Data, Metadata: metadata, Value: e.Value})
			}
		}
	}
	return events
}

// committed notifies first the readers of this process, then the callers: a
// caller that was answered finds its event everywhere in memory.
func (a *appender) committed(batch []*pending, events []Event, generation int64) {
	a.log.tail.add(events, generation)
	for _, observe := range a.log.config.Observers {
		observe(events)
	}
	a.log.notifyListeners(events)
	a.log.announceConfiguration(events)
	next := 0
	for _, p := range batch {
		p.finish(Appended{First: events[next].Position, RecordedAt: events[next].RecordedAt}, nil)
		next += p.events
	}
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

const (
	uniqueViolation = "23505"
	// codeOvertaken is that of a bucket without width: an inline statement found that what a unit was
	// decided by has changed. Of a unit that is refused for it this is a conflict. The logarithm of
	// zero, 2201E, is what the outbox refuses by.
	codeOvertaken = "2201G"
)

// conflictOf returns the conflict of the unit that the error is about; nil: none. The
// detail of a unique violation quotes the key.
func conflictOf(unit Unit, e *pgconn.PgError) *ConflictError {
	if e.Code != uniqueViolation || e.ConstraintName != "events_stream_version" {
		return nil
	}
	for _, w := range unit.Writes {
		if strings.Contains(e.Detail, "("+w.Stream+", ") {
			return &ConflictError{Stream: w.Stream, Expected: w.Expected}
		}
	}
	return nil
}

// refusal returns the error of a unit that was refused alone.
func refusal(unit Unit, e *pgconn.PgError) error {
	if conflict := conflictOf(unit, e); conflict != nil {
		return conflict
	}
	if e.Code == codeOvertaken || e.Code == uniqueViolation && e.ConstraintName == "events_stream_version" { // the server withholds the key
		return &ConflictError{Stream: unit.Writes[0].Stream, Expected: unit.Writes[0].Expected}
	}
	if e.Code == codeArchived {
		return ErrArchived
	}
	return fmt.Errorf("append to %s: %w", unit.Writes[0].Stream, e)
}
