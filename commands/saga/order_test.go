package saga_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
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
func (c stepCall) fail()    { c.answer <- commands.Answer{Outcome: "http_status", Status: 500} }

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

// The next waits behind a delivery that waits for its retry, and a webhook that is
// inactive meanwhile, or that orders by something else, changes no place.
func TestOrderWaitsForRetries(t *testing.T) {
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

// Numbers are those of the log's order, whichever node appends, the same for every attempt
// and in a replay, and counted from when they were switched on.
func TestSequence(t *testing.T) {
	url := testdb.New(t)
	var mu sync.Mutex
	sent := map[string][]string{} // numbers by event
	r := newReceiver()
	r.answer = func(call commands.Outgoing) commands.Answer {
		mu.Lock()
		defer mu.Unlock()
		event := headerOf(call, "X-Webhook-Event-ID")
		sent[event] = append(sent[event], headerOf(call, "X-Webhook-Sequence"))
		if len(sent[event]) == 1 {
			return commands.Answer{Outcome: "http_status", Status: 500}
		}
		return commands.Answer{Outcome: domain.OutcomeSuccess, Status: 200}
	}
	nodes := []*node{start(t, url, r), start(t, url, r)}
	w := nodes[0].register(1, func(c *domain.WebhookRegistered) { c.Sequence = true })
	nodes[0].register(2, nil)
	var group sync.WaitGroup
	for _, n := range nodes {
		for range 4 {
			group.Go(func() {
				for range 10 {
					n.trigger()
				}
			})
		}
	}
	group.Wait()
	nodes[1].awaitEmptyQueue() // what is sent later has no number
	off, on := false, true
	nodes[1].change(w, func(domain.Webhook) ([]domain.Change, error) {
		return []domain.Change{domain.WebhookChanged{Sequence: &off}}, nil
	})
	unnumbered := nodes[0].trigger()
	nodes[1].awaitEmptyQueue()
	nodes[1].verify()
	for i, e := range inOrder(t, nodes[0]) {
		mine, other := sent[e.String()], 0
		for _, number := range mine {
			switch {
			case e == unnumbered && number != "":
				t.Errorf("not numbered, and sent with %s", number)
			case number == "":
				other++
			case number != fmt.Sprint(i+1):
				t.Errorf("event %d has the number %s", i+1, number)
			}
		}
		if e != unnumbered && len(mine)-other == 0 { // those without one are the other webhook's
			t.Errorf("event %d: numbers %q", i+1, mine)
		}
	}
	nodes[1].change(w, func(domain.Webhook) ([]domain.Change, error) {
		return []domain.Change{domain.WebhookChanged{Sequence: &on}}, nil
	})
	again := nodes[0].trigger()
	nodes[0].awaitEmptyQueue()
	nodes[0].retry(domain.DeliveryOf(again, w), again, w, 123)
	nodes[0].awaitEmptyQueue()
	mu.Lock()
	defer mu.Unlock()
	if numbers := slices.DeleteFunc(sent[again.String()], func(s string) bool { return s == "" }); len(numbers) < 2 || slices.Max(numbers) != "1" {
		t.Errorf("switched on again, the numbers are %q", numbers)
	}
}

// inOrder returns the events in the order of the log.
func inOrder(t *testing.T, n *node) (ids []domain.EventID) {
	t.Helper()
	err := n.log.Each(t.Context(), 0, eventstore.Filter{Type: domain.EventTriggered{}.ChangeType()}, func(e eventstore.Event) error {
		_, id, err := domain.ParseStream(e.Stream)
		ids = append(ids, domain.EventID(id))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// orderChecker is a receiver that fails at random and checks what it sees.
type orderChecker struct {
	t *testing.T

	mu     sync.Mutex
	random *rand.Rand
	under  map[string]string           // by webhook and key: the delivery that is being called
	order  map[string][]string         // by webhook and key: the deliveries in the order of their last calls
	done   map[string]bool             // deliveries that succeeded
	conns  map[net.Conn]http.ConnState // of the node that is killed
	closed *sync.Cond
	calls  int
	enough int
	many   chan struct{} // closed after enough calls
}

// call takes a call of a delivery; the answer is a status.
func (o *orderChecker) call(webhook, delivery string, body []byte) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	key := webhook + string(body[bytes.Index(body, []byte(`"patient_id"`)):bytes.Index(body, []byte(`},"webhook_id"`))])
	if with := o.under[key]; with != "" && with != delivery {
		o.t.Errorf("%s: %s is called while %s is", key, delivery, with)
	}
	o.under[key] = delivery
	o.mu.Unlock()
	runtime.Gosched() // others may call meanwhile
	o.mu.Lock()
	delete(o.under, key)
	if line := o.order[key]; len(line) == 0 || line[len(line)-1] != delivery {
		o.order[key] = append(line, delivery)
	}
	if o.calls++; o.calls == o.enough {
		close(o.many)
	}
	if o.random.IntN(10) == 0 {
		return http.StatusInternalServerError
	}
	o.done[delivery] = true
	return http.StatusOK
}

// Send implements commands.Sender.
func (o *orderChecker) Send(_ context.Context, call commands.Outgoing) commands.Answer {
	status := o.call(headerOf(call, "X-Webhook-ID"), headerOf(call, "X-Webhook-Delivery-ID"), call.Body)
	return answerOf(status)
}

func answerOf(status int) commands.Answer {
	if status == http.StatusOK {
		return commands.Answer{Outcome: domain.OutcomeSuccess, Status: status}
	}
	return commands.Answer{Outcome: "http_status", Status: status}
}

// ServeHTTP takes the calls of the node that is killed.
func (o *orderChecker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body bytes.Buffer
	if _, err := body.ReadFrom(r.Body); err != nil {
		return // it was killed in the middle
	}
	w.WriteHeader(o.call(r.Header.Get("X-Webhook-ID"), r.Header.Get("X-Webhook-Delivery-ID"), body.Bytes()))
}

// awaitClosed waits until all connections of the killed node are read to their ends.
func (o *orderChecker) awaitClosed() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.conns) > 0 {
		o.closed.Wait()
	}
}

func (o *orderChecker) connState(c net.Conn, state http.ConnState) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.conns[c] = state; state == http.StateClosed {
		delete(o.conns, c)
	}
	o.closed.Broadcast()
}

