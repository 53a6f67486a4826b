package faults

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// With very many deliveries waiting, claims, ingest, memory and start are as with
// none.
func TestBacklog(t *testing.T) {
	inCampaign(t)
	h := newHome(t, sharedCluster(t).database(t))
	l := newLedger(t, h)
	n := h.node("node").start()
	only := map[string]any{"events": eventTypes}
	healthy := l.subscribe(n, "healthy", nil, only, everything)
	l.subscribe(n, "flaky", flaky, only, everything) // its retries are claimed from the table
	window := scaled(6*time.Second, 30*time.Second)
	start := restart(n)
	before := l.p95(healthy, window, 100, n)
	memory := n.rss()

	const fan = 100
	waiting := scaled(100_000, 1_000_000)
	var parked []*hook
	for i := range fan {
		made := l.subscribe(n, fmt.Sprint("waiting-", i), later, map[string]any{"events": []string{"user.updated"}}, nothing)
		made.waits = true
		parked = append(parked, made)
	}
	for done := 0; done < waiting/fan; done += 500 {
		var events []map[string]any
		for range min(500, waiting/fan-done) {
			events = append(events, map[string]any{"event_type": "user.updated", "event_data": map[string]any{}})
		}
		n.insist("/webhooks/events/trigger/batch", map[string]any{"events": events}, nil)
	}
	for _, h := range parked {
		n.api(http.StatusOK, "POST", "/webhooks/"+h.ID+"/deactivate", nil, nil)
	}
	var rows int
	if err := l.db.QueryRow(t.Context(), `SELECT count(*) FROM medilab.queue`).Scan(&rows); err != nil {
		t.Fatal(err)
	}
	until(t, "the read models have all of it", func() bool {
		var behind bool
		err := l.db.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM medilab.readers, medilab.log_head WHERE readers.position < log_head.position)`).Scan(&behind)
		return err == nil && !behind
	})

	startWith := restart(n)
	with := l.p95(healthy, window, 100, n)
	memoryWith := n.rss()
	t.Logf("with %d deliveries waiting: p95 %v (none: %v), start %v (%v), memory %d MB (%d MB)",
		rows, with, before, startWith, start, memoryWith>>20, memory>>20)
	if with > before*3/2+slack {
		t.Errorf("p95 went from %v to %v", before, with)
	}
	if startWith > 2*start+time.Second {
		t.Errorf("the start went from %v to %v", start, startWith)
	}
	if memoryWith > memory+128<<20 {
		t.Errorf("memory went from %d to %d MB", memory>>20, memoryWith>>20)
	}
	l.balance(n)
	l.verified()
}

func nothing(string, int) bool { return false }

// later asks to be left alone for an hour.
func later(w http.ResponseWriter, _ *http.Request, _ receipt) {
	w.Header().Set("Retry-After", "3600")
	w.WriteHeader(http.StatusServiceUnavailable)
}

// restart ends the process well, and gives the time it takes to be ready again.
func restart(n *node) time.Duration {
	n.t.Helper()
	if code := n.term(); code != 0 {
		n.t.Errorf("%s ended with %d", n.name, code)
	}
	began := time.Now()
	n.start()
	return time.Since(began)
}

// A transaction of somebody else that idles, and one that writes slowly, change
// nothing: neither in this database nor in another of the cluster.
func TestForeignTransactions(t *testing.T) {
	inCampaign(t)
	c := sharedCluster(t)
	h := newHome(t, c.database(t))
	l := newLedger(t, h)
	// With the calls on another node, every delivery is claimed from the table.
	n := h.node("api", "MEDILAB_ROLES=api").start()
	h.node("worker", "MEDILAB_ROLES=saga,worker,projections").start()
	healthy := l.subscribe(n, "healthy", nil, nil, everything)
	l.subscribe(n, "flaky", flaky, nil, everything)
	window := scaled(9*time.Second, time.Minute)
	before := l.p95(healthy, window, 300, n)

	for i, url := range []string{h.url, c.url(t, "postgres")} {
		pool := connect(t, url)
		idle, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer idle.Rollback(t.Context()) //nolint:errcheck // it was never more than a nuisance
		if _, err := idle.Exec(t.Context(), fmt.Sprintf(`CREATE TABLE public.foreign_%d AS SELECT pg_current_xact_id()`, i)); err != nil {
			t.Fatal(err)
		}
		slow, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer slow.Rollback(t.Context()) //nolint:errcheck // as above
		if _, err := slow.Exec(t.Context(), `SET TRANSACTION ISOLATION LEVEL REPEATABLE READ`); err != nil {
			t.Fatal(err)
		}
		if _, err := slow.Exec(t.Context(), `SELECT count(*) FROM pg_class`); err != nil {
			t.Fatal(err)
		}
	}
	with := l.p95(healthy, window, 300, n)
	t.Logf("p95 %v, with four foreign transactions open for %v %v", before, window, with)
	if with > before*3/2+slack {
		t.Errorf("p95 went from %v to %v", before, with)
	}
	l.balance(n) // the read models follow too
	l.verified()
}
