package saga_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/commands/saga"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations/testdb"
)

func TestDelivers(t *testing.T) {
	r := newReceiver()
	n := start(t, testdb.New(t), r)
	w := n.register(1, nil)
	event := n.trigger()
	d := n.awaitState(domain.DeliveryOf(event, w), domain.DeliveryDelivered)
	if d.Attempts != 1 || len(r.attempts(domain.DeliveryOf(event, w))) != 1 {
		t.Errorf("%+v", d)
	}
	n.awaitEmptyQueue()
}

// Many events to many webhooks: each delivered once, whichever way it went.
func TestDeliversEachOnce(t *testing.T) {
	r := newReceiver()
	n := start(t, testdb.New(t), r)
	const webhooks, events = 5, 400
	var ids []domain.WebhookID
	for i := range webhooks {
		ids = append(ids, n.register(int64(i+1), nil))
	}
	var mu sync.Mutex
	var triggered []domain.EventID
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range events / 8 {
				id := n.trigger()
				mu.Lock()
				triggered = append(triggered, id)
				mu.Unlock()
			}
		})
	}
	group.Wait()
	n.awaitEmptyQueue()
	for _, event := range triggered {
		for _, w := range ids {
			if got := r.attempts(domain.DeliveryOf(event, w)); len(got) != 1 || got[0] != "1" {
				t.Fatalf("event %s to %s: attempts %v", event, w, got)
			}
		}
	}
}

// A delivery that is cancelled while it waits in a node's memory for its call is not sent.
func TestCancelledWhileItWaitsForItsCall(t *testing.T) {
	r := newReceiver()
	answer := make(chan struct{})
	r.answer = func(commands.Outgoing) commands.Answer {
		<-answer
		return commands.Answer{Outcome: domain.OutcomeSuccess, Status: 200}
	}
	n := start(t, testdb.New(t), r)
	w := n.register(1, nil)
	const calls = 8 // at once, to a receiver that nobody has tried
	for range calls {
		n.trigger()
	}
	for range calls {
		<-r.seen
	}
	event, next := n.trigger(), n.trigger()
	id := domain.DeliveryOf(event, w)
	n.append(id.Stream(), 0, domain.DeliveryCancelled{EventID: event, WebhookID: w, Reason: domain.CancelRequested})
	close(answer)
	n.awaitState(domain.DeliveryOf(next, w), domain.DeliveryDelivered)
	n.stop()
	if got := r.attempts(id); len(got) > 0 {
		t.Errorf("it was sent after it was cancelled: attempts %v", got)
	}
}

func TestRetriesAndGivesUp(t *testing.T) {
	t.Parallel()
	r := newReceiver()
	r.answer = func(commands.Outgoing) commands.Answer {
		return commands.Answer{Outcome: "http_status", Status: 500, Error: "the receiver answered 500"}
	}
	n := start(t, testdb.New(t), r)
	w := n.register(1, func(c *domain.WebhookRegistered) { c.MaxRetries = 1 })
	event := n.trigger()
	d := n.awaitState(domain.DeliveryOf(event, w), domain.DeliveryFailed)
	if d.Attempts != 2 || d.GaveUp != domain.GaveUpRetriesExhausted {
		t.Errorf("%+v", d)
	}
	assertSpacing(t, n, domain.DeliveryOf(event, w), time.Second)
}

// assertSpacing checks that attempt 2 began after the delay from the end of
// attempt 1, by the database's clock.
func assertSpacing(t *testing.T, n *node, id domain.DeliveryID, delay time.Duration) {
	t.Helper()
	events, err := n.log.Load(t.Context(), id.Stream())
	if err != nil {
		t.Fatal(err)
	}
	first := events[0].Value.(domain.DeliveryAttemptFailed)
	second := events[1].Value.(domain.DeliveryAttemptFailed)
	end := first.StartedAt.Add(time.Duration(first.Duration) * time.Microsecond)
	if wait := second.StartedAt.Sub(end); wait < delay {
		t.Errorf("attempt 2 followed after %v, want %v at least", wait, delay)
	}
	if promised := first.NextAttemptAt.Sub(end); promised < delay || promised > delay+delay/20+100*time.Millisecond {
		t.Errorf("attempt 2 was promised after %v", promised)
	}
}

func TestGoneEndsTheDelivery(t *testing.T) {
	r := newReceiver()
	r.answer = func(commands.Outgoing) commands.Answer { return commands.Answer{Outcome: "http_status", Status: 410} }
	n := start(t, testdb.New(t), r)
	w := n.register(1, nil)
	d := n.awaitState(domain.DeliveryOf(n.trigger(), w), domain.DeliveryFailed)
	if d.Attempts != 1 || d.GaveUp != domain.GaveUpGone {
		t.Errorf("%+v", d)
	}
}

