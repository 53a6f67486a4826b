package saga_test

import (
	"bytes"
	"context"
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

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/commands/saga"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/migrations/testdb"
)

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
	t.Parallel()
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
		if err := nodes[0].pool.QueryRow(t.Context(), `SELECT count(*) FROM medilab.pending`).Scan(&left); err != nil {
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
	harness.Until(n.t, sql, func() (done bool) {
		if err := n.pool.QueryRow(n.t.Context(), sql, args...).Scan(&done); err != nil {
			n.t.Fatal(err)
		}
		return done
	})
}
