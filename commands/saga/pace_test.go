package saga_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/migrations/testdb"
)

// timeline is a receiver that knows when each call came, and how many are in flight.
type timeline struct {
	mu       sync.Mutex
	calls    map[string][]time.Time // by URL
	inFlight map[string]int
	most     map[string]int
	answer   func(call commands.Outgoing) commands.Answer
}

func newTimeline(answer func(commands.Outgoing) commands.Answer) *timeline {
	return &timeline{calls: map[string][]time.Time{}, inFlight: map[string]int{}, most: map[string]int{}, answer: answer}
}

func (l *timeline) Send(_ context.Context, call commands.Outgoing) commands.Answer {
	l.mu.Lock()
	l.calls[call.URL] = append(l.calls[call.URL], time.Now())
	l.inFlight[call.URL]++
	l.most[call.URL] = max(l.most[call.URL], l.inFlight[call.URL])
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.inFlight[call.URL]--
	}()
	return l.answer(call)
}

func (l *timeline) of(url string) []time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]time.Time(nil), l.calls[url]...)
}

func succeed(commands.Outgoing) commands.Answer {
	return commands.Answer{Outcome: domain.OutcomeSuccess, Status: 200}
}

func limited(url string, concurrent int, rate float64) func(*domain.WebhookRegistered) {
	return func(c *domain.WebhookRegistered) { c.URL, c.MaxConcurrent, c.RateLimit = url, concurrent, rate }
}

// awaitRows waits until the query counts as many.
func (n *node) awaitRows(query string, want int) {
	n.t.Helper()
	harness.Until(n.t, fmt.Sprintf("there are %d of %s", want, query), func() bool {
		var got int
		if err := n.pool.QueryRow(n.t.Context(), query).Scan(&got); err != nil {
			n.t.Fatalf("waiting for %d of %s: %v", want, query, err)
		}
		return got == want
	})
}

// Whatever nodes the events come in at: in any T seconds rate x T + max(1, rate) calls at
// most, of all nodes together. Webhooks without a limit have nothing to do with it.
func TestRateLimitOverNodes(t *testing.T) {
	t.Parallel()
	const rate, events = 20, 60
	url := testdb.New(t)
	r := newTimeline(succeed)
	nodes := []*node{start(t, url, r), start(t, url, r)}
	nodes[0].register(1, limited("http://limited.test/", 0, rate))
	nodes[1].register(2, limited("http://free.test/", 0, 0))
	for i := range events {
		nodes[i%2].trigger()
	}
	nodes[0].awaitEmptyQueue()
	calls := r.of("http://limited.test/")
	if len(calls) != events || len(r.of("http://free.test/")) != events {
		t.Fatalf("%d calls with a limit and %d without, of %d", len(calls), len(r.of("http://free.test/")), events)
	}
	for i := range calls {
		for j := i; j < events; j++ {
			if n, most := float64(j-i+1), rate*calls[j].Sub(calls[i]).Seconds()+rate; n > most {
				t.Fatalf("%v calls in %v, where %.1f are allowed", n, calls[j].Sub(calls[i]), most)
			}
		}
	}
	if took := calls[events-1].Sub(calls[0]); took > 10*time.Second*events/rate {
		t.Errorf("they took %v", took)
	}
	var rows int
	if err := nodes[0].pool.QueryRow(t.Context(), `SELECT count(*) FROM medilab.paced`).Scan(&rows); err != nil || rows != 1 {
		t.Errorf("%d lanes are in one node's hands, %v", rows, err)
	}
}

