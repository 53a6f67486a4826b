package faults

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// slack is what a machine shared with others adds to a latency by itself.
const slack = 25 * time.Millisecond

// A healthy receiver beside hanging, slow, resetting, flapping and dead ones, one
// of which has a great backlog: it is served as if it were alone. The dead one
// gets its backlog step by step when it returns.
func TestBadReceivers(t *testing.T) {
	inCampaign(t)
	h := newHome(t, sharedCluster(t).database(t))
	l := newLedger(t, h)
	n := h.node("node").start()
	healthy := l.subscribe(n, "healthy", nil, nil, everything)
	window := scaled(6*time.Second, 30*time.Second)
	alone := l.p95(healthy, window, 60, n)

	short := map[string]any{"timeout": 2, "max_retries": 1}
	l.subscribe(n, "hanging", hang, short, everything)
	l.subscribe(n, "slow", after(time.Second), short, everything)
	l.subscribe(n, "resetting", reset, short, everything)
	var up atomic.Bool
	l.subscribe(n, "flapping", func(w http.ResponseWriter, _ *http.Request, got receipt) {
		if up.Swap(!up.Load()); got.attempt == 1 && up.Load() {
			w.WriteHeader(http.StatusBadGateway)
		}
	}, short, everything)
	only := map[string]any{"events": []string{"user.created"}, "timeout": 2}
	l.subscribe(n, "dead", hang, only, func(eventType string, _ int) bool { return eventType == "user.created" })
	backlog := scaled(10_000, 100_000)
	l.mu.Lock()
	for _, other := range l.hooks {
		if other.name != "dead" { // the backlog is the dead one's alone
			was := other.matches
			other.matches = func(eventType string, n int) bool { return eventType != "user.created" && was(eventType, n) }
		}
	}
	l.mu.Unlock()
	for _, other := range l.hooks {
		if other.name != "dead" {
			n.api(http.StatusOK, "PATCH", "/webhooks/"+other.ID, map[string]any{"events": eventTypes}, nil)
		}
	}
	l.preload(n, "user.created", backlog)
	pass(t, 5*time.Second) // the dead one's window shrinks
	beside := l.p95(healthy, window, 60, n)
	t.Logf("p95 of the healthy receiver: alone %v, beside five bad ones and %d waiting %v", alone, backlog, beside)
	if beside > alone*3/2+slack {
		t.Errorf("the healthy receiver's p95 went from %v to %v", alone, beside)
	}

	// The dead one returns.
	var done, open, beyond atomic.Int64
	const least, grace = 4, 8 // the smallest window, and calls of before that end now
	l.behave("dead", func(http.ResponseWriter, *http.Request, receipt) {
		if open.Add(1) > least+grace+done.Load() {
			beyond.Add(1)
		}
		time.Sleep(2 * time.Millisecond)
		open.Add(-1)
		done.Add(1)
	})
	l.behave("hanging", nil) // or its own deliveries fail one by one, each after its timeouts
	began := time.Now()
	l.balance(n)
	_, most := l.underWay("dead")
	t.Logf("%d deliveries to the receiver that came back took %v, at most %d calls at once", backlog, time.Since(began).Round(time.Millisecond), most)
	if beyond.Load() > 0 {
		t.Errorf("%d calls came before the receiver had shown that it could take them", beyond.Load())
	}
	l.verified()
}
