// Package outbox moves what the clinic's own services emitted, in their transactions by
// medilab.emit(), into the log: each event exactly once, whenever its transaction commits.
package outbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/eventstore/cpulimit"
)

const (
	pollInterval  = 50 * time.Millisecond
	idleInterval  = 250 * time.Millisecond // while nothing is emitted, and longer when it has not been
	maxInterval   = time.Second            // for long: a sixtieth of that time, up to this
	readInterval  = 5 * time.Second        // how often an idle outbox is read, and the lease looked at
	claimInterval = time.Second            // how often a node that does not own the relay tries to
	errorPause    = 250 * time.Millisecond
	// Bounds of the costly events that are held, and a reading more.
	maxCostly, maxCostlyBytes = 1000, 4 * maxBatchBytes
	// silence of the node that relays, after which another does: emitted events wait for it.
	silence = 3 * time.Second
)

// Relay reads the outbox and appends to the log, on whichever node owns it. An append and the
// deletion of its rows are one transaction. Ownership only spares work: should two nodes relay
// at once, the streams' versions let one of them win, and the other finds its event recorded.
type Relay struct {
	log       *eventstore.Log
	directory *commands.Directory
	pool      *pgxpool.Pool
	node      *eventstore.Node
	catalog   domain.Catalog
	logger    *slog.Logger

	reader     reader
	readAt     time.Time
	movedAt    time.Time // when there was something to move
	generation int64     // of the log when what was read was read
	owner      bool
	costly     []emission // costly events, and events that must stay behind them, not moved yet
	few        int        // of them are moved next
	relayed    atomic.Int64
}

var errCostly = errors.New("it takes long")

// leaseName is that of the lease which the node that relays has.
const leaseName = "relay"

// NewRelay returns the relay of this node. Run must be called for anything to happen.
func NewRelay(log *eventstore.Log, directory *commands.Directory, pool *pgxpool.Pool, node *eventstore.Node, catalog domain.Catalog, logger *slog.Logger) *Relay {
	return &Relay{log: log, directory: directory, pool: pool, node: node, catalog: catalog, logger: logger,
		reader: reader{pool: pool}}
}

// Run relays until ctx ends. A lease that was not renewed in time may yet be: two that relay do no
// harm. Failures are logged and tried again.
func (r *Relay) Run(ctx context.Context) {
	defer r.leave(context.WithoutCancel(ctx))
	failing := false
	r.movedAt = time.Now()
	for {
		moved, err := r.step(ctx)
		pause := pollInterval
		switch {
		case ctx.Err() != nil || errors.Is(err, eventstore.ErrClosed):
			return
		case err != nil:
			if !failing {
				r.logger.Warn("relaying emitted events failed, trying again", "error", err)
			}
			pause = errorPause
		case !r.owner:
			pause = claimInterval
		case moved:
			pause, r.movedAt = 0, time.Now()
		case r.reader.idle.settled:
			pause = min(max(idleInterval, time.Since(r.movedAt)/60), maxInterval)
		}
		failing = err != nil
		if pause > 0 && eventstore.Sleep(ctx, pause) != nil {
			return
		}
	}
}

// leave lets another node take over at once.
func (r *Relay) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := errors.Join(r.log.ReleaseLease(ctx, r.node, leaseName), r.reader.close(ctx)); err != nil {
		r.logger.Info("the relay was not given up, its lease will end", "error", err)
	}
}

// step moves one batch. It reports whether there may be more at once. Events that take long
// to match are moved a few at a time after the others, which so never wait for many of them
// unless a webhook wants them in order.
func (r *Relay) step(ctx context.Context) (moved bool, err error) {
	if !r.owner {
		if _, r.owner, err = r.log.AcquireLease(ctx, r.node, leaseName, silence); err != nil || !r.owner {
			return false, err
		}
		r.startOver()
	}
	if err := r.directory.Renewed(ctx); err != nil {
		return false, err
	}
	if r.generation != r.log.Generation() {
		r.generation = r.log.Generation()
		r.startOver()
	}
	if len(r.costly) == 0 && time.Since(r.readAt) < readInterval && r.reader.isIdle(ctx) {
		return false, nil
	}
	r.readAt = time.Now()
	var batch []emission
	if r.holdsFew() {
		owner := false
		batch, owner, err = r.reader.read(ctx, r.node.ID)
		if r.owner = owner || err != nil; err != nil || !owner {
			return false, err
		}
	}
	if err := r.moveAll(ctx, r.setAside(batch)); err != nil {
		return false, err
	}
	moved = len(batch)+len(r.costly) > 0
	return moved, r.moveCostly(ctx)
}

