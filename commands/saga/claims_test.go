package saga_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/commands/saga"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/migrations/testdb"
)

const rowsOfClaims, rowsOfTheQueue = `SELECT count(*) FROM medilab.claims`, `SELECT count(*) FROM medilab.queue`

// count returns the query's only value.
func (n *node) count(sql string, args ...any) (count int) {
	n.t.Helper()
	if err := n.pool.QueryRow(n.t.Context(), sql, args...).Scan(&count); err != nil {
		n.t.Fatal(err)
	}
	return count
}

// untried returns the deliveries that the queue knows to wait for their first attempt.
func (n *node) untried(ids ...domain.DeliveryID) map[domain.DeliveryID]domain.Delivery {
	n.t.Helper()
	found, err := saga.Queue{Pool: n.pool}.Untried(n.t.Context(), ids)
	if err != nil {
		n.t.Fatal(err)
	}
	return found
}

// What is claimed in its append has no row in the queue. It is pending all the same, until its
// stream has its end; what fails has a row from then on.
func TestClaimsOfAnAppendShareARow(t *testing.T) {
	r := newStepwise(t)
	n := start(t, testdb.New(t), r)
	w := n.register(1, nil)
	n.register(2, nil)
	event := n.trigger()
	id := domain.DeliveryOf(event, w)
	calls := []stepCall{r.next(event), r.next(event)}
	if claims, rows := n.count(rowsOfClaims), n.count(rowsOfTheQueue); claims != 1 || rows != 0 {
		t.Errorf("two deliveries have %d rows of claims and %d in the queue", claims, rows)
	}
	if d := n.untried(id)[id]; d.EventID != event || d.WebhookID != w {
		t.Errorf("in flight, the queue has %+v", d)
	}
	if waiting, err := (saga.Queue{Pool: n.pool}).WaitingOf(t.Context(), []domain.EventID{event}, nil); err != nil || len(waiting) != 2 {
		t.Errorf("of the event's deliveries %v wait, %v", waiting, err)
	}
	if list, err := (saga.Queue{Pool: n.pool}).Backlog(t.Context(), w, math.MaxInt64, time.Now().Add(time.Hour), 9); err != nil || len(list) != 1 {
		t.Errorf("the webhook's backlog is %v, %v", list, err)
	}
	if pending := n.verifiedPending(); pending != 2 {
		t.Errorf("%d are pending, want 2", pending)
	}
	for _, call := range calls {
		if headerOf(call.Outgoing, "X-Webhook-Delivery-ID") == id.String() {
			call.succeed()
		} else {
			call.fail()
		}
	}
	n.awaitState(id, domain.DeliveryDelivered)
	n.awaitRows(rowsOfTheQueue, 1)
	n.awaitRows(rowsOfClaims, 0)
	if left := n.untried(id); len(left) > 0 {
		t.Errorf("after its end, the queue has %v", left)
	}
	if size := n.count(`SELECT size FROM medilab.queue`); size == 0 {
		t.Error("what failed has no size")
	}
	r.next(event).succeed()
	n.awaitEmptyQueue()
}

