package saga_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations/testdb"
)

const never = 300 // seconds of max_wait that no test waits for

// batchCall is a batch as its receiver saw it.
type batchCall struct {
	delivery string
	attempt  string
	events   []domain.EventID
}

// batchReceiver reads the batches that it is sent, and answers as told.
type batchReceiver struct {
	t     *testing.T
	calls chan batchCall

	mu     sync.Mutex
	answer func(batchCall) commands.Answer
}

func newBatchReceiver(t *testing.T) *batchReceiver {
	return &batchReceiver{t: t, calls: make(chan batchCall, 1<<12), answer: func(batchCall) commands.Answer {
		return commands.Answer{Outcome: domain.OutcomeSuccess, Status: 200}
	}}
}

func (r *batchReceiver) answers(f func(batchCall) commands.Answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = f
}

func (r *batchReceiver) Send(_ context.Context, out commands.Outgoing) commands.Answer {
	var body struct {
		Batch  bool `json:"batch"`
		Events []struct {
			EventID   domain.EventID  `json:"event_id"`
			EventType string          `json:"event_type"`
			EventData json.RawMessage `json:"event_data"`
		} `json:"events"`
		Attempt int `json:"attempt"`
	}
	if err := json.Unmarshal(out.Body, &body); err != nil {
		r.t.Errorf("a body that is no JSON: %v", err)
	}
	c := batchCall{delivery: headerOf(out, "X-Webhook-Delivery-ID"), attempt: headerOf(out, "X-Webhook-Attempt")}
	if !body.Batch || headerOf(out, "X-Webhook-Event") != "batch" || headerOf(out, "X-Webhook-Event-ID") != "" || fmt.Sprint(body.Attempt) != c.attempt {
		r.t.Errorf("no batch: %v", out.Header)
	}
	for _, e := range body.Events {
		if e.EventType != "patient.created" || len(e.EventData) == 0 {
			r.t.Errorf("event %s is %s %s", e.EventID, e.EventType, e.EventData)
		}
		c.events = append(c.events, e.EventID)
	}
	r.mu.Lock()
	answer := r.answer
	r.mu.Unlock()
	r.calls <- c
	return answer(c)
}

// next waits for a call.
func (r *batchReceiver) next() batchCall {
	r.t.Helper()
	select {
	case c := <-r.calls:
		return c
	case <-time.After(time.Minute):
		r.t.Fatal("no call came")
		return batchCall{}
	}
}

func failing(batchCall) commands.Answer {
	return commands.Answer{Outcome: "http_status", Status: 500, Error: "the receiver answered 500"}
}

func batching(maxEvents, maxWait int) func(*domain.WebhookRegistered) {
	return func(c *domain.WebhookRegistered) { c.Batch = &domain.Batch{MaxEvents: maxEvents, MaxWait: maxWait} }
}

func (n *node) triggerMany(count int) []domain.EventID {
	n.t.Helper()
	var ids []domain.EventID
	for range count {
		ids = append(ids, n.trigger())
	}
	return ids
}

// waiting is how many deliveries wait for others.
func (n *node) waiting() (count int) {
	n.t.Helper()
	if err := n.pool.QueryRow(n.t.Context(), `SELECT count(*) FROM medilab.batch_members`).Scan(&count); err != nil {
		n.t.Fatal(err)
	}
	return count
}

// member gives the fold of a member's own stream.
func (n *node) member(event domain.EventID, webhook domain.WebhookID) domain.Delivery {
	n.t.Helper()
	events, err := n.log.Load(n.t.Context(), domain.DeliveryOf(event, webhook).Stream())
	if err != nil {
		n.t.Fatal(err)
	}
	var d domain.Delivery
	for _, e := range events {
		d = d.Evolve(e.Value.(domain.Change), e.RecordedAt)
	}
	return d
}

func batchID(t *testing.T, c batchCall) domain.DeliveryID {
	t.Helper()
	id, err := uuid.Parse(c.delivery)
	if err != nil {
		t.Fatal(err)
	}
	return domain.DeliveryID(id)
}

func TestBatchIsMadeWhenItIsFull(t *testing.T) {
	r := newBatchReceiver(t)
	n := start(t, testdb.New(t), r)
	w := n.register(1, batching(3, never))
	events := n.triggerMany(7)
	for i := range 2 {
		c := r.next()
		at := slices.Index(events, c.events[0])
		if at < 0 || at%3 != 0 || !slices.Equal(c.events, events[at:at+3]) || c.attempt != "1" {
			t.Errorf("call %d: %v of %v", i, c, events)
		}
		id := batchID(t, c)
		d := n.awaitState(id, domain.DeliveryDelivered)
		if len(d.Members) != 3 || d.Attempts != 1 || d.WebhookID != w {
			t.Errorf("the batch is %+v", d)
		}
		for _, e := range c.events {
			if m := n.member(e, w); m.State != domain.DeliveryJoined || m.BatchID != id || m.Version != 1 {
				t.Errorf("its member is %+v", m)
			}
		}
	}
	n.awaitEmptyQueue()
	if got := n.waiting(); got != 1 {
		t.Errorf("%d wait, want 1", got)
	}
}

