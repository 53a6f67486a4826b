package harness

import (
	"bytes"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/medilab/webhooks/cmd/testbed"
)

// Call is one call that arrived.
type Call struct {
	Header http.Header
	Body   []byte
}

// Delivery returns the id of the call's delivery.
func (c Call) Delivery() string { return c.Header.Get("X-Webhook-Delivery-Id") }

// Attempt returns the number of the attempt.
func (c Call) Attempt() string { return c.Header.Get("X-Webhook-Attempt") }

// Receiver is an outside system that keeps what arrives.
type Receiver struct {
	URL string
	t   testing.TB

	mu      sync.Mutex
	calls   []Call
	arrived chan struct{} // holds a token when something arrived
}

// Receive starts a receiver that ends with the test. answer answers a call; nil answers 200.
func Receive(t testing.TB, answer func(w http.ResponseWriter, c Call)) *Receiver {
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
	in := &Receiver{t: t, arrived: make(chan struct{}, 1)}
	in.URL = server.Handle(func(w http.ResponseWriter, r *http.Request, body []byte) {
		call := Call{r.Header, bytes.Clone(body)}
		in.mu.Lock()
		in.calls = append(in.calls, call)
		in.mu.Unlock()
		select {
		case in.arrived <- struct{}{}:
		default:
		}
		if answer != nil {
			answer(w, call)
		}
	})
	return in
}

// All returns all calls so far, in the order of their arrival.
func (in *Receiver) All() []Call {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.calls)
}

// Await waits until n calls have arrived and returns all.
func (in *Receiver) Await(n int) []Call {
	in.t.Helper()
	deadline := time.After(Patience)
	for {
		if all := in.All(); len(all) >= n {
			return all
		}
		select {
		case <-in.arrived:
		case <-deadline:
			in.t.Fatalf("%d calls arrived, want %d", len(in.All()), n)
		}
	}
}
