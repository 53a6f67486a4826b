package faults

import (
	"context"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
)

// SIGTERM under load with calls of two minutes in flight: what cannot end within
// the grace is handed over as interrupted, and the process ends well.
func TestTermWithLongCalls(t *testing.T) {
	inCampaign(t)
	t.Parallel()
	h := newHome(t, sharedCluster(t).database(t))
	l := newLedger(t, h)
	const grace = 3 * time.Second
	n, other := h.node("node", "MEDILAB_SHUTDOWN_TIMEOUT="+grace.String()).start(), h.node("other")
	l.subscribe(n, "quick", nil, nil, everything)
	var handedOver atomic.Bool
	l.subscribe(n, "long", func(w http.ResponseWriter, r *http.Request, got receipt) {
		if !handedOver.Load() {
			after(2*time.Minute)(w, r, got)
		}
	}, map[string]any{"timeout": 300}, everything)
	stop := l.load(100, n)
	until(t, "many calls are under way", func() bool { now, _ := l.underWay("long"); return now >= firstWindow })
	began := time.Now()
	code := n.Term()
	took := time.Since(began)
	handedOver.Store(true)
	other.start()
	n.Addr = other.Addr
	stop()
	if code != 0 {
		t.Errorf("the process ended with %d", code)
	}
	const winding = 10 * time.Second // requests, records, the log
	if took > grace+winding {
		t.Errorf("the process took %v to end", took)
	}
	b := l.balance(other)
	interrupted := 0
	for id, d := range b.deliveries {
		if interrupted += d.interrupted; d.state.State != domain.DeliveryDelivered {
			t.Errorf("delivery %s is %s", id, d.state.State)
		}
	}
	if interrupted == 0 {
		t.Error("no call was handed over as interrupted")
	}
	t.Logf("ended after %v with a grace of %v; %d calls were interrupted", took.Round(time.Millisecond), grace, interrupted)
	l.verified()
}

// Two nodes are restarted one after the other under load: a caller who retries
// once, with the other node, never sees an error.
func TestRollingRestart(t *testing.T) {
	inCampaign(t)
	t.Parallel()
	h := newHome(t, sharedCluster(t).database(t))
	l := newLedger(t, h)
	nodes := []*node{h.node("a").start(), h.node("b").start()}
	l.usual(nodes[0])
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	var failed, retried atomic.Int64
	for range 8 {
		group.Go(func() {
			for ctx.Err() == nil {
				id := uuid.Must(uuid.NewV7()).String()
				e := accepted{eventTypes[rand.IntN(len(eventTypes))], rand.IntN(1000), time.Now()}
				body := []byte(`{"event_type":"` + e.eventType + `","event_id":"` + id + `","event_data":{"amount":` + itoa(e.n) + `}}`)
				first := rand.IntN(2)
				if l.offer(nodes[first], id, e, body) {
					continue
				}
				if retried.Add(1); !l.offer(nodes[1-first], id, e, body) {
					failed.Add(1)
				}
			}
		})
	}
	for _, n := range nodes {
		pass(t, time.Second)
		if code := n.Term(); code != 0 {
			t.Errorf("%s ended with %d", n.Label, code)
		}
		n.start()
	}
	pass(t, time.Second)
	cancel()
	group.Wait()
	t.Logf("%d callers retried, %d of them in vain", retried.Load(), failed.Load())
	if failed.Load() > 0 {
		t.Errorf("%d callers saw an error twice", failed.Load())
	}
	l.balance(nodes[0])
	l.verified()
}