// verifiedPending checks the queue against the log, and returns how many are pending.
func (n *node) verifiedPending() (pending int64) {
	n.t.Helper()
	err := pgx.BeginFunc(n.t.Context(), n.pool, func(tx pgx.Tx) (err error) {
		pending, err = saga.Queue{}.Verify(n.t.Context(), tx, func(_, text string) { n.t.Error(text) })
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return pending
}

// busy starts a node with a receiver that answers its first calls when it is told to, and returns
// what waits in memory behind them.
func busy(t *testing.T, url string) (n *node, w domain.WebhookID, answer chan struct{}, waiting []domain.EventID) {
	r := newReceiver()
	answer = make(chan struct{})
	r.answer = func(commands.Outgoing) commands.Answer {
		<-answer
		return commands.Answer{Outcome: domain.OutcomeSuccess, Status: 200}
	}
	n = start(t, url, r)
	w = n.register(1, nil)
	const calls = 8 // at once, to a receiver that nobody has tried
	for range calls {
		n.trigger()
	}
	for range calls {
		<-r.seen
	}
	return n, w, answer, []domain.EventID{n.trigger(), n.trigger()}
}

// What a node claimed and cannot begin is another's: a row of its own, free to claim. Calls
// under way end as they do, and none is made twice.
func TestClaimsAreReleased(t *testing.T) {
	t.Parallel()
	url := testdb.New(t)
	first, w, answer, waiting := busy(t, url)
	r := newReceiver()
	second := start(t, url, r) // what has waited here for a second is free for it
	for _, event := range waiting {
		second.awaitState(domain.DeliveryOf(event, w), domain.DeliveryDelivered)
	}
	close(answer)
	second.awaitEmptyQueue()
	second.awaitRows(rowsOfClaims, 0)
	if calls := second.count(`SELECT count(*) FROM medilab.events WHERE stream LIKE 'delivery-%'`); calls != 10 {
		t.Errorf("%d calls of 10 deliveries", calls)
	}
	first.verify()
}

// calling returns a node in the first call of a delivery that it claimed.
func calling(t *testing.T) (*node, domain.WebhookID, domain.EventID, stepCall) {
	t.Helper()
	r := newStepwise(t)
	n := start(t, testdb.New(t), r)
	w := n.register(1, nil)
	event := n.trigger()
	return n, w, event, r.next(event)
}

// The outcome of a call that ends while others take over from its node deletes the row that
// they made for it.
func TestOutcomeOfWhatWasTakenFromTheClaims(t *testing.T) {
	n, w, event, call := calling(t)
	// As a taker does it first, in rows of the node that has it.
	_, err := n.pool.Exec(t.Context(), `WITH gone AS (DELETE FROM medilab.claims RETURNING *)
		INSERT INTO medilab.queue (delivery_id, webhook_id, event_id, size, attempt, retries, version, due_at, node)
		SELECT deliveries[1], webhooks[1], events[1], sizes[1], 1, 0, 0, now(), node FROM gone`)
	if err != nil {
		t.Fatal(err)
	}
	n.verify()
	call.succeed()
	n.awaitState(domain.DeliveryOf(event, w), domain.DeliveryDelivered)
	n.awaitRows(rowsOfTheQueue, 0)
}

// A retry of what is being called for the first time does not have it called by another at once.
func TestRetryOfWhatIsBeingCalled(t *testing.T) {
	n, w, event, call := calling(t)
	n.append(domain.DeliveryOf(event, w).Stream(), 0, domain.DeliveryRetryRequested{EventID: event, WebhookID: w, Attempt: 1, Size: 1})
	if free := n.count(`SELECT count(*) FROM medilab.queue WHERE node IS NULL`); free != 0 {
		t.Error("what is being called is free to claim")
	}
	n.verify()
	call.succeed()
	n.awaitState(domain.DeliveryOf(event, w), domain.DeliveryDelivered)
	n.awaitEmptyQueue()
}

// Claims of which the node does not know, as the answer to its append was lost, are released by its
// sweep, before it leaves too.
func TestClaimsOfALostAnswer(t *testing.T) {
	url := testdb.New(t)
	r := newReceiver()
	caller := appending(t, url)
	w := caller.register(1, nil)
	event := caller.trigger()
	id := domain.DeliveryOf(event, w)
	caller.append(w.Stream(), 1, domain.WebhookDeactivated{})
	n := start(t, url, r)
	_, err := n.pool.Exec(t.Context(), `WITH gone AS (DELETE FROM medilab.queue RETURNING *)
		INSERT INTO medilab.claims (node, first, deliveries, webhooks, events, sizes)
		SELECT (SELECT max(id) FROM medilab.nodes), delivery_id, ARRAY[delivery_id], ARRAY[webhook_id], ARRAY[event_id], ARRAY[size] FROM gone`)
	if err != nil {
		t.Fatal(err)
	}
	n.stop()
	caller.append(w.Stream(), 2, domain.WebhookActivated{})
	start(t, url, r).awaitState(id, domain.DeliveryDelivered)
	if got := fmt.Sprint(r.attempts(id)); got != "[1]" {
		t.Errorf("attempts %s, want the first alone: nothing was cut off", got)
	}
}

// A delivery that fails in this program keeps no place of others, and is tried again after the sweep.
func TestPanicKeepsNoPlace(t *testing.T) {
	r := newReceiver()
	var failed atomic.Bool
	r.answer = func(commands.Outgoing) commands.Answer {
		if !failed.Swap(true) {
			panic("in the sender")
		}
		return commands.Answer{Outcome: domain.OutcomeSuccess, Status: 200}
	}
	n := start(t, testdb.New(t), r)
	w := n.register(1, limited("http://limited.test/", 1, 0))
	first := domain.DeliveryOf(n.trigger(), w)
	<-r.seen
	n.awaitState(domain.DeliveryOf(n.trigger(), w), domain.DeliveryDelivered)
	n.stop() // the sweep before a node leaves
	if open := appending(t, url(n)).count(`SELECT count(*) FROM medilab.queue WHERE node IS NULL AND delivery_id = $1`, first); open != 1 {
		t.Errorf("%d rows are free to claim, want that of what failed", open)
	}
}

func url(n *node) string { return n.pool.Config().ConnString() }

// Three nodes, a receiver that is slow and fails, and one node that others take over from while it
// goes on: every call is on record once, and nothing is left of queue and claims.
func TestClaimsOverNodes(t *testing.T) {
	t.Parallel()
	url := testdb.New(t)
	r := newReceiver()
	r.answer = func(commands.Outgoing) commands.Answer {
		<-time.After(time.Duration(rand.IntN(60)) * time.Millisecond)
		if rand.IntN(4) == 0 {
			return commands.Answer{Outcome: "http_status", Status: 500}
		}
		return commands.Answer{Outcome: domain.OutcomeSuccess, Status: 200}
	}
	nodes := []*node{start(t, url, r), start(t, url, r), start(t, url, r)}
	const webhooks, events = 5, 120
	for i := range webhooks {
		nodes[0].register(int64(i+1), func(c *domain.WebhookRegistered) { c.MaxRetries = 1 })
	}
	var group sync.WaitGroup
	for _, n := range nodes {
		group.Go(func() {
			for range events / len(nodes) {
				n.trigger()
			}
		})
	}
	<-r.seen
	// To the others it is dead, and it learns that with its next renewal.
	if _, err := nodes[0].pool.Exec(t.Context(), `UPDATE medilab.nodes SET lease_until = '-infinity' WHERE id = (SELECT min(id) FROM medilab.nodes)`); err != nil {
		t.Error(err)
	}
	group.Wait()
	nodes[1].awaitEmptyQueue()
	nodes[1].awaitRows(rowsOfClaims, 0)
	nodes[1].verify()
	for _, n := range nodes {
		n.stop() // what ends late is on record then
	}
	reader := appending(t, url)
	if ended := reader.count(`SELECT count(DISTINCT stream) FROM medilab.events WHERE stream LIKE 'delivery-%'`); ended != webhooks*events {
		t.Errorf("%d deliveries have ended, want %d", ended, webhooks*events)
	}
	recorded := reader.count(`SELECT count(*) FROM medilab.events WHERE type IN ('delivery.succeeded', 'delivery.attempt_failed', 'delivery.outcome_late')`)
	if calls := len(r.seen) + 1; recorded != calls {
		t.Errorf("%d calls, and %d on record", calls, recorded)
	}
}

// What is asked for again while its call is under way stays with the node, also if the webhook has come
// to order its deliveries since.
func TestClaimedBeforeItsWebhookOrdered(t *testing.T) {
	t.Parallel()
	r := newStepwise(t)
	n := start(t, testdb.New(t), r)
	w := n.register(1, nil)
	event := n.trigger()
	id := domain.DeliveryOf(event, w)
	call := r.next(event)
	n.append(w.Stream(), 1, domain.WebhookChanged{OrderBy: new("patient_id")})
	n.retry(id, event, w, 123)
	if rows := n.count(`SELECT count(*) FROM medilab.queue WHERE delivery_id = $1 AND node > 0 AND line IS NULL`, id); rows != 1 {
		t.Errorf("%d rows are with the node", rows)
	}
	next := n.triggerOf(123)
	r.next(next).succeed()
	call.succeed()
	n.awaitEmptyQueue()
	n.verify()
	if d := n.awaitState(id, domain.DeliveryDelivered); d.Attempts != 1 {
		t.Errorf("it arrived as %+v", d)
	}
}