// Deliveries of an inactive webhook wait and go on when it is activated; those
// of a deleted one are cancelled.
func TestInactiveWaitsDeletedCancels(t *testing.T) {
	t.Parallel()
	r := newReceiver()
	fail := commands.Answer{Outcome: "connect", Error: "refused"}
	r.answer = func(commands.Outgoing) commands.Answer { return fail }
	n := start(t, testdb.New(t), r)
	w := n.register(1, nil)
	event := n.trigger()
	<-r.seen
	n.append(w.Stream(), 1, domain.WebhookDeactivated{})
	r.mu.Lock()
	r.answer = newReceiver().answer
	r.mu.Unlock()
	n.append(w.Stream(), 2, domain.WebhookActivated{})
	if d := n.awaitState(domain.DeliveryOf(event, w), domain.DeliveryDelivered); d.Attempts != 2 {
		t.Errorf("%+v", d)
	}

	r.mu.Lock()
	r.answer = func(commands.Outgoing) commands.Answer { return fail }
	r.mu.Unlock()
	event = n.trigger()
	<-r.seen
	<-r.seen
	n.append(w.Stream(), 3, domain.WebhookDeleted{})
	if d := n.awaitState(domain.DeliveryOf(event, w), domain.DeliveryWithdrawn); d.CancelReason != domain.CancelWebhookDeleted {
		t.Errorf("%+v", d)
	}
}

// What waits for a webhook is cancelled when it is deleted, far from due, more than one page
// of it, and whoever deleted it: here a process that makes no calls.
func TestDeletedCancelsWhatIsNotDue(t *testing.T) {
	t.Parallel()
	const events = 600
	url, r := testdb.New(t), newReceiver()
	r.answer = func(commands.Outgoing) commands.Answer { return commands.Answer{Outcome: "connect", Error: "refused"} }
	n := start(t, url, r)
	w := n.register(1, func(c *domain.WebhookRegistered) { c.RetryDelay = 86400 })
	n.triggerMany(events)
	for range events {
		<-r.seen
	}
	n.append(w.Stream(), 1, domain.WebhookDeactivated{})
	appending(t, url).append(w.Stream(), 2, domain.WebhookDeleted{})
	n.awaitEmptyQueue()
	var cancelled int
	if err := n.pool.QueryRow(t.Context(), `SELECT count(*) FROM medilab.events WHERE type = 'delivery.cancelled'`).Scan(&cancelled); err != nil || cancelled != events {
		t.Errorf("%d are cancelled, %v", cancelled, err)
	}
}

