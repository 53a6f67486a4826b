package faults

import (
	"net/http"
	"testing"
	"time"

	"github.com/medilab/webhooks/cmd/e2e/harness"
)

// The server is stopped at once and started: for a moment, and for longer than
// the leases. Meanwhile nobody is told a lie; then all goes on by itself.
func TestPostgresStopsAtOnce(t *testing.T) {
	random := inCampaign(t)
	t.Parallel()
	c := ownCluster(t, harness.ShortDir(t), nil)
	h := newHome(t, c.database(t))
	l := newLedger(t, h)
	a, b := h.node("a").start(), h.node("b").start()
	l.usual(a)
	l.subscribe(a, "slow", after(500*time.Millisecond), nil, everything)
	stop := l.load(150, a, b)
	for _, away := range scaled([]time.Duration{time.Second, 15 * time.Second}, []time.Duration{time.Second, 15 * time.Second, 5 * time.Second, time.Minute}) {
		pass(t, between(random, time.Second, 3*time.Second))
		c.crash(t)
		for _, n := range []*node{a, b} {
			until(t, n.Label+" is not ready", func() bool { return n.Status("/readyz") == http.StatusServiceUnavailable })
			if n.Status("/healthz") != http.StatusOK {
				t.Errorf("%s is not alive without its database", n.Label)
			}
		}
		pass(t, away)
		if err := c.start(t.Context()); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for _, n := range []*node{a, b} {
			until(t, n.Label+" is ready again", func() bool { return n.Status("/readyz") == http.StatusOK })
		}
		t.Logf("away for %v: ready after %v", away, time.Since(began).Round(time.Millisecond))
		pass(t, time.Second)
	}
	stop()
	l.balance(a)
	l.verified()
	for _, n := range []*node{a, b} {
		if code := n.Term(); code != 0 {
			t.Errorf("%s ended with %d", n.Label, code)
		}
	}
}

// Connections are cut all the time.
func TestConnectionsCut(t *testing.T) {
	random := inCampaign(t)
	t.Parallel()
	h := newHome(t, sharedCluster(t).database(t))
	l := newLedger(t, h)
	a, b := h.node("a").start(), h.node("b").start()
	l.usual(a)
	stop := l.load(150, a, b)
	for range scaled(20, 200) {
		pass(t, between(random, 50*time.Millisecond, 500*time.Millisecond))
		if _, err := l.db.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name = 'medilab-webhooks' AND random() < 0.5`); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	l.balance(a)
	l.verified()
}

// The commit happens, and its answer is lost.
func TestAnswersLost(t *testing.T) {
	random := inCampaign(t)
	t.Parallel()
	direct := sharedCluster(t).database(t)
	p, url := newProxy(t, direct)
	h := newHome(t, url)
	l := newLedger(t, h)
	l.db = connect(t, direct)
	a, b := h.node("a").start(), h.node("b").start()
	l.usual(a)
	stop := l.load(150, a, b)
	for range scaled(6, 60) {
		pass(t, between(random, 200*time.Millisecond, 2*time.Second))
		p.loseAnswers(between(random, 10*time.Millisecond, 700*time.Millisecond))
	}
	stop()
	l.balance(a)
	l.verified()
}

// Serialization failures and deadlocks, as any transaction may meet them.
func TestTransactionsFail(t *testing.T) {
	inCampaign(t)
	t.Parallel()
	h := newHome(t, sharedCluster(t).database(t))
	l := newLedger(t, h)
	a, b := h.node("a").start(), h.node("b").start()
	l.usual(a)
	l.exec(`CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			IF random() < 0.03 THEN RAISE EXCEPTION 'injected' USING ERRCODE = 'serialization_failure'; END IF;
			IF random() < 0.03 THEN RAISE EXCEPTION 'injected' USING ERRCODE = 'deadlock_detected'; END IF;
			RETURN NULL;
		END $$`)
	for _, table := range []string{"events", "queue", "calls", "readers", "nodes"} {
		l.exec(`CREATE TRIGGER fail AFTER INSERT OR UPDATE OR DELETE ON medilab.` + table + ` FOR EACH STATEMENT EXECUTE FUNCTION public.fail()`)
	}
	l.loadFor(scaled(6*time.Second, time.Minute), 150, a, b)
	for _, table := range []string{"events", "queue", "calls", "readers", "nodes"} {
		l.exec(`DROP TRIGGER fail ON medilab.` + table)
	}
	l.balance(a)
	l.verified()
}
