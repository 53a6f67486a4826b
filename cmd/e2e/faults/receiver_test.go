package faults

import (
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/medilab/webhooks/cmd/testbed"
)

// receipt is one call that arrived: R of the ledger is all of them.
type receipt struct {
	webhook, delivery, event string
	attempt                  int
	at                       time.Time
	body                     int // bytes
	status                   int // what was answered; 0: nothing (yet)
}

// behaviour is how a target answers a call that it has read whole.
type behaviour func(w http.ResponseWriter, r *http.Request, got receipt)

// receivers are all outside systems of a run, each with a path of its own. They
// outlive every process of the product.
type receivers struct {
	server *testbed.Receiver

	mu       sync.Mutex
	receipts []*receipt
	answers  map[string]behaviour
	open     map[string]int // calls under way, by target
	most     map[string]int // the most of them at once
}

func newReceivers(t testing.TB) *receivers {
	t.Helper()
	server, err := testbed.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return &receivers{server: server, answers: map[string]behaviour{}, open: map[string]int{}, most: map[string]int{}}
}

// target adds an outside system and returns its URL. nil answers 200.
func (in *receivers) target(name string, answer behaviour) string {
	in.behave(name, answer)
	return in.server.Handle(func(w http.ResponseWriter, r *http.Request, body []byte) { in.receive(name, w, r, len(body)) })
}

// behave changes how a target answers from now on.
func (in *receivers) behave(name string, answer behaviour) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.answers[name] = answer
}

// receive remembers the call as soon as it has arrived whole.
func (in *receivers) receive(name string, w http.ResponseWriter, r *http.Request, body int) {
	attempt, err := strconv.Atoi(r.Header.Get("X-Webhook-Attempt"))
	if err != nil {
		attempt = -1 // the ledger shows it: no call has that number
	}
	got := &receipt{
		webhook: r.Header.Get("X-Webhook-Id"), delivery: r.Header.Get("X-Webhook-Delivery-Id"),
		event: r.Header.Get("X-Webhook-Event-Id"), attempt: attempt, at: time.Now(), body: body,
	}
	in.mu.Lock()
	in.receipts = append(in.receipts, got)
	answer := in.answers[name]
	in.open[name]++
	in.most[name] = max(in.most[name], in.open[name])
	in.mu.Unlock()
	spy := &statusSpy{ResponseWriter: w}
	defer func() {
		in.mu.Lock()
		defer in.mu.Unlock()
		in.open[name]--
		got.status = spy.status
	}()
	if answer != nil {
		answer(spy, r, *got)
	}
	if spy.status == 0 && r.Context().Err() == nil && !spy.taken {
		spy.WriteHeader(http.StatusOK)
	}
}

func (in *receivers) all() []receipt { return in.since(0) }

// since is what arrived after so many calls.
func (in *receivers) since(seen int) []receipt {
	in.mu.Lock()
	defer in.mu.Unlock()
	all := make([]receipt, 0, len(in.receipts)-seen)
	for _, r := range in.receipts[seen:] {
		all = append(all, *r)
	}
	return all
}

// callsSeen is how many calls have arrived.
func (in *receivers) callsSeen() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.receipts)
}

// underWay is how many calls of a target are open now, and were at once at most.
func (in *receivers) underWay(name string) (now, most int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.open[name], in.most[name]
}

// statusSpy knows what was answered.
type statusSpy struct {
	http.ResponseWriter
	status int
	taken  bool // the connection is not HTTP's any more
}

func (s *statusSpy) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
}

func (s *statusSpy) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// hang answers nothing, for as long as the caller waits.
func hang(_ http.ResponseWriter, r *http.Request, _ receipt) { <-r.Context().Done() }

// after answers 200 when the time has passed.
func after(d time.Duration) behaviour {
	return func(_ http.ResponseWriter, r *http.Request, _ receipt) {
		select {
		case <-time.After(d):
		case <-r.Context().Done():
		}
	}
}

// gate holds calls while it is closed.
type gate struct {
	mu     sync.Mutex
	closed chan struct{} // nil, or closed when the gate opens
}

// close holds the calls from now on, until open is called.
func (g *gate) close() (open func()) {
	held := make(chan struct{})
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = held
	return func() { close(held) }
}

func (g *gate) answer(_ http.ResponseWriter, r *http.Request, _ receipt) {
	g.mu.Lock()
	held := g.closed
	g.mu.Unlock()
	if held == nil {
		return
	}
	select {
	case <-held:
	case <-r.Context().Done():
	}
}

// flaky fails the first and second attempt of one delivery in five.
func flaky(w http.ResponseWriter, _ *http.Request, got receipt) {
	if got.attempt <= 2 && strings.ContainsAny(got.delivery[35:], "37b") {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

// reset breaks the connection instead of answering.
func reset(w http.ResponseWriter, _ *http.Request, _ receipt) {
	spy := w.(*statusSpy)
	spy.taken = true
	conn, _, err := http.NewResponseController(spy.ResponseWriter).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0) //nolint:errcheck // then it closes without a reset
	}
	conn.Close() //nolint:errcheck // that is the fault
}
