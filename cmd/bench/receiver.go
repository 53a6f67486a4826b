package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// The header that names an event, in net/http's spelling.
const eventIDHeader = "X-Webhook-Event-Id"

// receiver is the one process-wide receiver; each run of a scenario gets targets
// of its own, so that a late call of one never counts for another.
type receiver struct {
	server *http.Server
	base   string
	next   atomic.Int64
	byPath sync.Map // path -> *target
}

func startReceiver() (*receiver, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &receiver{base: "http://" + l.Addr().String()}
	r.server = &http.Server{Handler: r}
	go func() {
		if err := r.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			panic(fmt.Sprintf("the receiver broke: %v", err)) // nothing measured after this means anything
		}
	}()
	return r, nil
}

// target is one webhook's URL and what arrived there.
type target struct {
	url   string
	delay time.Duration   // before the answer
	hold  <-chan struct{} // no answer before it is closed; nil: none
	timed bool            // the body says when it was triggered

	arrivals atomic.Int64
	shards   [64]struct {
		sync.Mutex
		seen map[string]int
	}

	mu      sync.Mutex
	latency []time.Duration
}

func (r *receiver) newTarget(change func(*target)) *target {
	path := "/t/" + strconv.FormatInt(r.next.Add(1), 10)
	t := &target{url: r.base + path}
	for i := range t.shards {
		t.shards[i].seen = make(map[string]int)
	}
	if change != nil {
		change(t)
	}
	r.byPath.Store(path, t)
	return t
}

func (r *receiver) forget(t *target) { r.byPath.Delete(t.url[len(r.base):]) }

var scratch = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// ServeHTTP counts the call for its target.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	found, ok := r.byPath.Load(req.URL.Path)
	if !ok {
		w.WriteHeader(http.StatusGone) // a run that is over
		return
	}
	t := found.(*target)
	buf := scratch.Get().(*bytes.Buffer)
	defer scratch.Put(buf)
	buf.Reset()
	if _, err := io.Copy(buf, req.Body); err != nil {
		return
	}
	t.arrived(req.Header.Get(eventIDHeader), buf.Bytes())
	if t.delay > 0 {
		wait(req.Context(), t.delay)
	}
	if t.hold != nil {
		select {
		case <-t.hold:
		case <-req.Context().Done():
		}
	}
}

func (t *target) arrived(id string, body []byte) {
	if t.timed {
		if sent, ok := sentAt(body); ok {
			t.mu.Lock()
			t.latency = append(t.latency, now()-sent)
			t.mu.Unlock()
		}
	}
	shard := &t.shards[shardOf(id)]
	shard.Lock()
	shard.seen[id]++
	shard.Unlock()
	t.arrivals.Add(1)
}

func shardOf(id string) int {
	if len(id) < 2 {
		return 0
	}
	return (int(id[len(id)-1]) + 7*int(id[len(id)-2])) % 64
}

// check compares what was acknowledged with what arrived: each once, and
// nothing else.
func (t *target) check(acked []string) error {
	var lost, repeated int
	for _, id := range acked {
		shard := &t.shards[shardOf(id)]
		shard.Lock()
		n := shard.seen[id]
		shard.Unlock()
		switch {
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

// wait is a sleep that ends with ctx.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