// However slow the receiver, on whichever nodes, and whatever the limit is changed to:
// never more calls in flight than it allows.
func TestMaxConcurrentOverNodes(t *testing.T) {
	t.Parallel()
	url := testdb.New(t)
	slow := func(commands.Outgoing) commands.Answer {
		<-time.After(time.Duration(20+rand.IntN(40)) * time.Millisecond)
		return succeed(commands.Outgoing{})
	}
	r := newTimeline(slow)
	nodes := []*node{start(t, url, r), start(t, url, r)}
	id := nodes[0].register(1, limited("http://limited.test/", 3, 0))
	const events = 60
	for i := range events {
		nodes[i%2].trigger()
	}
	nodes[0].awaitEmptyQueue()
	if most := r.most["http://limited.test/"]; most > 3 || len(r.calls["http://limited.test/"]) != events {
		t.Errorf("up to %d calls in flight, and 3 are the most; %d calls", most, len(r.calls["http://limited.test/"]))
	}
	for _, limit := range []int{0, 2} { // with it gone, both nodes call; then one again
		nodes[1].change(id, func(domain.Webhook) ([]domain.Change, error) {
			return []domain.Change{domain.WebhookChanged{MaxConcurrent: &limit}}, nil
		})
		if err := nodes[0].directory.CatchUp(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.mu.Lock()
		r.most["http://limited.test/"] = 0
		r.mu.Unlock()
		for i := range events {
			nodes[i%2].trigger()
		}
		nodes[0].awaitEmptyQueue()
		if most := r.most["http://limited.test/"]; limit > 0 && most > limit {
			t.Errorf("with the limit %d up to %d calls were in flight", limit, most)
		}
	}
}

// When the lease of the node that calls has ended, another goes on, within the limit. The
// calls of the dead one count no more.
func TestMaxConcurrentWhenANodeDies(t *testing.T) {
	url := testdb.New(t)
	release, held := make(chan struct{}), make(chan struct{}, 2)
	r := newTimeline(func(call commands.Outgoing) commands.Answer {
		select {
		case held <- struct{}{}:
			<-release
		default:
			<-time.After(5 * time.Millisecond)
		}
		return succeed(call)
	})
	dies := start(t, url, r)
	defer close(release) // before the node is stopped
	dies.register(1, limited("http://limited.test/", 2, 0))
	for range 20 {
		dies.trigger()
	}
	dies.awaitRows(`SELECT greatest(2 - count(*), 0) FROM medilab.queue WHERE node IS NOT NULL`, 0)
	heir := start(t, url, r)
	for len(held) < 2 {
		<-time.After(time.Millisecond)
	}
	// As if it had been killed: it hears of it with its next renewal.
	if _, err := heir.pool.Exec(t.Context(), `UPDATE medilab.nodes SET lease_until = '-infinity' WHERE id = (SELECT node FROM medilab.paced)`); err != nil {
		t.Fatal(err)
	}
	heir.awaitEmptyQueue()
	if most := r.most["http://limited.test/"]; most > 2+2 {
		t.Errorf("up to %d calls in flight with the 2 of the dead node, and 4 are the most", most)
	}
	var cut int // with those that the dead node had not begun
	if err := heir.pool.QueryRow(t.Context(), `SELECT count(*) FROM medilab.events WHERE type = 'delivery.interrupted'`).Scan(&cut); err != nil {
		t.Fatal(err)
	}
	if calls := len(r.of("http://limited.test/")); calls < 20+2 || calls > 20+cut {
		t.Errorf("%d calls, want 20 and the 2 to %d that were cut off", calls, cut)
	}
}

// A node begins to call a limited webhook when no living node has deliveries of it, which
// it may have of the time before the limit.
func TestLimitedWebhookWaitsForTheCallsOfOthers(t *testing.T) {
	t.Parallel()
	r := newTimeline(succeed)
	n := start(t, testdb.New(t), r)
	const node, held = "INSERT INTO medilab.nodes (name, lease_until) VALUES ('other', 'infinity') RETURNING id", `
		INSERT INTO medilab.claims (node, first, deliveries, webhooks, events, sizes)
		SELECT $2, id, ARRAY[id], ARRAY[$1::uuid], ARRAY[gen_random_uuid()], ARRAY[1] FROM gen_random_uuid() AS id`
	id := n.register(1, limited("http://limited.test/", 1, 0))
	var other int64
	if err := n.pool.QueryRow(t.Context(), node).Scan(&other); err != nil {
		t.Fatal(err)
	}
	if _, err := n.pool.Exec(t.Context(), held, id, other); err != nil {
		t.Fatal(err)
	}
	another := n.register(2, limited("http://another.test/", 1, 0))
	n.awaitState(domain.DeliveryOf(n.trigger(), another), domain.DeliveryDelivered)
	n.awaitState(domain.DeliveryOf(n.trigger(), another), domain.DeliveryDelivered)
	if calls := r.of("http://limited.test/"); len(calls) > 0 {
		t.Errorf("%d calls beside those of another node", len(calls))
	}
	if _, err := n.pool.Exec(t.Context(), `DELETE FROM medilab.claims WHERE node = $1`, other); err != nil {
		t.Fatal(err)
	}
	n.awaitEmptyQueue()
	if calls := r.of("http://limited.test/"); len(calls) != 2 {
		t.Errorf("%d calls, want 2", len(calls))
	}
}

// A receiver that asks for patience is left alone: its first calls, which are few, are all
// it sees. Other webhooks get all of theirs, and so does it when it is activated again.
func TestRetryAfterSlowsTheWebhook(t *testing.T) {
	const events, first = 40, 8
	var mu sync.Mutex
	patient := true
	r := newTimeline(func(call commands.Outgoing) commands.Answer {
		mu.Lock()
		defer mu.Unlock()
		if patient && call.URL == "http://busy.test/" {
			return commands.Answer{Outcome: "http_status", Status: 503, RetryAfter: "3600"}
		}
		return succeed(call)
	})
	n := start(t, testdb.New(t), r)
	busy := n.register(1, limited("http://busy.test/", 0, 0))
	other := n.register(2, limited("http://other.test/", 0, 0))
	var last domain.EventID
	for range events {
		last = n.trigger()
	}
	n.awaitState(domain.DeliveryOf(last, other), domain.DeliveryDelivered)
	n.awaitRows(`SELECT count(*) FROM medilab.pending WHERE webhook_id <> '`+busy.String()+`'`, 0)
	n.awaitRows(`SELECT count(*) FROM medilab.pending WHERE node IS NOT NULL`, 0)
	if calls := len(r.of("http://busy.test/")); calls == 0 || calls > first {
		t.Errorf("it was called %d times", calls)
	}
	if calls := len(r.of("http://other.test/")); calls != events {
		t.Errorf("the other was called %d times, want %d", calls, events)
	}
	mu.Lock()
	patient = false
	mu.Unlock()
	n.change(busy, domain.DecideDeactivate)
	n.change(busy, domain.DecideActivate)
	n.awaitState(domain.DeliveryOf(last, busy), domain.DeliveryDelivered)
}