// holdsFew reports whether more events may be read.
func (r *Relay) holdsFew() bool {
	size := 0
	for _, e := range r.costly {
		size += len(e.data)
	}
	return len(r.costly) < maxCostly && size < maxCostlyBytes
}

// setAside puts the costly events of the batch behind those that were read before, and returns the
// others. An event also goes there if a webhook that orders or numbers its events may get it and
// one that is there already. Webhooks change, so who wants those is found out each time.
func (r *Relay) setAside(batch []emission) (next []emission) {
	types, waiting := map[domain.EventType]bool{}, map[domain.WebhookID]bool{}
	known := map[domain.EventType]bool{} // what follows returns, while waiting stays the same
	follow := func(t domain.EventType) {
		if types[t] {
			return
		}
		types[t] = true
		clear(known)
		for id := range r.directory.Ordered(t) {
			waiting[id] = true
		}
	}
	for _, e := range r.costly {
		follow(domain.EventType(e.eventType))
	}
	follows := func(t domain.EventType) bool {
		behind, have := known[t]
		if !have {
			for id := range r.directory.Ordered(t) {
				if behind = waiting[id]; behind {
					break
				}
			}
			known[t] = behind
		}
		return behind
	}
	for _, e := range batch {
		if t := domain.EventType(e.eventType); len(waiting) > 0 && follows(t) || r.isCostly(e) {
			r.costly = append(r.costly, e)
			follow(t)
		} else {
			next = append(next, e)
		}
	}
	return next
}

// isCostly reports whether it takes long to check or to match the event.
func (r *Relay) isCostly(e emission) bool {
	left := cpulimit.Expensive
	_, err := r.catalog.DataFields(domain.EventTriggered{EventType: e.eventType, EventData: e.data}, func(work int) error {
		if left -= work; left < 0 {
			return errCostly
		}
		return nil
	})
	return err != nil || r.directory.Costly(domain.EventType(e.eventType), e.data)
}

// startOver forgets what was read: it is read again, as the database has it then.
func (r *Relay) startOver() {
	r.reader.restart()
	r.costly = nil
}

// moveCostly moves some of the costly events: as many as take a short time.
func (r *Relay) moveCostly(ctx context.Context) error {
	const short = 20 * time.Millisecond
	few := min(max(1, r.few), len(r.costly))
	started := time.Now()
	if err := r.moveAll(ctx, r.costly[:few]); err != nil {
		return err
	}
	r.costly = slices.Delete(r.costly, 0, few)
	if r.few = 2 * few; time.Since(started) > short {
		r.few = few / 2
	}
	return nil
}

// moveAll moves the batch, however often it fails, as what was read is not read again,
// unless the database was away: it may come back with other rows.
func (r *Relay) moveAll(ctx context.Context, batch []emission) error {
	for len(batch) > 0 {
		err := r.move(ctx, batch)
		if err == nil {
			r.relayed.Add(int64(len(batch)))
			return nil
		}
		if ctx.Err() != nil || errors.Is(err, eventstore.ErrClosed) {
			return err
		}
		if !errors.Is(err, eventstore.ErrBusy) {
			r.startOver()
			return fmt.Errorf("append %d emitted events: %w", len(batch), err)
		}
		r.logger.Warn("appending emitted events failed, trying again", "events", len(batch), "error", err)
		if err := eventstore.Sleep(ctx, errorPause); err != nil {
			return err
		}
	}
	return nil
}

// move appends the batch. What cannot be accepted is parked and in nobody's way. Doing it again
// after it failed half way is safe: rows that are gone stay gone.
func (r *Relay) move(ctx context.Context, batch []emission) error {
	left := make([]accepted, 0, len(batch))
	for _, e := range batch {
		triggered, err := accept(ctx, r.log.Limiter, r.catalog, e)
		event := accepted{e, domain.EventID(e.id), triggered}
		switch {
		case err == nil:
			left = append(left, event)
		case ctx.Err() != nil:
			return ctx.Err()
		default:
			if err := r.refuse(ctx, event, err.Error()); err != nil {
				return err
			}
		}
	}
	for len(left) > 0 {
		now, again := distinct(left)
		err := r.append(ctx, now)
		switch {
		case err == nil:
			left = again
		case eventstore.IsConflict(err):
			if left, err = r.settle(ctx, left); err != nil {
				return err
			}
		case eventstore.IsOutage(err), errors.Is(err, domain.KindUnavailable), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
			return err // the event is not at fault
		case len(now) == 1 && eventstore.HasCode(err, codeGone):
			left = again
		case len(now) == 1:
			if err := r.park(ctx, now[0].emission, "the log refused it: "+err.Error()); err != nil {
				return err
			}
			left = again
		default: // one of them is at fault, and nobody says which
			for _, e := range now {
				if err := r.move(ctx, []emission{e.emission}); err != nil {
					return err
				}
			}
			left = again
		}
	}
	return nil
}

