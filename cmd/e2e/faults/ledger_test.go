package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/domain"
)

// hook is a webhook of the run, and which events it must get.
type hook struct {
	ID      string `json:"id"`
	name    string
	matches func(eventType string, n int) bool
	since   time.Time
	waits   bool // its deliveries are pending when the run ends
}

// ledger accounts for a run.
type ledger struct {
	*receivers
	t    testing.TB
	home *home
	db   *pgxpool.Pool

	mu       sync.Mutex
	hooks    []*hook
	accepted map[string]accepted // I, by event id
	refused  int                 // answers that told the caller to come again
	broken   int                 // requests without an answer
	again    map[string]int      // how often a caller was told to come again, by event id
}

type accepted struct {
	eventType string
	n         int
	began     time.Time // when the caller first asked
}

// newLedger opens the books of a run on the database.
func newLedger(t testing.TB, h *home) *ledger {
	l := &ledger{receivers: newReceivers(t), t: t, home: h, accepted: map[string]accepted{}, again: map[string]int{}}
	if h.url != "" {
		l.db = connect(t, h.url)
	}
	return l
}

// subscribe registers a webhook. settings override the body's fields; matches
// says again, by itself, what the filters do.
func (l *ledger) subscribe(n *node, name string, answer behaviour, settings map[string]any, matches func(string, int) bool) *hook {
	l.t.Helper()
	body := map[string]any{
		"name": name, "url": l.target(name, answer), "events": []string{"*"}, "secret": "s-" + name,
		"max_retries": 10, "retry_delay": 1, "timeout": 20,
	}
	maps.Copy(body, settings)
	h := &hook{name: name, matches: matches}
	n.api(http.StatusCreated, "POST", "/webhooks/", body, h)
	h.since = time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hooks = append(l.hooks, h)
	return h
}

func everything(string, int) bool { return true }

// usual subscribes the webhooks that most runs have: one that takes all, one that
// fails now and then, one with a filter and its own type, and slow.
func (l *ledger) usual(n *node) {
	l.t.Helper()
	l.subscribe(n, "all", nil, nil, everything)
	l.subscribe(n, "flaky", flaky, nil, everything)
	l.subscribe(n, "filtered", after(20*time.Millisecond), map[string]any{
		"events": []string{"payment.completed"}, "filters": map[string]any{"amount_min": 500},
	}, func(eventType string, n int) bool { return eventType == "payment.completed" && n >= 500 })
}

var eventTypes = []string{"patient.created", "payment.completed", "visit.completed"}

// load triggers events, about rate a second, at the nodes in turns, until stop. A
// caller that was told to come again, or got no answer, does so with the same
// event id, elsewhere.
func (l *ledger) load(rate int, nodes ...*node) (stop func()) {
	return l.loadOf(rate, eventTypes, nodes...)
}

// loadOf is load with events of some types.
func (l *ledger) loadOf(rate int, types []string, nodes ...*node) (stop func()) {
	ctx, cancel := context.WithCancel(l.t.Context())
	tokens := make(chan struct{}, 64)
	var group sync.WaitGroup
	group.Go(func() {
		defer close(tokens)
		ticker := time.NewTicker(time.Second / time.Duration(rate))
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			select {
			case tokens <- struct{}{}:
			default: // nobody is free: the product is down or slow
			}
		}
	})
	for range 32 {
		group.Go(func() {
			for range tokens {
				l.triggerOne(ctx, types[rand.IntN(len(types))], nodes)
			}
		})
	}
	var once sync.Once
	stop = func() { once.Do(func() { cancel(); group.Wait() }) }
	l.t.Cleanup(stop)
	return stop
}

// loadFor is load for a time.
func (l *ledger) loadFor(d time.Duration, rate int, nodes ...*node) {
	l.t.Helper()
	stop := l.load(rate, nodes...)
	pass(l.t, d)
	stop()
}

// triggerOne triggers one event until it is accepted or ctx ends.
func (l *ledger) triggerOne(ctx context.Context, eventType string, nodes []*node) {
	id, err := uuid.NewV7()
	if err != nil {
		l.t.Error(err)
		return
	}
	e := accepted{eventType, rand.IntN(1000), time.Now()}
	body := fmt.Appendf(nil, `{"event_type":%q,"event_id":%q,"event_data":{"amount": %d,"name":"Иван \u0000 <Иванов>"}}`, e.eventType, id, e.n)
	for at := rand.IntN(len(nodes)); ctx.Err() == nil; at++ {
		if l.offer(nodes[at%len(nodes)], id.String(), e, body) {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(20+rand.IntN(80)) * time.Millisecond):
		}
	}
}

// callerPatience is how long a caller waits for an answer before it comes again.
const callerPatience = 5 * time.Second

