package saga

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/eventstore/failpoint"
)

const recordPause = 250 * time.Millisecond // between tries to record an outcome

// deliver is the Watermill handler of one claimed delivery: it makes the call,
// with no transaction open, and records the outcome. It never nacks: what could
// not be recorded is taken over from this node, as from a dead one.
func (s *session) deliver(msg *message.Message) error {
	d := deliveryOf(msg)
	ctx := msg.Context()
	defer s.lanes.forget(d)
	defer func() {
		if problem := recover(); problem != nil { // the sweep releases it, so that it is tried again
			s.logger.Error("a delivery failed in this program", "delivery", d.id.String(), "problem", fmt.Sprintf("%T", problem), "stack", string(debug.Stack()))
			s.lanes.uncalled(d)
		}
	}()

	w, known := s.directory.Webhook(d.webhook)
	if instead := s.insteadOf(ctx, d, w, known); instead != nil {
		s.lanes.uncalled(d)
		instead()
		return nil
	}

	failpoint.Pass(failpoint.BeforeCall)
	call, asked := s.call(ctx, w, d)
	if call.Outcome == commands.OutcomeWithheld {
		s.lanes.uncalled(d)
		s.sweepLater()
		return nil
	}
	if call.Outcome.IsLack() {
		s.await(d, call)
		return nil
	}
	failpoint.Pass(failpoint.AfterCall)
	s.lanes.backOff(d.webhook, asked)
	s.lanes.called(d, call)
	end := s.clock.Now()
	s.observe(d, call)
	if ctx.Err() != nil && call.Outcome != domain.OutcomeSuccess && call.Status == 0 {
		call.Outcome, call.Error = domain.OutcomeInterrupted, "the server was shutting down"
		s.record(d, &call, func(d *delivery) domain.Change { return interruption(d, w, call.Error) })
		return nil
	}
	s.record(d, &call, func(d *delivery) domain.Change {
		// The webhook is read again: how many retries it wants may have changed.
		if now, ok := s.directory.Webhook(d.webhook); ok {
			w = now
		}
		return domain.DecideOutcome(d.id, d.retries, w, call, end, asked.RetryAfter)
	})
	if w.Deleted {
		eventstore.Signal(s.deleted)
	}
	return nil
}

// insteadOf returns what is done in place of the call; nil: it is made.
func (s *session) insteadOf(ctx context.Context, d *delivery, w domain.Webhook, known bool) func() {
	replay, err := s.replays.standing(ctx, d.replay)
	switch {
	case !s.node.Valid(), err != nil:
		return s.sweepLater
	case w.Deleted:
		return func() { s.record(d, nil, cancellation(domain.CancelWebhookDeleted)) }
	case d.erased():
		return func() { s.record(d, nil, cancellation(d.gone())) }
	case d.outlived(), !known, !w.Active: // the next claim reads what is left, and catches up
		return func() { s.putBack(func() []*delivery { return s.lanes.takeOut(d, anyDelivery) }) }
	case replay.Stopped() && d.line == domain.NoLine:
		return func() { s.putBack(func() []*delivery { return s.hold(d) }) }
	case replay.Cancelled:
		return func() {
			s.record(d, nil, func(d *delivery) domain.Change {
				return replay.Withdraw(d.webhook, d.eventID, w.OrderOnFailure == domain.OrderBlock, false)
			})
		}
	}
	return nil
}

// sweepLater has what stayed here looked for, should the lease hold after all.
func (s *session) sweepLater() { eventstore.Signal(s.sweep) }

// interruption is the end of an attempt that was cut off.
func interruption(d *delivery, w domain.Webhook, reason string) domain.DeliveryInterrupted {
	interrupted := domain.DecideInterruption(d.eventID, d.eventType(), w, d.attempt, reason)
	interrupted.Ordered = d.line != domain.NoLine
	return interrupted
}

// erased reports whether nothing is left to send.
func (d *delivery) erased() bool {
	return d.event.Erased || d.isBatch && d.broken == "" && len(d.batch) == 0
}

// gone returns why nothing is left to send: a batch is erased if any of its events is.
func (d *delivery) gone() domain.CancelReason {
	if !d.isBatch {
		return commands.CancelGone(d.event.Content)
	}
	for _, reason := range []domain.CancelReason{domain.CancelSubjectErased, domain.CancelExpired} {
		if slices.ContainsFunc(d.left, func(left domain.LeftOut) bool { return left.Reason == reason }) {
			return reason
		}
	}
	return domain.CancelReplayed
}

