package saga_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/commands/saga"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations/testdb"
)

func ordered(c *domain.WebhookRegistered) { c.OrderBy = "patient_id" }

func blocking(c *domain.WebhookRegistered) {
	c.OrderBy, c.OrderOnFailure, c.MaxRetries = "patient_id", domain.OrderBlock, 0
}

// triggerOf triggers an event of a patient.
func (n *node) triggerOf(patient any) domain.EventID {
	n.t.Helper()
	id := domain.EventID(uuid.Must(uuid.NewV7()))
	n.append(id.Stream(), 0, domain.EventTriggered{EventType: "patient.created", EventData: fmt.Appendf(nil, `{"patient_id":%v}`, patient)})
	return id
}

// triggerTogether appends events of the patients in one unit.
func (n *node) triggerTogether(patients []int) {
	n.t.Helper()
	var unit eventstore.Unit
	for _, patient := range patients {
		c := domain.EventTriggered{EventType: "patient.created", EventData: fmt.Appendf(nil, `{"patient_id":%d}`, patient)}
		unit.Writes = append(unit.Writes, eventstore.Write{Stream: domain.EventID(uuid.Must(uuid.NewV7())).Stream(),
			Events: []eventstore.NewEvent{{Type: c.ChangeType(), Data: domain.AppendJSON(nil, c), Value: c}}})
	}
	if _, err := n.directory.Append(n.t.Context(), unit); err != nil {
		n.t.Error(err)
	}
}

// changeDelivery appends what decide says of the delivery.
func (n *node) changeDelivery(id domain.DeliveryID, decide func(domain.Delivery) (domain.Change, error)) {
	n.t.Helper()
	_, err := n.directory.Execute(n.t.Context(), func(ctx context.Context) (unit eventstore.Unit, err error) {
		events, err := n.log.Load(ctx, id.Stream())
		var d domain.Delivery
		for _, e := range events {
			d = d.Evolve(e.Value.(domain.Change), e.RecordedAt)
		}
		if err != nil {
			return unit, err
		}
		c, err := decide(d)
		if err != nil {
			return unit, err
		}
		unit.Writes = []eventstore.Write{{Stream: id.Stream(), Expected: d.Version,
			Events: []eventstore.NewEvent{{Type: c.ChangeType(), Data: domain.AppendJSON(nil, c), Value: c}}}}
		return unit, nil
	})
	if err != nil {
		n.t.Error(err)
	}
}

func (n *node) cancel(id domain.DeliveryID) {
	n.changeDelivery(id, func(d domain.Delivery) (domain.Change, error) {
		return domain.DecideCancel(d, d.EventID, d.WebhookID, domain.CancelRequested)
	})
}

func (n *node) retry(id domain.DeliveryID, event domain.EventID, webhook domain.WebhookID, patient any) {
	n.changeDelivery(id, func(d domain.Delivery) (domain.Change, error) {
		w, _ := n.directory.Webhook(webhook)
		data := fmt.Appendf(nil, `{"patient_id":%v}`, patient)
		retry, err := domain.DecideRetry(d, w, event, len(data))
		retry.Line = w.LineOf(data)
		return retry, err
	})
}

