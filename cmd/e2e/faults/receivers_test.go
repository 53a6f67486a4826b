package faults

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// What the healthy receiver gets, and what the bad ones get, so that either can be
// triggered without the other.
const (
	healthyType = "visit.completed"
	badType     = "patient.created"
)

func getsType(wanted string) func(string, int) bool {
	return func(eventType string, _ int) bool { return eventType == wanted }
}

// A healthy receiver beside hanging, slow, resetting, flapping and dead ones, one
// of which has a great backlog: it is served as if it were alone.
func TestBadReceivers(t *testing.T) {
	inCampaign(t)
	h := newHome(t, sharedCluster(t).database(t))
	l := newLedger(t, h)
	n := h.node("node").start()
	healthy := l.subscribe(n, "healthy", nil, map[string]any{"events": []string{healthyType}}, getsType(healthyType))
	short := map[string]any{"events": []string{badType}, "timeout": 2, "max_retries": 1}
	bad := []*hook{
		l.subscribe(n, "hanging", hang, short, getsType(badType)),
		l.subscribe(n, "slow", after(time.Second), short, getsType(badType)),
		l.subscribe(n, "resetting", reset, short, getsType(badType)),
		l.subscribe(n, "flapping", flapping(), short, getsType(badType)),
		l.subscribe(n, "dead", hang, map[string]any{"events": []string{"user.created"}, "timeout": 2}, nothing),
	}
	dead := bad[len(bad)-1]
	dead.waits = true
	const backlog = 100_000
	l.flood(n, "user.created", backlog)

	bearing := func(path string) {
		for _, b := range bad {
			n.api(http.StatusOK, "POST", "/webhooks/"+b.ID+path, nil, nil)
		}
	}
	// The bad ones get enough to be at their worst all the time, and not so much that
	// the machine is what is measured.
	const rate, badRate = 60, 5
	window := scaled(2*time.Second, 10*time.Second)
	alone := func() time.Duration {
		bearing("/deactivate")
		for _, b := range bad {
			until(t, b.name+" is left alone", func() bool { now, _ := l.underWay(b.name); return now == 0 })
		}
		return l.p95(healthy, window, rate, []string{healthyType}, n)
	}
	beside := func() time.Duration {
		bearing("/activate")
		stop := l.loadOf(badRate, []string{badType}, n)
		defer stop()
		for _, name := range []string{"hanging", "slow", "dead"} {
			until(t, name+" is being called", func() bool { now, _ := l.underWay(name); return now > 0 })
		}
		return l.p95(healthy, window, rate, []string{healthyType}, n)
	}
	inTurns(t, "p95 of the healthy receiver alone, and beside five bad ones and 100,000 waiting", alone, beside)
	if waiting := l.waitingFor(dead); waiting < backlog*9/10 {
		t.Errorf("only %d were waiting for the dead receiver in the end", waiting)
	}
	l.behave("hanging", nil) // or its own deliveries fail one by one, each after its timeouts
	bearing("/activate")
	n.api(http.StatusOK, "POST", "/webhooks/"+dead.ID+"/deactivate", nil, nil)
	until(t, "the dead one's last calls have ended", func() bool { now, _ := l.underWay(dead.name); return now == 0 })
	l.balance(n)
	l.verified()
}

// A receiver that comes back with a backlog gets it step by step: no more calls at
// once than it has shown that it can take.
func TestReceiverReturns(t *testing.T) {
	inCampaign(t)
	h := newHome(t, sharedCluster(t).database(t))
	l := newLedger(t, h)
	n := h.node("node").start()
	back := l.subscribe(n, "back", hang, map[string]any{"timeout": 1, "max_retries": 10}, everything)
	backlog := scaled(10_000, 100_000)
	l.preload(n, "user.created", backlog)
	until(t, "the receiver is known to be dead", func() bool {
		now, most := l.underWay("back")
		return most >= firstWindow && l.callsSeen() > firstWindow && now <= leastWindow
	})
	if waiting := l.waitingFor(back); waiting < backlog*9/10 {
		t.Fatalf("only %d are waiting", waiting)
	}

	var done, open, beyond, most atomic.Int64
	l.behave("back", func(http.ResponseWriter, *http.Request, receipt) {
		// Calls of before, which nobody answers, count as open until their time is out.
		now := open.Add(1)
		if now > leastWindow+done.Load() {
			beyond.Add(1)
		}
		for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
		}
		time.Sleep(2 * time.Millisecond)
		open.Add(-1)
		done.Add(1)
	})
	began := time.Now()
	l.balance(n)
	t.Logf("%d deliveries to the receiver that came back took %v, at most %d calls at once",
		backlog, time.Since(began).Round(time.Millisecond), most.Load())
	if beyond.Load() > 0 {
		t.Errorf("%d calls came before the receiver had shown that it could take them", beyond.Load())
	}
	if most.Load() <= leastWindow {
		t.Errorf("never more than %d calls came at once: the load did not rise", most.Load())
	}
	l.verified()
}

// How many calls at once a receiver gets from a node at first, and when it is in
// trouble.
const firstWindow, leastWindow = 8, 4

// flapping fails the first attempt of every second call.
func flapping() behaviour {
	var calls atomic.Int64
	return func(w http.ResponseWriter, _ *http.Request, got receipt) {
		if calls.Add(1)%2 == 0 && got.attempt == 1 {
			w.WriteHeader(http.StatusBadGateway)
		}
	}
}