// outlived reports whether a key of what it sends was destroyed since that was read.
func (d *delivery) outlived() bool {
	return d.event.Keys.Destroyed() || slices.ContainsFunc(d.batch, func(e domain.PayloadEvent) bool { return e.Keys.Destroyed() })
}

func (s *session) call(ctx context.Context, w domain.Webhook, d *delivery) (call domain.Call, after domain.Backoff) {
	defer func() { call.Ordered = d.line != domain.NoLine }()
	if d.broken != "" {
		return domain.Call{
			EventID: d.eventID, EventType: d.eventType(), WebhookID: w.ID, WebhookVersion: w.Version, PayloadVersion: w.PayloadVersion,
			Attempt: d.attempt, URL: w.URL, StartedAt: s.clock.Now(), Outcome: outcomeUnreadableEvent, Error: d.broken, ReplayID: d.replay,
		}, domain.Backoff{}
	}
	return s.attempter.Make(ctx, commands.Attempt{
		Webhook: w, Delivery: d.id, Number: d.attempt, EventID: d.eventID, Event: d.event, OccurredAt: d.occurredAt, Batch: d.batch, LeftOut: d.left, Sequence: d.sequence,
		Replay: d.replay, Allowed: s.node.Valid,
	})
}

// outcomeUnreadableEvent: the stored event does not decode, so nothing was sent.
const outcomeUnreadableEvent domain.Outcome = "unreadable_event"

// record appends what decide says of the delivery after the call; nil: none was made. It tries
// until the database answers, also when the node's lease is over: the stream's version shows
// whether others have decided meanwhile.
func (s *session) record(d *delivery, call *domain.Call, decide func(*delivery) domain.Change) {
	ctx := context.Background() // the record of what happened outlives the shutdown's patience
	change, again := decide(d), false
	next := func(ctx context.Context) (unit eventstore.Unit, err error) {
		if !again {
			again = true
			return s.recorded(d, call, change), nil
		}
		decided, err := s.decideAgain(ctx, d, call, change, decide)
		if err != nil {
			return unit, err
		}
		if change = decided; change == nil {
			return unit, nil
		}
		unit = s.recorded(d, call, change)
		unit.Generation = 0 // it was decided just now
		return unit, nil
	}
	for warned := false; ; warned = true { // once: an outage has many outcomes wait
		_, err := s.directory.Execute(ctx, next)
		if errors.Is(err, eventstore.ErrClosed) {
			return
		}
		if err == nil {
			s.lanes.settle(d)
			if failed, ok := change.(domain.DeliveryAttemptFailed); ok {
				s.failed(failed)
			}
			return
		}
		if errors.Is(err, eventstore.ErrUnavailable) {
			eventstore.Signal(s.sweep) // what it queued may be this node's without its knowing
		}
		if !warned {
			s.logger.Warn("outcome not recorded, trying again", "delivery", d.id.String(), "error", err)
		}
		eventstore.Wait(ctx, recordPause, nil)
	}
}

// recorded returns the unit that records the change after the call; nil: none was made, and none is
// under way.
func (s *session) recorded(d *delivery, call *domain.Call, change domain.Change) eventstore.Unit {
	unit := s.unit(d, change)
	if call == nil {
		unit.With = append(unit.With, eventstore.Statement{SQL: `DELETE FROM medilab.cut_short WHERE delivery_id = $1`, Args: []any{d.id}})
	}
	return unit
}

// failed takes in a failed attempt that is on record.
func (s *session) failed(failed domain.DeliveryAttemptFailed) {
	if failed.GaveUp == "" {
		s.claimer.due.earlier(failed.NextAttemptAt)
	} else if s.gaveUp != nil {
		s.gaveUp(failed.GaveUp)
	}
}