// offer makes one request to trigger, and books its answer.
func (l *ledger) offer(n *node, id string, e accepted, body []byte) (done bool) {
	a, err := n.requestWithin(callerPatience, "POST", "/webhooks/events/trigger", body)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err != nil: // no answer: it may be in the log or not
		l.broken++
		return false
	case a.Status == http.StatusAccepted && bytes.Contains(a.Body, []byte(id)):
		l.accepted[id] = e
		return true
	case comeAgain(a):
		l.refused++
		l.again[id]++
		return false
	}
	l.t.Errorf("%s answered a trigger with %d, Retry-After %q: %.300s", n.Label, a.Status, a.Header.Get("Retry-After"), a.Body)
	return true
}

// acceptedCount is the size of I.
func (l *ledger) acceptedCount() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.accepted)
}

// preload triggers many events of one type, in batches of a thousand.
func (l *ledger) preload(n *node, eventType string, count int) {
	l.t.Helper()
	for done := 0; done < count; done += 1000 {
		var events []map[string]any
		for i := range min(1000, count-done) {
			events = append(events, map[string]any{"event_type": eventType, "event_data": map[string]int{"amount": (done + i) % 1000}})
		}
		var made struct {
			Items []struct {
				ID string `json:"event_id"`
			} `json:"items"`
		}
		n.insist("/webhooks/events/trigger/batch", map[string]any{"events": events}, &made)
		l.mu.Lock()
		for i, item := range made.Items {
			l.accepted[item.ID] = accepted{eventType, (done + i) % 1000, time.Now()}
		}
		l.mu.Unlock()
	}
}

// flood triggers many events that the ledger does not account for, as nothing
// that it waits for follows from them.
func (l *ledger) flood(n *node, eventType string, count int) {
	l.t.Helper()
	for done := 0; done < count; done += 1000 {
		var events []map[string]any
		for range min(1000, count-done) {
			events = append(events, map[string]any{"event_type": eventType, "event_data": map[string]any{}})
		}
		n.insist("/webhooks/events/trigger/batch", map[string]any{"events": events}, nil)
	}
}

// waitingFor is how many deliveries are pending for the webhook.
func (l *ledger) waitingFor(h *hook) (waiting int) {
	l.t.Helper()
	if err := l.db.QueryRow(l.t.Context(), `SELECT count(*) FROM medilab.pending WHERE webhook_id = $1`, h.ID).Scan(&waiting); err != nil {
		l.t.Fatal(err)
	}
	return waiting
}

// settle waits until no delivery of the run's webhooks is pending and the read
// models have the whole log.
func (l *ledger) settle() {
	l.t.Helper()
	if l.db == nil {
		l.db = connect(l.t, l.home.embeddedURL())
	}
	var ids []uuid.UUID
	for _, h := range l.hooks {
		if !h.waits {
			ids = append(ids, uuid.MustParse(h.ID))
		}
	}
	waiting := 0
	defer func() {
		if l.t.Failed() {
			l.t.Logf("%d deliveries were pending", waiting)
		}
	}()
	until(l.t, "every delivery has ended and is in the read models", func() bool {
		var behind bool
		err := l.db.QueryRow(l.t.Context(), `SELECT (SELECT count(*) FROM medilab.pending WHERE webhook_id = ANY($1)),
			EXISTS (SELECT FROM medilab.readers, medilab.log_head WHERE readers.position < log_head.position)`, ids).Scan(&waiting, &behind)
		return err == nil && waiting == 0 && !behind
	})
}

// attempt names one call of a delivery.
type attempt struct {
	delivery string
	number   int
}

// delivery is what the log says of one.
type delivery struct {
	event, webhook string
	state          domain.Delivery
	succeeded      int // the attempt, 0: none
	late           int // outcomes that came late
	interrupted    int
}

// books is the log and the call log as the API tells them at the end.
type books struct {
	deliveries map[string]*delivery
	byEvent    map[string]map[string]string // event -> webhook -> delivery
	calls      map[attempt]int
	entries    int
}

// balance settles, and checks the ledger against the log, the call log and what
// receivers saw, by the API of the node.
func (l *ledger) balance(n *node) books {
	l.t.Helper()
	l.settle()
	b := l.read(n)
	wrong := newComplaints(l.t)
	defer wrong.report()
	l.mu.Lock()
	defer l.mu.Unlock()

	// Every delivery that follows from what was answered 2xx has ended, and says how.
	deliveries := 0
	for id, e := range l.accepted {
		for _, h := range l.hooks {
			if e.began.Before(h.since) || !h.matches(e.eventType, e.n) {
				continue
			}
			deliveries++
			d := b.deliveries[b.byEvent[id][h.ID]]
			switch {
			case d == nil:
				wrong.add("event %s was accepted, and nothing goes to %s", id, h.name)
			case d.state.State == domain.DeliveryPending || d.state.State == "":
				wrong.add("event %s to %s is still pending", id, h.name)
			case d.state.State == domain.DeliveryFailed && d.state.GaveUp == "",
				d.state.State == domain.DeliveryWithdrawn && d.state.CancelReason == "":
				wrong.add("event %s to %s ended without a reason", id, h.name)
			}
		}
	}
	// Every call that a receiver saw is in the call log, and was seen once.
	seen := map[attempt]int{}
	for _, r := range l.all() {
		a := attempt{r.delivery, r.attempt}
		if seen[a]++; seen[a] == 2 {
			wrong.add("attempt %d of %s arrived twice", a.number, a.delivery)
		}
		if b.calls[a] == 0 {
			wrong.add("attempt %d of %s arrived and is not in the call log", a.number, a.delivery)
		}
		d := b.deliveries[r.delivery]
		if d != nil && d.succeeded > 0 && r.attempt > d.succeeded {
			wrong.add("attempt %d of %s followed the success of %d", a.number, a.delivery, d.succeeded)
		}
	}
	late, interrupted := 0, 0
	for id, d := range b.deliveries {
		late += d.late
		interrupted += d.interrupted
		if d.succeeded > 0 && seen[attempt{id, d.succeeded}] == 0 {
			wrong.add("delivery %s succeeded at attempt %d, which nobody saw", id, d.succeeded)
		}
	}
	l.t.Logf("I %d accepted (%d told to come again, %d without an answer), M %d deliveries, R %d calls; log %d entries, %d interrupted, %d late",
		len(l.accepted), l.refused, l.broken, deliveries, len(seen), b.entries, interrupted, late)
	return b
}