// accepted is an emission that may go into the log as an event with the id.
type accepted struct {
	emission
	event     domain.EventID
	triggered domain.EventTriggered
}

// ownID returns the event under the next id of its role's own: another caller has this one.
func (e accepted) ownID() accepted {
	e.triggered.ClientEventID, e.event = domain.EventID(e.id), e.caller().OwnID(e.event)
	return e
}

// distinct returns the events that may be appended together, and those that come after: what its
// caller repeats, and all from the first one on whose id another caller has in the batch, as that
// is recorded under another id and in its place.
func distinct(all []accepted) (first, after []accepted) {
	callers := make(map[domain.EventID]string, len(all))
	first = make([]accepted, 0, len(all))
	for i, e := range all {
		switch caller, known := callers[e.event]; {
		case !known:
			callers[e.event] = e.caller().Actor
			first = append(first, e)
		case caller == e.caller().Actor:
			after = append(after, e)
		default:
			return first, append(after, all[i:]...)
		}
	}
	return first, after
}

// append records the events and deletes their rows, in one transaction. What was erased since
// it was read has no row any more, and is refused.
func (r *Relay) append(ctx context.Context, events []accepted) error {
	unit := eventstore.Unit{Generation: r.generation, Writes: make([]eventstore.Write, len(events))}
	seqs := make([]int64, len(events))
	for i, e := range events {
		seqs[i] = e.seq
		unit.Writes[i] = e.write("")
	}
	unit.With = []eventstore.Statement{{SQL: byKeySQL}, {SQL: demandSQL, Args: []any{seqs}}, {SQL: deleteSQL, Args: []any{seqs}}}
	_, err := r.directory.Append(ctx, unit)
	return err
}

// write starts the event's stream.
func (e accepted) write(cause string) eventstore.Write {
	return eventstore.Write{
		Stream:   e.event.Stream(),
		Events:   []eventstore.NewEvent{{Type: e.triggered.ChangeType(), Value: e.triggered}},
		Metadata: eventstore.Metadata{Actor: e.caller().Actor, CorrelationID: e.correlationID, CausationID: cause},
	}
}

// caller is the role that emitted the event, or the source that sent it.
func (e emission) caller() commands.Caller {
	if e.fromSource {
		return commands.Caller{Actor: e.emittedBy}
	}
	return commands.RoleCaller(e.emittedBy)
}

const deleteSQL = `SELECT medilab.outbox_done($1)`

// demandSQL fails with codeGone unless all rows are there. After byKeySQL it is planned to go
// by the primary key, also while the table is small.
const (
	demandSQL = `SELECT ln((count(*) = cardinality($1::bigint[]))::int) FROM unnest($1::bigint[]) AS wanted (seq)
		CROSS JOIN LATERAL (SELECT FROM medilab.outbox AS o WHERE o.seq = wanted.seq LIMIT 1) AS found`
	byKeySQL = `SELECT set_config('enable_seqscan', 'off', true)`
)

// codeGone is the SQLSTATE of the logarithm of zero, which nothing else in an append takes: rows
// that it demands were deleted by others.
const codeGone = "2201E"

// settle takes out the events whose id their role has used already and returns the others,
// under an id of their own if another caller has taken theirs. Emitting an event twice is
// harmless, so the same again is dropped; another under that id is parked.
func (r *Relay) settle(ctx context.Context, events []accepted) (others []accepted, err error) {
	streams := make([]string, len(events))
	for i, e := range events {
		streams[i] = e.event.Stream()
	}
	recorded, err := r.log.LoadFirst(ctx, streams)
	if err != nil {
		return nil, fmt.Errorf("look for recorded events: %w", err)
	}
	was := make(map[string]eventstore.Event, len(recorded))
	for _, e := range recorded {
		was[e.Stream] = e
	}
	var same []int64
	for i, e := range events {
		switch before, known := was[streams[i]]; {
		case !known:
			others = append(others, e)
		case !e.caller().Appended(before):
			others = append(others, e.ownID())
		case e.isSame(before):
			same = append(same, e.seq)
		default:
			if err := r.park(ctx, e.emission, "another event is recorded under this event_id"); err != nil {
				return nil, err
			}
		}
	}
	_, err = r.exec(ctx, deleteSQL, same)
	return others, eventstore.Doing("drop events that are recorded already", err)
}

