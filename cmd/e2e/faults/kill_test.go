package faults

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/medilab/webhooks/eventstore/failpoint"
	"github.com/medilab/webhooks/migrations/postgres"
)

// embeddedURL is where the embedded Postgres of a process that runs is.
func (h *home) embeddedURL() string {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	server, err := postgres.Attach(ctx, h.dir)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if err := server.Stop(context.Background()); err != nil { // it only lets go
			h.t.Error(err)
		}
	})
	return server.URL()
}

// kill -9 every few seconds under load, on the embedded Postgres, which dies with
// its process and starts again with it.
func TestKillEveryFewSeconds(t *testing.T) {
	random := inCampaign(t)
	h := newHome(t, "")
	l := newLedger(t, h)
	n := h.node("node").start()
	l.usual(n)
	stop := l.load(300, n)
	for range scaled(4, 40) {
		pass(t, between(random, 500*time.Millisecond, 4*time.Second))
		n.Kill()
		n.start()
	}
	pass(t, time.Second)
	stop()
	l.balance(n)
	l.verified()
}

// kill -9 at the points where it tells most. A second node on the same Postgres
// takes over what the dead one had.
func TestKillAtPoint(t *testing.T) {
	points := map[failpoint.Point]string{
		failpoint.AfterCommit: "40", failpoint.AfterClaim: "3", failpoint.BeforeCall: "200", failpoint.AfterCall: "200",
		failpoint.InPage: "10",
	}
	for point, count := range points {
		t.Run(string(point), func(t *testing.T) {
			inCampaign(t)
			t.Parallel()
			h := newHome(t, sharedCluster(t).database(t))
			l := newLedger(t, h)
			doomed := h.node("doomed", failpoint.Variable+"="+string(point)+":kill:"+count)
			doomed.Program = faulty(t)
			doomed.start()
			l.usual(doomed)
			stop := l.load(150, doomed)
			select {
			case <-doomed.Done():
			case <-time.After(patience):
				t.Fatal("the process passed the point too seldom")
			}
			other := h.node("other").start()
			doomed.Addr = other.Addr // callers go where somebody answers
			pass(t, time.Second)
			stop()
			l.balance(other)
		})
	}
}

// kill -9 while receivers have the call and have not answered.
func TestKillInTheCall(t *testing.T) {
	inCampaign(t)
	t.Parallel()
	h := newHome(t, sharedCluster(t).database(t))
	l := newLedger(t, h)
	doomed, other := h.node("doomed").start(), h.node("other")
	const first = 8 // calls that a receiver gets that has not answered any
	arrived, killed := make(chan struct{}), make(chan struct{})
	var held sync.Map // by delivery
	var calls atomic.Int64
	l.subscribe(doomed, "held", func(w http.ResponseWriter, r *http.Request, got receipt) {
		select {
		case <-killed:
			return
		default:
		}
		held.Store(got.delivery, true)
		if calls.Add(1) == first {
			close(arrived)
		}
		hang(w, r, got)
	}, nil, everything)
	stop := l.load(100, doomed)
	<-arrived
	stop()
	doomed.Kill()
	close(killed)
	b := l.balance(other.start())
	for id, d := range b.deliveries {
		// What waited for its turn in the node that died may count as begun.
		if _, held := held.Load(id); d.state.State != "delivered" || held && d.succeeded == 1 {
			t.Errorf("delivery %s is %s at attempt %d", id, d.state.State, d.succeeded)
		}
	}
	l.verified()
}