// No event waits longer than max_wait from when it was recorded, and none goes
// before it has company enough.
func TestBatchIsMadeWhenItsOldestIsDue(t *testing.T) {
	t.Parallel()
	r := newBatchReceiver(t)
	n := start(t, testdb.New(t), r)
	n.register(1, batching(100, 1))
	events := n.triggerMany(3)
	c := r.next()
	if !slices.Equal(c.events, events) {
		t.Errorf("%v, want %v", c.events, events)
	}
	first, err := n.log.Load(t.Context(), events[0].Stream())
	if err != nil {
		t.Fatal(err)
	}
	batch, err := n.log.Load(t.Context(), batchID(t, c).Stream())
	if err != nil {
		t.Fatal(err)
	}
	if waited := batch[0].RecordedAt.Sub(first[0].RecordedAt); waited < time.Second {
		t.Errorf("made after %v", waited)
	}
}

// What waits, waits in the database; what was made, stays as it was made.
func TestBatchesSurviveARestart(t *testing.T) {
	t.Parallel()
	url := testdb.New(t)
	r := newBatchReceiver(t)
	r.answers(failing)
	n := start(t, url, r)
	w := n.register(1, batching(2, 2))
	made := n.triggerMany(2)
	first := r.next()
	left := n.trigger()
	n.stop()

	r = newBatchReceiver(t)
	n = start(t, url, r)
	for range 2 {
		switch c := r.next(); c.delivery {
		case first.delivery:
			if !slices.Equal(c.events, made) || c.attempt != "2" {
				t.Errorf("the batch came again as %v, was %v", c, first)
			}
		default:
			if !slices.Equal(c.events, []domain.EventID{left}) || c.attempt != "1" {
				t.Errorf("what waited came as %v", c)
			}
		}
	}
	n.awaitEmptyQueue()
	if m := n.member(made[0], w); m.BatchID != batchID(t, first) {
		t.Errorf("the member is %+v", m)
	}
}

func TestBatchIsRetriedAsTheSame(t *testing.T) {
	t.Parallel()
	r := newBatchReceiver(t)
	n := start(t, testdb.New(t), r)
	n.register(1, func(c *domain.WebhookRegistered) { batching(2, never)(c); c.MaxRetries = 1 })
	events := n.triggerMany(2)
	r.answers(failing)
	first := r.next()
	more := n.triggerMany(2) // they are no part of it
	seen := map[string][]batchCall{first.delivery: {first}}
	for range 3 {
		c := r.next()
		seen[c.delivery] = append(seen[c.delivery], c)
	}
	if len(seen) != 2 {
		t.Fatalf("batches: %v", seen)
	}
	for id, calls := range seen {
		want := events
		if id != first.delivery {
			want = more
		}
		for i, c := range calls {
			if !slices.Equal(c.events, want) || c.attempt != fmt.Sprint(i+1) {
				t.Errorf("call %d of %s: %v, want %v", i+1, id, c, want)
			}
		}
		if d := n.awaitState(batchID(t, calls[0]), domain.DeliveryFailed); d.Attempts != 2 || d.GaveUp != domain.GaveUpRetriesExhausted {
			t.Errorf("%+v", d)
		}
	}
	// Asked for again, it is still the same.
	r.answers(func(batchCall) commands.Answer { return commands.Answer{Outcome: domain.OutcomeSuccess, Status: 200} })
	id := batchID(t, first)
	d := n.awaitState(id, domain.DeliveryFailed)
	webhook, _ := n.directory.Webhook(d.WebhookID)
	retry, err := domain.DecideRetry(d, webhook, d.EventID, d.Size)
	if err != nil {
		t.Fatal(err)
	}
	n.append(id.Stream(), d.Version, retry)
	if c := r.next(); c.delivery != first.delivery || c.attempt != "3" || !slices.Equal(c.events, events) {
		t.Errorf("asked for again: %v", c)
	}
	n.awaitState(id, domain.DeliveryDelivered)
}