// blocked returns the deliveries that gave up and hold up their lines.
func (n *node) blocked() []domain.DeliveryID {
	n.t.Helper()
	rows, err := n.pool.Query(n.t.Context(), `SELECT delivery_id FROM medilab.queue WHERE due_at = 'infinity'`)
	if err != nil {
		n.t.Fatal(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[domain.DeliveryID])
	if err != nil {
		n.t.Fatal(err)
	}
	return ids
}

func (n *node) awaitBlocked(id domain.DeliveryID) {
	n.t.Helper()
	n.awaitState(id, domain.DeliveryFailed)
	if !slices.Contains(n.blocked(), id) {
		n.t.Errorf("delivery %s does not hold up its line", id)
	}
}

// verify checks the queue against the log.
func (n *node) verify() {
	n.t.Helper()
	for _, text := range n.flaws() {
		n.t.Error(text)
	}
}

// flaws returns what contradicts the log in the queue.
func (n *node) flaws() (flaws []string) {
	n.t.Helper()
	tx, err := n.pool.Begin(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	defer tx.Rollback(context.WithoutCancel(n.t.Context()))
	if _, err := (saga.Queue{}).Verify(n.t.Context(), tx, func(_, text string) { flaws = append(flaws, text) }); err != nil {
		n.t.Error(err)
	}
	return flaws
}

func TestVerifyFindsBrokenLines(t *testing.T) {
	n := appending(t, testdb.New(t))
	n.register(1, func(c *domain.WebhookRegistered) { c.OrderBy, c.Sequence = "patient_id", true })
	for range 3 {
		n.triggerOf(1)
	}
	n.verify()
	for _, damage := range []string{
		`UPDATE medilab.queue SET node = NULL`, `UPDATE medilab.queue SET node = 0`, `UPDATE medilab.queue SET line = line + 1`,
		`UPDATE medilab.queue SET position = position + 1`, `UPDATE medilab.sequence SET number = number + 10`,
		`UPDATE medilab.sequence SET number = -number`, `DELETE FROM medilab.sequence WHERE number = 2`,
	} {
		_, err := n.pool.Exec(t.Context(), `CREATE TABLE q AS TABLE medilab.queue; CREATE TABLE s AS TABLE medilab.sequence; `+damage, pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			t.Fatal(err)
		}
		if len(n.flaws()) == 0 {
			t.Errorf("%s is not found", damage)
		}
		_, err = n.pool.Exec(t.Context(), `TRUNCATE medilab.queue; INSERT INTO medilab.queue TABLE q; TRUNCATE medilab.sequence; INSERT INTO medilab.sequence TABLE s;
			DROP TABLE q; DROP TABLE s`, pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			t.Fatal(err)
		}
	}
	n.verify()
}

// stepwise is a receiver that keeps each call until the test answers it.
type stepwise struct {
	t     *testing.T
	calls chan stepCall
}

type stepCall struct {
	commands.Outgoing
	answer chan commands.Answer
}

func newStepwise(t *testing.T) *stepwise { return &stepwise{t, make(chan stepCall)} }

func (s *stepwise) Send(ctx context.Context, out commands.Outgoing) commands.Answer {
	call := stepCall{out, make(chan commands.Answer, 1)}
	select {
	case s.calls <- call:
	case <-ctx.Done():
		return commands.Answer{Outcome: "connect"}
	}
	select {
	case answer := <-call.answer:
		return answer
	case <-ctx.Done():
		return commands.Answer{Outcome: "connect"}
	}
}

// next returns the next call, which must be of the event.
func (s *stepwise) next(event domain.EventID) stepCall {
	s.t.Helper()
	select {
	case call := <-s.calls:
		if got := headerOf(call.Outgoing, "X-Webhook-Event-ID"); got != event.String() {
			s.t.Fatalf("event %s is called, want %s", got, event)
		}
		return call
	case <-time.After(time.Minute):
		s.t.Fatalf("event %s is not called", event)
	}
	return stepCall{}
}

func (c stepCall) succeed() { c.answer <- commands.Answer{Outcome: domain.OutcomeSuccess, Status: 200} }

func (c stepCall) fail() { c.answer <- commands.Answer{Outcome: "http_status", Status: 500} }

// With skip, what gave up holds nobody up, and what is asked for again takes its place
// in the line: it waits for the call under way, and those behind it wait for it.
func TestOrderSkips(t *testing.T) {
	r := newStepwise(t)
	n := start(t, testdb.New(t), r)
	w := n.register(1, func(c *domain.WebhookRegistered) { c.OrderBy, c.MaxRetries = "patient_id", 0 })
	first, second, third := n.triggerOf(1), n.triggerOf("1.0"), n.triggerOf(1)
	r.next(first).fail()
	under := r.next(second)
	n.retry(domain.DeliveryOf(first, w), first, w, 1)
	other := n.triggerOf(`"1"`) // another key: it would go before them all
	r.next(other).succeed()
	n.verify()
	id := func(event domain.EventID) domain.DeliveryID { return domain.DeliveryOf(event, w) }
	behind, err := saga.Queue{Pool: n.pool}.WaitingBehind(t.Context(), []domain.DeliveryID{id(first), id(second), id(third)})
	if want := map[domain.DeliveryID]domain.DeliveryID{id(first): id(second), id(third): id(first)}; err != nil || !maps.Equal(behind, want) {
		t.Errorf("waiting behind: %v, want %v: %v", behind, want, err)
	}
	under.succeed()
	r.next(first).succeed()
	r.next(third).succeed()
	n.awaitEmptyQueue()
}

// With block, what gave up holds up its key until it succeeds or is cancelled.
func TestOrderBlocks(t *testing.T) {
	r := newStepwise(t)
	n := start(t, testdb.New(t), r)
	w := n.register(1, blocking)
	first, second, third, other := n.triggerOf(1), n.triggerOf(1), n.triggerOf(1), n.triggerOf(2)
	calls := map[string]stepCall{}
	for range 2 { // of the two keys, in any order
		call := <-r.calls
		calls[headerOf(call.Outgoing, "X-Webhook-Event-ID")] = call
	}
	calls[other.String()].succeed()
	calls[first.String()].fail()
	id := domain.DeliveryOf(first, w)
	n.awaitBlocked(id)
	behind, err := saga.Queue{Pool: n.pool}.WaitingBehind(t.Context(), []domain.DeliveryID{id, domain.DeliveryOf(second, w), domain.DeliveryOf(third, w)})
	if err != nil || len(behind) != 2 || behind[domain.DeliveryOf(second, w)] != id || behind[domain.DeliveryOf(third, w)] != domain.DeliveryOf(second, w) {
		t.Errorf("waiting behind: %v, %v", behind, err)
	}
	n.verify()
	n.retry(id, first, w, 1) // a retry that fails blocks again
	r.next(first).fail()
	n.awaitState(id, domain.DeliveryFailed)
	n.verify()
	n.cancel(id)
	r.next(second).fail()
	n.awaitBlocked(domain.DeliveryOf(second, w))
	n.retry(domain.DeliveryOf(second, w), second, w, 1)
	r.next(second).succeed()
	r.next(third).succeed()
	n.awaitEmptyQueue()
}

// A retry that was taken back during its call leaves its number to that.
func TestRetryAfterOneThatWasTakenBack(t *testing.T) {
	r := newStepwise(t)
	n := start(t, testdb.New(t), r)
	w := n.register(1, blocking)
	event := n.triggerOf(1)
	id := domain.DeliveryOf(event, w)
	r.next(event).fail()
	n.awaitBlocked(id)
	n.retry(id, event, w, 1)
	second := r.next(event)
	n.changeDelivery(id, func(d domain.Delivery) (domain.Change, error) {
		return domain.DeliveryRetryCancelled{EventID: event, WebhookID: w, Blocks: true}, nil
	})
	n.retry(id, event, w, 1)
	third := r.next(event)
	if a, b := headerOf(second.Outgoing, "X-Webhook-Attempt"), headerOf(third.Outgoing, "X-Webhook-Attempt"); a != "2" || b != "3" {
		t.Errorf("attempts %s and %s are under way", a, b)
	}
	second.fail()
	third.succeed()
	n.awaitEmptyQueue()
	n.verify()
}

// The next waits behind a delivery that waits for its retry, and a webhook that is
// inactive meanwhile, or that orders by something else, changes no place.
func TestOrderWaitsForRetries(t *testing.T) {
	t.Parallel()
	r := newStepwise(t)
	n := start(t, testdb.New(t), r)
	w := n.register(1, ordered)
	first, second := n.triggerOf(1), n.triggerOf(1)
	r.next(first).fail()
	n.awaitState(domain.DeliveryOf(first, w), domain.DeliveryPending)
	n.change(w, domain.DecideDeactivate)
	n.change(w, func(now domain.Webhook) ([]domain.Change, error) {
		none := ""
		return []domain.Change{domain.WebhookChanged{OrderBy: &none}, domain.WebhookActivated{}}, nil
	})
	third := n.triggerOf(1)
	r.next(third).succeed()
	r.next(first).succeed()
	r.next(second).succeed()
	n.awaitEmptyQueue()
}

// Batches of an ordered webhook are sent one at a time, in the order of the log.
func TestOrderOfBatches(t *testing.T) {
	r := newStepwise(t)
	n := start(t, testdb.New(t), r)
	w := n.register(1, func(c *domain.WebhookRegistered) {
		batching(2, 300)(c)
		ordered(c)
		c.Sequence = true
	})
	var events []domain.EventID
	for i := range 6 {
		events = append(events, n.triggerOf(i))
	}
	for i := range 3 {
		call := <-r.calls
		for j, e := range events[2*i : 2*i+2] {
			want := fmt.Appendf(nil, `"event_id":"%s","sequence":%d}`, e, 2*i+j+1)
			if !bytes.Contains(call.Body, want) {
				t.Errorf("batch %d is %s, and must have %s", i, call.Body, want)
			}
		}
		n.verify()
		select {
		case <-r.calls:
			t.Error("two batches at a time")
		default:
		}
		call.succeed()
	}
	n.awaitState(domain.DeliveryOf(events[5], w), domain.DeliveryJoined)
	n.awaitEmptyQueue()
}

func TestOrderOfADeletedWebhook(t *testing.T) {
	r := newStepwise(t)
	n := start(t, testdb.New(t), r)
	w := n.register(1, blocking)
	first, second := n.triggerOf(1), n.triggerOf(1)
	r.next(first).fail()
	n.awaitBlocked(domain.DeliveryOf(first, w))
	n.change(w, domain.DecideDelete)
	n.awaitState(domain.DeliveryOf(second, w), domain.DeliveryWithdrawn)
	n.awaitEmptyQueue()
}