// read takes the log and the call log from the API, as an auditor would.
func (l *ledger) read(n *node) books {
	l.t.Helper()
	b := books{deliveries: map[string]*delivery{}, byEvent: map[string]map[string]string{}, calls: map[attempt]int{}}
	n.stream("/audit/events", func(line []byte) { b.entry(l.t, line) })
	for _, h := range l.hooks {
		for cursor := ""; ; {
			var page struct {
				Items []struct {
					Delivery string `json:"delivery_id"`
					Attempt  int    `json:"attempt"`
				} `json:"items"`
				Next *string `json:"next_cursor"`
			}
			n.api(http.StatusOK, "GET", "/webhooks/"+h.ID+"/calls?limit=1000"+cursor, nil, &page)
			for _, c := range page.Items {
				b.calls[attempt{c.Delivery, c.Attempt}]++
			}
			if page.Next == nil {
				break
			}
			cursor = "&cursor=" + *page.Next
		}
	}
	return b
}

// entry folds one entry of the log.
func (b *books) entry(t testing.TB, line []byte) {
	t.Helper()
	var e struct {
		Position   int             `json:"position"`
		Stream     string          `json:"stream"`
		Type       string          `json:"type"`
		Data       json.RawMessage `json:"data"`
		RecordedAt time.Time       `json:"recorded_at"`
	}
	if err := json.Unmarshal(line, &e); err != nil {
		t.Fatalf("an entry of the log is no JSON: %v: %.300s", err, line)
	}
	if b.entries++; e.Position != b.entries {
		t.Fatalf("entry %d of the log is at position %d", b.entries, e.Position)
	}
	change, err := domain.Decode(e.Type, e.Data)
	if err != nil {
		return // a run that poisons the log looks at this itself
	}
	if id, err := domain.ParseEventStream(e.Stream); err == nil {
		dispatched, ok := domain.DispatchOf(id, change)
		if !ok {
			return
		}
		event := dispatched.EventID.String()
		b.byEvent[event] = map[string]string{}
		for _, d := range dispatched.Deliveries {
			b.byEvent[event][d.WebhookID.String()] = d.DeliveryID.String()
			b.deliveries[d.DeliveryID.String()] = &delivery{event: event, webhook: d.WebhookID.String()}
		}
		return
	}
	id, ours := strings.CutPrefix(e.Stream, "delivery-")
	d := b.deliveries[id]
	if !ours || d == nil {
		return
	}
	d.state = d.state.Evolve(change, e.RecordedAt)
	switch c := change.(type) {
	case domain.DeliverySucceeded:
		d.succeeded = c.Attempt
	case domain.DeliveryOutcomeLate:
		d.late++
	case domain.DeliveryInterrupted:
		d.interrupted++
	}
}

// exec runs SQL as the database's superuser.
func (l *ledger) exec(sql string, args ...any) {
	l.t.Helper()
	if _, err := l.db.Exec(l.t.Context(), sql, args...); err != nil {
		l.t.Fatalf("%v: %s", err, sql)
	}
}

// verified lets the product check its own log.
func (l *ledger) verified() {
	l.t.Helper()
	if out, err := l.home.command("audit", "verify"); err != nil {
		l.t.Errorf("audit verify: %v: %s", err, out)
	}
}

// complaints are many at once when something is wrong: the first of each kind tell.
type complaints struct {
	t     testing.TB
	kinds map[string][]string
}

func newComplaints(t testing.TB) *complaints { return &complaints{t, map[string][]string{}} }

func (c *complaints) add(format string, args ...any) {
	c.kinds[format] = append(c.kinds[format], fmt.Sprintf(format, args...))
}

func (c *complaints) report() {
	c.t.Helper()
	for _, kind := range slices.Sorted(maps.Keys(c.kinds)) {
		all := c.kinds[kind]
		c.t.Errorf("%d times: %s", len(all), strings.Join(all[:min(3, len(all))], "; "))
	}
}