// What a dead node had under way is interrupted and made again by another.
func TestTakesOverFromADeadNode(t *testing.T) {
	url := testdb.New(t)
	stuck := newReceiver()
	hang := make(chan struct{})
	stuck.answer = func(commands.Outgoing) commands.Answer {
		<-hang
		return commands.Answer{Outcome: domain.OutcomeSuccess, Status: 200}
	}
	first := start(t, url, stuck)
	w := first.register(1, func(c *domain.WebhookRegistered) { c.MaxRetries = 0 })
	event := first.trigger()
	<-stuck.seen
	r := newReceiver()
	second := start(t, url, r)
	// To the other the node is dead: its lease has ended. It does not learn of that until the other has
	// taken over, or it would itself, under another id.
	const ofFirst = ` WHERE id = (SELECT min(id) FROM medilab.nodes)`
	if _, err := first.pool.Exec(t.Context(), `UPDATE medilab.nodes SET lease_until = '-infinity'`+ofFirst); err != nil {
		t.Fatal(err)
	}
	held, err := second.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer held.Rollback(context.WithoutCancel(t.Context())) //nolint:errcheck // it only held a lock
	if _, err := held.Exec(t.Context(), `SELECT FROM medilab.nodes`+ofFirst+` FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	d := second.awaitState(domain.DeliveryOf(event, w), domain.DeliveryDelivered)
	if err := held.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d.Attempts != 2 || fmt.Sprint(r.attempts(domain.DeliveryOf(event, w))) != "[2]" {
		t.Errorf("%+v, %v", d, r.attempts(domain.DeliveryOf(event, w)))
	}
	// The first one's call ends after all: it changes nothing, and is kept as late.
	close(hang)
	first.stop()
	events, err := second.log.Load(t.Context(), domain.DeliveryOf(event, w).Stream())
	if err != nil {
		t.Fatal(err)
	}
	var types []string
	for _, e := range events {
		types = append(types, e.Type)
	}
	if got, want := fmt.Sprint(types), "[delivery.interrupted delivery.succeeded delivery.outcome_late]"; got != want {
		t.Errorf("stream holds %s, want %s", got, want)
	}
	if late := events[2].Value.(domain.DeliveryOutcomeLate); late.Counts {
		t.Error("the interrupted attempt counts again")
	}
	if cut := events[0].Value.(domain.DeliveryInterrupted); cut.EventType != "patient.created" {
		t.Errorf("the interrupted call is of the type %q", cut.EventType)
	}
}

// What goes wrong while a node stops is in its log.
func TestTellsWhatAStopFailsAt(t *testing.T) {
	var notes bytes.Buffer
	n := start(t, testdb.New(t), newReceiver(), func(_ *node, c *saga.Config) { c.Logger = slog.New(slog.NewTextHandler(&notes, nil)) })
	if _, err := n.pool.Exec(t.Context(), `ALTER TABLE medilab.nodes RENAME TO moved`); err != nil {
		t.Fatal(err)
	}
	n.stop()
	if !strings.Contains(notes.String(), "delivering did not end as it should") {
		t.Errorf("the log is %s", &notes)
	}
}

// appending is a process that appends and makes no calls.
func appending(t *testing.T, url string) *node {
	t.Helper()
	pool, err := eventstore.OpenPool(t.Context(), url, 4)
	if err != nil {
		t.Fatal(err)
	}
	directory := commands.NewDirectory(slog.New(slog.DiscardHandler))
	log := eventstore.Open(eventstore.Config{
		Pool: pool, Inline: []eventstore.Inline{saga.Queue{}}, Announce: true,
		Codec:     func(name string, data []byte) (any, error) { return domain.Decode(name, data) },
		Observers: []eventstore.Observer{directory.Observe},
	})
	t.Cleanup(func() {
		log.Close()
		pool.Close()
	})
	if err := directory.Open(t.Context(), log); err != nil {
		t.Fatal(err)
	}
	return &node{t: t, log: log, directory: directory, pool: pool}
}

// Events that another process appended, which makes no calls, are delivered, also to
// webhooks that it has not heard of when it is called.
func TestDeliversWhatOthersAppended(t *testing.T) {
	url := testdb.New(t)
	n := start(t, url, newReceiver())
	other := appending(t, url)
	for i := range int64(20) {
		w := n.register(i+1, nil)
		event := other.trigger()
		n.awaitState(domain.DeliveryOf(event, w), domain.DeliveryDelivered)
	}
}

// What an older version recorded without deciding it is decided at the first start, as
// of its position. A replay may have asked for an event before that: the event is
// delivered once.
func TestDecidesWhatAnOlderVersionLeft(t *testing.T) {
	url := testdb.New(t)
	early := appending(t, url)
	w := early.register(1, nil)
	undecided := func() domain.EventID {
		id := domain.EventID(uuid.Must(uuid.NewV7()))
		plain := eventstore.Open(eventstore.Config{Pool: early.pool}) // as the older version did: without recipients
		defer plain.Close()
		e := domain.EventTriggered{EventType: "patient.created", EventData: []byte(`{"patient_id": 123}`)}
		appended, err := plain.Append(t.Context(), eventstore.Unit{Writes: []eventstore.Write{{Stream: id.Stream(),
			Events: []eventstore.NewEvent{{Type: e.ChangeType(), Data: domain.AppendJSON(nil, e), Value: e}}}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := early.pool.Exec(t.Context(), `INSERT INTO medilab.undecided VALUES ($1)`, appended.First); err != nil {
			t.Fatal(err)
		}
		return id
	}
	waiting, made := undecided(), undecided()
	ask := func(event domain.EventID) {
		early.append(domain.DeliveryOf(event, w).Stream(), 0, domain.DeliveryRetryRequested{EventID: event, WebhookID: w, Attempt: 1, Size: 19})
	}
	ask(waiting)
	ask(made)
	early.append(domain.DeliveryOf(made, w).Stream(), 1, domain.DeliverySucceeded{Call: domain.Call{EventID: made, WebhookID: w, Attempt: 1, Outcome: domain.OutcomeSuccess}})
	after := undecided()
	later := early.register(2, nil) // the events were before it

	r := newReceiver()
	n := start(t, url, r)
	for _, event := range []domain.EventID{waiting, made, after} {
		n.awaitState(domain.DeliveryOf(event, w), domain.DeliveryDelivered)
	}
	n.awaitEmptyQueue()
	if got := r.attempts(domain.DeliveryOf(made, w)); len(got) != 0 {
		t.Errorf("what was delivered already was sent again: %v", got)
	}
	for _, event := range []domain.EventID{waiting, after} {
		if got := r.attempts(domain.DeliveryOf(event, w)); len(got) != 1 {
			t.Errorf("attempts %v", got)
		}
		if got := r.attempts(domain.DeliveryOf(event, later)); len(got) != 0 {
			t.Errorf("sent to a webhook that did not exist then: %v", got)
		}
	}
	var left int
	if err := n.pool.QueryRow(t.Context(), `SELECT count(*) FROM medilab.undecided`).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d events are left undecided, %v", left, err)
	}
}

// A shutdown that cuts off the call of a cancelled delivery records the call, whatever was asked
// for meanwhile; that of an attempt which stands as interrupted is on record.
func TestCutOffCallOfWhatHasEnded(t *testing.T) {
	t.Parallel()
	r, url := newStepwise(t), testdb.New(t)
	n := start(t, url, r, func(_ *node, c *saga.Config) { c.Grace = 0 })
	w := n.register(1, nil)
	cancelled, again, taken := n.trigger(), n.trigger(), n.trigger()
	for range 3 {
		<-r.calls
	}
	n.cancel(domain.DeliveryOf(cancelled, w))
	n.cancel(domain.DeliveryOf(again, w))
	n.changeDelivery(domain.DeliveryOf(again, w), func(d domain.Delivery) (domain.Change, error) {
		return domain.DeliveryRetryRequested{EventID: again, WebhookID: w, Attempt: d.NextAttempt()}, nil
	})
	r.next(again)
	n.append(domain.DeliveryOf(taken, w).Stream(), 0, domain.DeliveryInterrupted{EventID: taken, EventType: "patient.created", WebhookID: w, Attempt: 1})
	r.next(taken)
	n.stop()

	n = start(t, url, newReceiver())
	n.awaitEmptyQueue()
	for event, want := range map[domain.EventID]string{
		cancelled: "cancelled outcome_late",
		again:     "cancelled interrupted outcome_late retry_requested succeeded",
		taken:     "interrupted interrupted succeeded",
	} {
		history, err := n.log.Load(t.Context(), domain.DeliveryOf(event, w).Stream())
		if err != nil {
			t.Fatal(err)
		}
		var types []string
		for _, e := range history {
			types = append(types, strings.TrimPrefix(e.Type, "delivery."))
			if late, ok := e.Value.(domain.DeliveryOutcomeLate); ok && (late.Attempt != 1 || late.Outcome != domain.OutcomeInterrupted || !late.Counts || late.StartedAt.IsZero()) {
				t.Errorf("the call is recorded as %+v", late)
			}
		}
		slices.Sort(types)
		if got := strings.Join(types, " "); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	n.verify()
}

// What is said to be with no node, and is with one, does not end; what is beside it in the log's
// next batch does.
func TestWhatIsClaimedDoesNotEndAsWaiting(t *testing.T) {
	t.Parallel()
	r := newStepwise(t)
	n := start(t, testdb.New(t), r)
	w := n.register(1, func(c *domain.WebhookRegistered) { c.RetryDelay = 3600 })
	var events []domain.EventID
	for range 3 {
		events = append(events, n.trigger())
		r.next(events[len(events)-1]).fail()
	}
	n.awaitRows(`SELECT count(*) FROM medilab.queue WHERE attempt = 2 AND node IS NULL`, 3)
	var calls []stepCall
	for _, event := range events[:2] {
		n.retry(domain.DeliveryOf(event, w), event, w, 1)
		calls = append(calls, r.next(event))
	}
	ends := []domain.Change{
		domain.DeliveryCancelled{EventID: events[0], WebhookID: w, Waiting: true},
		domain.DeliveryRetryCancelled{EventID: events[1], WebhookID: w, Waiting: true},
		domain.DeliveryCancelled{EventID: events[2], WebhookID: w, Waiting: true},
	}
	units := make([]eventstore.Unit, len(ends))
	for i, end := range ends {
		units[i].Writes = []eventstore.Write{commands.Write(domain.DeliveryOf(events[i], w).Stream(), 2, eventstore.Metadata{}, end)}
	}
	units[2].Writes[0].Expected = 1
	for i, err := range n.log.AppendEach(t.Context(), units) {
		if claimed := i < 2; eventstore.IsConflict(err) != claimed || !claimed && err != nil {
			t.Errorf("end %d: %v", i, err)
		}
	}
	for _, call := range calls {
		call.succeed()
	}
	n.awaitEmptyQueue()
	n.verify()
}