// A batch whose node died in its call is called again by another, as the same.
func TestBatchIsTakenOver(t *testing.T) {
	t.Parallel()
	r := newBatchReceiver(t)
	n := start(t, testdb.New(t), r)
	w := n.register(1, batching(2, 1))
	events := n.triggerMany(1)
	n.append(w.Stream(), 1, domain.WebhookDeactivated{})
	id := domain.BatchOf(domain.DeliveryOf(events[0], w))
	n.awaitState(id, domain.DeliveryPending)
	// As a node leaves it that dies in the call: claimed, under a lease that has ended.
	_, err := n.pool.Exec(t.Context(), `
		WITH dead AS (INSERT INTO medilab.nodes (name, lease_until) VALUES ('dead', '-infinity') RETURNING id)
		UPDATE medilab.queue SET node = dead.id FROM dead`)
	if err != nil {
		t.Fatal(err)
	}
	n.awaitVersion(id, 2)
	n.append(w.Stream(), 2, domain.WebhookActivated{})
	if c := r.next(); batchID(t, c) != id || c.attempt != "2" || !slices.Equal(c.events, events) {
		t.Errorf("taken over as %v", c)
	}
	n.awaitState(id, domain.DeliveryDelivered)
	stream, err := n.log.Load(t.Context(), id.Stream())
	if err != nil {
		t.Fatal(err)
	}
	if c, ok := stream[1].Value.(domain.DeliveryInterrupted); !ok || c.Attempt != 1 || c.EventID != events[0] || c.EventType != string(domain.BatchEventType) {
		t.Errorf("recorded as %+v", stream[1])
	}
}

// awaitVersion waits until the delivery's stream has as many events.
func (n *node) awaitVersion(id domain.DeliveryID, version int) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), time.Minute)
	defer cancel()
	wake, stop := n.log.Appends(nil)
	defer stop()
	for {
		events, err := n.log.Load(ctx, id.Stream())
		if err != nil {
			n.t.Fatalf("waiting for version %d: %v", version, err)
		}
		if len(events) >= version {
			return
		}
		select {
		case <-wake:
		case <-ctx.Done():
		}
	}
}

// A process that only dispatches, and is gone before what it dispatched is due:
// another makes the batches, when they are full or due.
func TestBatchesOfAnotherProcess(t *testing.T) {
	t.Parallel()
	url := testdb.New(t)
	r := newBatchReceiver(t)
	n := start(t, url, r)
	full := n.register(1, batching(2, never))
	due := n.register(2, batching(100, 1))

	other := appending(t, url)
	events := other.triggerMany(2)
	other.log.Close()

	for range 2 {
		c := r.next()
		d := n.awaitState(batchID(t, c), domain.DeliveryDelivered)
		if !slices.Equal(c.events, events) || d.WebhookID != full && d.WebhookID != due {
			t.Errorf("%v, %+v", c, d)
		}
	}
}

// Two nodes, many at once: each event goes in one batch, and in the log's order.
func TestNodesRaceForBatches(t *testing.T) {
	t.Parallel()
	url := testdb.New(t)
	r := newBatchReceiver(t)
	nodes := []*node{start(t, url, r), start(t, url, r)}
	const most, count = 7, 240
	w := nodes[0].register(1, batching(most, 1))
	if err := nodes[1].directory.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var triggered []domain.EventID
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for range count / 8 {
				id := nodes[i%2].trigger()
				mu.Lock()
				triggered = append(triggered, id)
				mu.Unlock()
			}
		})
	}
	group.Wait()
	position := positions(t, nodes[0], triggered)
	seen := map[domain.EventID]bool{}
	for len(seen) < count {
		c := r.next()
		if len(c.events) > most || c.attempt != "1" {
			t.Errorf("%v", c)
		}
		for i, e := range c.events {
			if seen[e] {
				t.Errorf("%s went twice", e)
			}
			if i > 0 && position[c.events[i-1]] >= position[e] {
				t.Errorf("%v is not in the log's order", c.events)
			}
			seen[e] = true
		}
	}
	nodes[0].awaitEmptyQueue()
	for _, e := range triggered {
		if m := nodes[0].member(e, w); !seen[e] || m.State != domain.DeliveryJoined || m.Version != 1 {
			t.Errorf("%s: %+v", e, m)
		}
	}
}

func positions(t *testing.T, n *node, ids []domain.EventID) map[domain.EventID]eventstore.Position {
	t.Helper()
	at := make(map[domain.EventID]eventstore.Position, len(ids))
	for _, id := range ids {
		events, err := n.log.Load(t.Context(), id.Stream())
		if err != nil {
			t.Fatal(err)
		}
		at[id] = events[0].Position
	}
	return at
}

// A body has at most 10 MB: large events part a batch before it is full.
func TestBatchIsPartedBySize(t *testing.T) {
	t.Parallel()
	r := newBatchReceiver(t)
	n := start(t, testdb.New(t), r)
	n.register(1, batching(10, never))
	large := []byte(`{"scan":"` + strings.Repeat("x", 4<<20) + `"}`)
	var events []domain.EventID
	for range 3 {
		id := domain.EventID(uuid.Must(uuid.NewV7()))
		n.append(id.Stream(), 0, domain.EventTriggered{EventType: "patient.created", EventData: large})
		events = append(events, id)
	}
	if c := r.next(); !slices.Equal(c.events, events[:2]) {
		t.Errorf("%v, want the first two of %v", c.events, events)
	}
	n.awaitEmptyQueue()
	if got := n.waiting(); got != 1 {
		t.Errorf("%d wait, want 1", got)
	}
}

