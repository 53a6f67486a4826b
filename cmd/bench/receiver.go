package main

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/medilab/webhooks/eventstore"
)

// The header that names an event, in net/http's spelling.
const eventIDHeader = "X-Webhook-Event-Id"

// target is one webhook's URL and what arrived there.
type target struct {
	url   string
	delay time.Duration   // before the answer
	hold  <-chan struct{} // no answer before it is closed; nil: none
	timed bool            // the body says when it was triggered

	arrivals atomic.Int64

	mu      sync.Mutex
	seen    map[string]int
	latency []time.Duration
}

// target adds a target to the receiver. Each run of a scenario has its own, so that a late call
// of one never counts for another.
func (b *bench) target() *target {
	t := &target{seen: make(map[string]int)}
	t.url = b.receiver.Handle(t.answer)
	return t
}

func (t *target) answer(_ http.ResponseWriter, r *http.Request, body []byte) {
	id := r.Header.Get(eventIDHeader)
	t.mu.Lock()
	if t.timed {
		if sent, ok := sentAt(body); ok {
			t.latency = append(t.latency, now()-sent)
		}
	}
	t.seen[id]++
	t.mu.Unlock()
	t.arrivals.Add(1)
	if t.delay > 0 && eventstore.Sleep(r.Context(), t.delay) != nil {
		return // nobody waits for the answer
	}
	if t.hold != nil {
		select {
		case <-t.hold:
		case <-r.Context().Done():
		}
	}
}

// reset forgets what arrived.
func (t *target) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.seen)
	t.arrivals.Store(0)
}

// check compares what was acknowledged with what arrived: each once, and
// nothing else.
func (t *target) check(acked []string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var lost, repeated int
	for _, id := range acked {
		switch n := t.seen[id]; {
		case n == 0:
			lost++
		case n > 1:
			repeated++
		}
	}
	extra := int(t.arrivals.Load()) - len(acked)
	if lost > 0 || repeated > 0 || extra != 0 {
		return fmt.Errorf("%s: of %d acknowledged events %d never arrived and %d arrived more than once; %+d calls", t.url, len(acked), lost, repeated, extra)
	}
	return nil
}

func (t *target) percentiles(ps ...float64) []time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	slices.Sort(t.latency)
	out := make([]time.Duration, len(ps))
	for i, p := range ps {
		if n := len(t.latency); n > 0 {
			out[i] = t.latency[min(n-1, int(p*float64(n)))]
		}
	}
	return out
}

var started = time.Now()

// now is monotonic and the same for producer and receiver, which share this
// process.
func now() time.Duration { return time.Since(started) }

const sentKey = `"sent":"`

// sentAt finds when the event was triggered, which its data says.
func sentAt(body []byte) (time.Duration, bool) {
	i := bytes.Index(body, []byte(sentKey))
	if i < 0 {
		return 0, false
	}
	digits, _, ok := bytes.Cut(body[i+len(sentKey):], []byte{'"'})
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(string(digits), 10, 64)
	return time.Duration(n), err == nil
}