func (s *session) unit(d *delivery, change domain.Change) eventstore.Unit {
	const usual = 768 // bytes of an outcome, with a short answer
	unit := eventstore.Unit{Generation: s.generation, Writes: []eventstore.Write{{
		Stream:   d.id.Stream(),
		Expected: d.version,
		Events:   []eventstore.NewEvent{{Type: change.ChangeType(), Data: domain.AppendJSON(make([]byte, 0, usual), change), Value: change}},
		Metadata: eventstore.Metadata{Actor: commands.ActorDelivery, CausationID: d.eventID.String(), CorrelationID: d.event.CorrelationID},
	}}}
	if failed, ok := change.(domain.DeliveryAttemptFailed); ok && failed.GaveUp == domain.GaveUpGone {
		w, _ := s.directory.Webhook(d.webhook)
		unit.Writes = append(unit.Writes, deactivation(w, domain.DeactivatedGone, eventstore.Metadata{Actor: commands.ActorDelivery, CausationID: d.id.String()})...)
	}
	return unit
}

// deactivation deactivates the webhook for the reason, unless it is inactive already.
func deactivation(w domain.Webhook, reason domain.DeactivationReason, metadata eventstore.Metadata) []eventstore.Write {
	if changes := domain.DecideSystemDeactivate(w, reason); len(changes) > 0 {
		return []eventstore.Write{commands.Write(w.ID.Stream(), w.Version, metadata, changes...)}
	}
	return nil
}

// decideAgain looks at the stream as it is now. When the attempt is still open
// (somebody asked for a retry meanwhile), it decides again at the new version; when the
// attempt was decided without us, our call is kept as late. Nil: nothing is left to
// record.
func (s *session) decideAgain(ctx context.Context, d *delivery, call *domain.Call, change domain.Change, decide func(*delivery) domain.Change) (domain.Change, error) {
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	events, err := s.log.Load(ctx, d.id.Stream())
	if err != nil {
		return nil, err
	}
	var state domain.Delivery
	cut := false
	for _, e := range events {
		if recorded, ok := e.Value.(domain.Change); ok {
			if e.Version > d.version && sameCall(recorded, change) {
				return nil, nil // the answer to our append was lost; it had happened
			}
			state = state.Evolve(recorded, e.RecordedAt)
			switch c := recorded.(type) {
			case domain.DeliveryInterrupted:
				cut = cut || c.Attempt == d.attempt
			case domain.DeliveryOutcomeLate:
				cut = cut || c.Attempt == d.attempt && c.Outcome == domain.OutcomeInterrupted
			}
		}
	}
	if len(events) == 0 {
		has, err := s.queueHas(ctx, d.id)
		if err != nil {
			return nil, err
		}
		if !has {
			s.logger.Warn("the outcome of a call is not recorded: the log has lost its event", "delivery", d.id.String())
			return nil, nil
		}
	}
	d.version = int64(len(events))
	if state.State == domain.DeliveryPending && state.Attempts < d.attempt || len(events) == 0 {
		d.retries = state.Retries
		return decide(d), nil
	}
	if call == nil || cut && call.Outcome == domain.OutcomeInterrupted {
		return nil, nil // nothing was sent, or nothing more is known of it
	}
	return domain.DeliveryOutcomeLate{Call: *call, Counts: !cut}, nil
}

// queueHas reports whether the delivery is in the queue.
func (s *session) queueHas(ctx context.Context, id domain.DeliveryID) (has bool, err error) {
	err = s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM medilab.pending WHERE delivery_id = $1)`, id).Scan(&has)
	return has, eventstore.Doing("look into the queue", err)
}

func sameCall(a, b domain.Change) bool {
	x, ok := domain.OutcomeOf(a)
	y, also := domain.OutcomeOf(b)
	return ok && also && x.Attempt == y.Attempt && x.StartedAt.Truncate(time.Microsecond).Equal(y.StartedAt.Truncate(time.Microsecond))
}

// putBack releases deliveries, which take removes from memory; when that fails, the
// sweep of orphans does it.
func (s *session) putBack(take func() []*delivery) {
	s.owning.Lock()
	defer s.owning.Unlock()
	deliveries := take()
	ctx, cancel := context.WithTimeout(context.Background(), putBackTimeout)
	defer cancel()
	if err := s.release(ctx, deliveries); err != nil {
		s.logger.Warn("deliveries not released, trying again later", "count", len(deliveries), "error", err)
		eventstore.Signal(s.sweep)
	}
}

// putBackLast releases what the batch that was under way at the stop claimed.
func (s *session) putBackLast() {
	ctx, cancel := context.WithTimeout(context.Background(), putBackTimeout)
	defer cancel()
	if err := s.releaseOrphans(ctx); err != nil {
		s.logger.Warn("some deliveries may not be released, they will be taken over", "error", err)
	}
}

const putBackTimeout = 5 * time.Second
