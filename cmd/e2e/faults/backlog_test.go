package faults

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// With very many deliveries waiting, claims, ingest, memory and start are as with
// none: as in another database of the same server, with another node.
func TestBacklog(t *testing.T) {
	inCampaign(t)
	c := sharedCluster(t)
	with, without := newBacklogRun(t, c, "with"), newBacklogRun(t, c, "without")
	const fan = 100
	waiting := scaled(100_000, 1_000_000)
	var parked []*hook
	for i := range fan {
		made := with.ledger.subscribe(with.node, fmt.Sprint("waiting-", i), later, map[string]any{"events": []string{"user.updated"}}, nothing)
		made.waits = true
		parked = append(parked, made)
	}
	with.ledger.flood(with.node, "user.updated", waiting/fan)
	for _, h := range parked {
		with.node.api(http.StatusOK, "POST", "/webhooks/"+h.ID+"/deactivate", nil, nil)
	}
	var rows int
	if err := with.ledger.db.QueryRow(t.Context(), `SELECT count(*) FROM medilab.pending`).Scan(&rows); err != nil {
		t.Fatal(err)
	}
	if rows < waiting {
		t.Errorf("only %d deliveries are waiting", rows)
	}
	with.ledger.settle()

	inTurns(t, "start with none waiting, and with many",
		func() time.Duration { return restart(without.node) }, func() time.Duration { return restart(with.node) })
	window := scaled(2*time.Second, 20*time.Second)
	inTurns(t, "p95 with none waiting, and with many",
		func() time.Duration { return without.p95(window) }, func() time.Duration { return with.p95(window) })
	memory, memoryWith := without.node.rss(), with.node.rss()
	t.Logf("with %d deliveries waiting: memory %d MB (%d MB)", rows, memoryWith>>20, memory>>20)
	if memoryWith > memory+64<<20 {
		t.Errorf("memory went from %d to %d MB", memory>>20, memoryWith>>20)
	}
	for _, run := range []*backlogRun{with, without} {
		run.ledger.balance(run.node)
		run.ledger.verified()
	}
}

// backlogRun is a node with a database of its own, and a receiver to measure.
type backlogRun struct {
	ledger  *ledger
	node    *node
	healthy *hook
}

func newBacklogRun(t *testing.T, c *cluster, name string) *backlogRun {
	t.Helper()
	h := newHome(t, c.databaseFor(t, name))
	run := &backlogRun{ledger: newLedger(t, h), node: h.node(name).start()}
	only := map[string]any{"events": eventTypes}
	run.healthy = run.ledger.subscribe(run.node, "healthy", nil, only, everything)
	run.ledger.subscribe(run.node, "flaky", flaky, only, everything) // its retries are claimed from the table
	return run
}

func (r *backlogRun) p95(window time.Duration) time.Duration {
	return r.ledger.p95(r.healthy, window, 100, eventTypes, r.node)
}

func nothing(string, int) bool { return false }

// later asks to be left alone for an hour.
func later(w http.ResponseWriter, _ *http.Request, _ receipt) {
	w.Header().Set("Retry-After", "3600")
	w.WriteHeader(http.StatusServiceUnavailable)
}

// restart ends the process well, and gives the time it takes to be ready again.
func restart(n *node) time.Duration {
	n.Helper()
	if code := n.Term(); code != 0 {
		n.Errorf("%s ended with %d", n.Label, code)
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
	window := scaled(3*time.Second, 15*time.Second)
	inTurns(t, "p95 by itself, and with four foreign transactions open",
		func() time.Duration { return l.p95(healthy, window, 300, eventTypes, n) },
		func() time.Duration {
			defer foreignTransactions(t, h.url, c.url(t, "postgres"))()
			return l.p95(healthy, window, 300, eventTypes, n)
		})
	end := foreignTransactions(t, h.url, c.url(t, "postgres"))
	l.loadFor(scaled(3*time.Second, time.Minute), 100, n)
	l.balance(n) // the read models follow too
	end()
	l.verified()
}

// foreignTransactions opens two in each of the databases: one that has written and
// idles, and one that keeps an old snapshot.
func foreignTransactions(t *testing.T, urls ...string) (end func()) {
	t.Helper()
	var open []pgx.Tx
	for i, url := range urls {
		pool := connect(t, url)
		for _, statements := range [][]string{
			{fmt.Sprintf(`CREATE TABLE public.foreign_%d AS SELECT pg_current_xact_id()`, i)},
			{`SET TRANSACTION ISOLATION LEVEL REPEATABLE READ`, `SELECT count(*) FROM pg_class`},
		} {
			tx, err := pool.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, tx)
			for _, sql := range statements {
				if _, err := tx.Exec(t.Context(), sql); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return func() {
		for _, tx := range open {
			if err := tx.Rollback(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
}
