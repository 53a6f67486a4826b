package e2e

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// receipt is one call that arrived.
type receipt struct {
	header http.Header
	body   []byte
}

func (r receipt) delivery() string { return r.header.Get("X-Webhook-Delivery-Id") }
func (r receipt) attempt() string  { return r.header.Get("X-Webhook-Attempt") }

// receiver is an outside system. answer decides what it says; nil is 200.
type receiver struct {
	*httptest.Server
	t      testing.TB
	answer func(w http.ResponseWriter, r receipt)

	mu       sync.Mutex
	receipts []receipt
	arrived  chan struct{} // holds a token when something arrived
}

func receive(t testing.TB, answer func(w http.ResponseWriter, r receipt)) *receiver {
	in := &receiver{t: t, answer: answer, arrived: make(chan struct{}, 1)}
	in.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the caller was killed while it sent
		}
		got := receipt{r.Header.Clone(), body}
		in.mu.Lock()
		in.receipts = append(in.receipts, got)
		in.mu.Unlock()
		select {
		case in.arrived <- struct{}{}:
		default:
		}
		if in.answer != nil {
			in.answer(w, got)
		}
	}))
	t.Cleanup(in.Close)
	return in
}

func (in *receiver) all() []receipt {
	in.mu.Lock()
	defer in.mu.Unlock()
	return append([]receipt(nil), in.receipts...)
}

// await waits until n calls have arrived and gives them all.
func (in *receiver) await(n int) []receipt {
	in.t.Helper()
	deadline := time.After(patience)
	for {
		if all := in.all(); len(all) >= n {
			return all
		}
		select {
		case <-in.arrived:
		case <-deadline:
			in.t.Fatalf("%d calls arrived, want %d", len(in.all()), n)
		}
	}
}