// httpSender makes calls over the network.
type httpSender struct{ url string }

func (s httpSender) Send(ctx context.Context, call commands.Outgoing) commands.Answer {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(call.Body))
	if err != nil {
		return commands.Answer{Outcome: "connect", Error: err.Error()}
	}
	for _, h := range call.Header {
		r.Header.Set(h.Name, h.Value)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return commands.Answer{Outcome: "connect", Error: err.Error()}
	}
	resp.Body.Close()
	return answerOf(resp.StatusCode)
}

const nodeDatabase, nodeReceiver = "SAGA_TEST_DATABASE", "SAGA_TEST_RECEIVER"

// TestOrderNode is the node that TestOrderOverNodes kills.
func TestOrderNode(t *testing.T) {
	url := os.Getenv(nodeDatabase)
	if url == "" {
		t.Skip("it is a process of another test")
	}
	start(t, url, httpSender{os.Getenv(nodeReceiver)}, func(_ *node, c *saga.Config) { c.Name = nodeDatabase })
	select {}
}

// Many keys, random failures, and three nodes, of which one is killed: no key is out of
// order, whether what gives up is skipped, holds up its key, or is tried again.
func TestOrderOverNodes(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	url := testdb.New(t)
	o := &orderChecker{
		t: t, random: rand.New(rand.NewPCG(seed, 0)), under: map[string]string{}, order: map[string][]string{}, done: map[string]bool{},
		conns: map[net.Conn]http.ConnState{}, enough: 1500, many: make(chan struct{}),
	}
	o.closed = sync.NewCond(&o.mu)
	nodes := []*node{start(t, url, o), start(t, url, o)}
	server := httptest.NewUnstartedServer(o)
	server.Config.ConnState = o.connState
	server.Start()
	defer server.Close()
	doomed := exec.Command(os.Args[0], "-test.run=^TestOrderNode$")
	doomed.Env = append(os.Environ(), nodeDatabase+"="+url, nodeReceiver+"="+server.URL)
	if err := doomed.Start(); err != nil {
		t.Fatal(err)
	}
	nodes[0].await(`SELECT EXISTS (SELECT FROM medilab.nodes WHERE name = $1)`, nodeDatabase)

	skips := nodes[0].register(1, func(c *domain.WebhookRegistered) { c.OrderBy, c.MaxRetries = "patient_id", 0 })
	blocks := nodes[0].register(2, blocking)
	retries := nodes[1].register(3, func(c *domain.WebhookRegistered) { c.OrderBy, c.MaxRetries = "patient_id", 10 })
	const keys, busy, events, together = 1000, 40, 2400, 10 // half of the events are of busy keys
	var group sync.WaitGroup
	for _, n := range nodes {
		for range 4 {
			random := rand.New(rand.NewPCG(seed, rand.Uint64()))
			group.Go(func() {
				for range events / 8 / together {
					patients := make([]int, together)
					for i := range patients {
						patients[i] = random.IntN([]int{busy, keys}[i%2])
					}
					n.triggerTogether(patients)
				}
			})
		}
	}
	<-o.many
	if err := doomed.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = doomed.Wait() // it was killed
	o.awaitClosed()
	if _, err := nodes[0].pool.Exec(t.Context(), `UPDATE medilab.nodes SET lease_until = '-infinity' WHERE name = $1`, nodeDatabase); err != nil {
		t.Fatal(err)
	}
	group.Wait()

	log := inOrder(t, nodes[0])
	for left := 1; left > 0; { // somebody cares for what is blocked
		for _, id := range nodes[1].blocked() {
			nodes[1].cancel(id)
		}
		if err := nodes[0].pool.QueryRow(t.Context(), `SELECT count(*) FROM medilab.queue`).Scan(&left); err != nil {
			t.Fatal(err)
		}
	}
	nodes[0].verify()
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, w := range []domain.WebhookID{skips, blocks, retries} {
		turn := map[string]int{}
		for i, e := range log {
			id := domain.DeliveryOf(e, w).String()
			turn[id] = i
			if w == retries && !o.done[id] {
				t.Errorf("delivery %s did not succeed", id)
			}
		}
		for key, line := range o.order {
			if _, mine := turn[line[0]]; mine && !slices.IsSortedFunc(line, func(a, b string) int { return turn[a] - turn[b] }) {
				t.Errorf("%s is out of order: %v", key, line)
			}
		}
	}
}

// await waits until the query returns true.
func (n *node) await(sql string, args ...any) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), time.Minute)
	defer cancel()
	for done := false; !done; {
		if err := n.pool.QueryRow(ctx, sql, args...).Scan(&done); err != nil {
			n.t.Fatal(err)
		}
	}
}