// The batch of an inactive webhook waits as any delivery of it does.
func TestBatchOfAnInactiveWebhookWaits(t *testing.T) {
	t.Parallel()
	r := newBatchReceiver(t)
	n := start(t, testdb.New(t), r)
	w := n.register(1, batching(2, 1))
	event := n.trigger()
	n.append(w.Stream(), 1, domain.WebhookDeactivated{})
	id := domain.BatchOf(domain.DeliveryOf(event, w))
	n.awaitState(id, domain.DeliveryPending)
	n.append(w.Stream(), 2, domain.WebhookActivated{})
	c := r.next()
	if batchID(t, c) != id || c.attempt != "1" {
		t.Errorf("%v", c)
	}
	n.awaitState(id, domain.DeliveryDelivered)
	batch, err := n.log.Load(t.Context(), id.Stream())
	if err != nil {
		t.Fatal(err)
	}
	webhook, err := n.log.Load(t.Context(), w.Stream())
	if err != nil {
		t.Fatal(err)
	}
	if call := batch[1].Value.(domain.DeliverySucceeded); call.StartedAt.Before(webhook[2].RecordedAt) {
		t.Errorf("called at %v, activated at %v", call.StartedAt, webhook[2].RecordedAt)
	}
}

// What waits for a deleted webhook is cancelled at once, and so is its batch.
func TestBatchOfADeletedWebhookIsCancelled(t *testing.T) {
	r := newBatchReceiver(t)
	r.answers(failing)
	n := start(t, testdb.New(t), r)
	w := n.register(1, batching(2, never))
	n.triggerMany(2)
	made := r.next()
	waiting := n.trigger()
	n.append(w.Stream(), 1, domain.WebhookDeleted{})
	for _, id := range []domain.DeliveryID{domain.DeliveryOf(waiting, w), batchID(t, made)} {
		if d := n.awaitState(id, domain.DeliveryWithdrawn); d.CancelReason != domain.CancelWebhookDeleted {
			t.Errorf("%+v", d)
		}
	}
	n.awaitEmptyQueue()
	if got := n.waiting(); got != 0 {
		t.Errorf("%d wait still", got)
	}
}

// Taken out while it waits, an event goes in no batch: cancelled it goes nowhere,
// asked for at once it goes by itself.
func TestTakenOutOfABatch(t *testing.T) {
	url := testdb.New(t)
	r := newBatchReceiver(t)
	n := start(t, url, r)
	w := n.register(1, batching(2, never))
	cancelled := n.trigger()
	n.append(domain.DeliveryOf(cancelled, w).Stream(), 0, domain.DeliveryCancelled{EventID: cancelled, WebhookID: w, Reason: domain.CancelRequested})
	events := n.triggerMany(2)
	if c := r.next(); !slices.Equal(c.events, events) {
		t.Errorf("%v, want %v", c.events, events)
	}
	n.awaitEmptyQueue()
	n.stop()

	alone := newReceiver()
	n = start(t, url, alone)
	event := n.trigger()
	id := domain.DeliveryOf(event, w)
	n.append(id.Stream(), 0, domain.DeliveryRetryRequested{EventID: event, WebhookID: w, Attempt: 1, Size: 1})
	n.awaitState(id, domain.DeliveryDelivered)
	if got := alone.attempts(id); len(got) != 1 || got[0] != "1" {
		t.Errorf("attempts %v", got)
	}
	if got := n.waiting(); got != 0 {
		t.Errorf("%d wait still", got)
	}
}

// Events follow the rule under which they were dispatched.
func TestBatchRuleChanges(t *testing.T) {
	t.Parallel()
	url := testdb.New(t)
	r := newReceiver()
	bodies := make(chan string, 8)
	r.answer = func(call commands.Outgoing) commands.Answer {
		bodies <- string(call.Body)
		return commands.Answer{Outcome: domain.OutcomeSuccess, Status: 200}
	}
	n := start(t, url, r)
	w := n.register(1, batching(100, 2))
	before := n.trigger()
	n.append(w.Stream(), 1, domain.WebhookChanged{Batch: &domain.Batch{}})
	after := n.trigger()
	n.awaitState(domain.DeliveryOf(after, w), domain.DeliveryDelivered)
	n.awaitState(domain.BatchOf(domain.DeliveryOf(before, w)), domain.DeliveryDelivered)
	if first, second := <-bodies, <-bodies; strings.Contains(first, `"batch":true`) || !strings.Contains(second, before.String()) {
		t.Errorf("first %s\nthen %s", first, second)
	}
}