// refuse parks the event, unless it repeats one that was accepted before: that is dropped.
func (r *Relay) refuse(ctx context.Context, e accepted, reason string) error {
	for {
		recorded, err := r.log.LoadFirst(ctx, []string{e.event.Stream()})
		switch {
		case err != nil:
			return fmt.Errorf("look for a recorded event: %w", err)
		case len(recorded) > 0 && !e.caller().Appended(recorded[0]):
			e = e.ownID()
		case len(recorded) > 0 && e.isSame(recorded[0]):
			_, err = r.exec(ctx, deleteSQL, []int64{e.seq})
			return eventstore.Doing("drop an event that is recorded already", err)
		default:
			return r.park(ctx, e.emission, reason)
		}
	}
}

// isSame reports whether the recorded event is this one. Its source does not make it another one.
func (e accepted) isSame(recorded eventstore.Event) bool {
	was, ok := recorded.Value.(domain.EventTriggered)
	return ok && was.EventType == e.triggered.EventType && was.CorrelationID == e.triggered.CorrelationID &&
		commands.SameData(was, e.triggered)
}

// park takes the event out of the way and keeps it with the reason.
func (r *Relay) park(ctx context.Context, e emission, reason string) error {
	tag, err := r.exec(ctx, `
		WITH refused AS (DELETE FROM medilab.outbox WHERE seq = $1 RETURNING *)
		INSERT INTO medilab.parked_events (event_id, event_type, event_data, correlation_id, source, emitted_by, emitted_at, traceparent, tracestate, reason)
		SELECT event_id, event_type, event_data, correlation_id, source, emitted_by, emitted_at, traceparent, tracestate, $2 FROM refused`, e.seq, domain.Storable(reason)) // it may name a field with a NUL
	if err != nil {
		return fmt.Errorf("park an emitted event: %w", err)
	}
	if tag.RowsAffected() > 0 {
		r.logger.Warn("an emitted event cannot be accepted and is parked", "event_id", e.id, "event_type", e.eventType, "reason", reason)
	}
	return nil
}

// exec runs a statement about rows that were read, unless the log has lost its tail since: then
// their numbers may be those of others.
func (r *Relay) exec(ctx context.Context, sql string, args ...any) (tag pgconn.CommandTag, err error) {
	conn, err := r.pool.Acquire(ctx)
	if err != nil {
		return tag, err
	}
	defer conn.Release()
	if r.generation != r.log.Generation() {
		return tag, eventstore.ErrTailLost
	}
	return conn.Exec(ctx, sql, args...)
}

// accept returns the event, and what is wrong with it that the database could not find when it was
// emitted. more lists further faults.
func accept(ctx context.Context, limiter *cpulimit.Limiter, catalog domain.Catalog, e emission, more ...domain.FieldError) (domain.EventTriggered, error) {
	// A white space around the value is not part of it, and would not survive the log.
	data := bytes.Trim(e.data, " \t\r\n")
	triggered := domain.EventTriggered{EventType: e.eventType, Source: e.source, CorrelationID: e.correlationID, OccurredAt: e.emittedAt.UTC(), Imported: e.imported, EventData: data,
		Trace: domain.NewTrace(e.traceparent, e.tracestate)}
	if err := domain.CheckJSON(data); err != nil {
		return triggered, fmt.Errorf("event_data: %w", err)
	}
	refused := append(catalog.TriggeredFields(triggered), more...)
	if domain.EventID(e.id) == (domain.EventID{}) {
		refused = append(refused, domain.FieldError{Field: "event_id", Message: domain.NilUUID})
	}
	if len(refused) == 0 {
		err := commands.CheckData(ctx, limiter, catalog, triggered)
		if refused = domain.FieldsOf(err); err != nil && len(refused) == 0 {
			return triggered, err
		}
	}
	if len(refused) > 0 {
		return triggered, errors.New(refused[0].String())
	}
	return triggered, nil
}
