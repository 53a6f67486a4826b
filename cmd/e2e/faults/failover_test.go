package faults

import (
	"context"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/cmd/testbed/patroni"
)

// recovery returns what a failover may take: until Patroni must know that the primary is gone,
// or has another, and some seconds, more where the whole campaign shares two cores.
func recovery(led time.Duration) time.Duration {
	return max(patroni.TTL, led) + scaled(15*time.Second, 5*time.Second)
}

// failover is a cluster with three nodes, each of which reaches the primary in another way.
type failover struct {
	*ledger
	cluster *patroni.Cluster
	nodes   []*node
	rounds  int
	ctx     context.Context
}

func newFailover(t *testing.T) *failover {
	if missing := patroni.Missing(); len(missing) > 0 {
		t.Skipf("no failover without %s: apt-get install %s", strings.Join(missing, ", "), patroni.Packages)
	}
	dir := harness.ShortDir(t)
	if err := os.Chmod(dir, 0o755); err != nil { // the account of Postgres enters it
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	t.Cleanup(cancel)
	c, err := patroni.Start(ctx, patroni.Options{Dir: dir, Synchronous: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	h := newHome(t, c.URL())
	h.env = []string{"MEDILAB_READ_URL=" + c.StandbyURL()}
	f := &failover{ledger: newLedger(t, h), cluster: c, ctx: ctx}
	for name, url := range map[string]string{"direct": c.URL(), "balanced": c.BalancedURL(), "pooled": c.PooledURL()} {
		f.nodes = append(f.nodes, h.node(name, "DATABASE_URL="+url).start())
	}
	return f
}

// breaks does something to the primary while a node dies, and returns when all is well again.
// The other nodes must accept events soon. Another server must take over. What back brings back follows it then.
func (f *failover) breaks(what string, do func(*patroni.Member), back func(*patroni.Member) error) {
	f.t.Helper()
	before, err := f.cluster.Leader(f.ctx, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	victim := f.nodes[f.rounds%len(f.nodes)]
	f.rounds++
	began := time.Now()
	do(before)
	victim.Kill()
	if _, err := f.cluster.Leader(f.ctx, before); err != nil {
		f.t.Fatal(err)
	}
	led := time.Since(began)
	for _, n := range f.nodes {
		if n == victim {
			continue
		}
		f.accepts(n)
		took := time.Since(began)
		f.t.Logf("%s, %s killed: another primary after %v, %s accepts after %v", what, victim.Label, led.Round(time.Millisecond), n.Label, took.Round(time.Millisecond))
		if most := recovery(led); took > most {
			f.t.Errorf("%s: %s recovered after %v, want at most %v", what, n.Label, took, most)
		}
	}
	victim.start()
	f.accepts(victim)
	if back != nil {
		if err := back(before); err != nil {
			f.t.Fatal(err)
		}
	}
	if err := f.cluster.Healthy(f.ctx); err != nil {
		f.t.Fatal(err)
	}
}

// accepts waits until the node accepts events.
func (f *failover) accepts(n *node) {
	f.t.Helper()
	until(f.t, n.Label+" accepts events", func() bool {
		a, err := n.requestWithin(callerPatience, "POST", "/webhooks/events/trigger", []byte(`{"event_type":"user.created","event_data":{}}`))
		return err == nil && a.Status == http.StatusAccepted
	})
}

// The primary is switched over, crashes, freezes and loses its machine, each time with a node
// killed: what was answered 202 is delivered, and callers see nothing but 503 with Retry-After.
// At last commits wait for no standby, and what a failover loses is named.
func TestFailover(t *testing.T) {
	inCampaign(t)
	f := newFailover(t)
	for _, name := range []string{"all", "flaky"} {
		f.subscribe(f.nodes[0], name, map[string]behaviour{"flaky": flaky}[name], map[string]any{"events": []string{"patient.created", "payment.completed"}},
			func(eventType string, _ int) bool { return eventType != "visit.completed" })
	}
	stop := f.load(scaled(60, 150), f.nodes...)
	thaw := func(m *patroni.Member) error { m.Thaw(); return nil }
	for range scaled(1, 3) {
		f.breaks("switched over", func(*patroni.Member) {
			if err := f.cluster.Switchover(f.ctx); err != nil {
				f.t.Fatal(err)
			}
		}, nil)
		f.breaks("crashed", (*patroni.Member).Crash, nil)
		f.breaks("frozen", (*patroni.Member).Freeze, thaw)
		if *campaign == "long" {
			f.breaks("lost its machine", (*patroni.Member).Kill, (*patroni.Member).Start)
		}
	}
	stop()
	f.balance(f.nodes[0])
	f.verified()
	until(f.t, "queries go to a standby", func() bool {
		_, err := f.nodes[0].request("GET", "/webhooks/system/stats", nil)
		return err == nil && f.nodes[0].metric("medilab_standby_usable") == 1
	})
	if *campaign == "long" {
		f.losesTail()
	}
}

// losesTail lets a standby take over that lacks the end of the log.
func (f *failover) losesTail() {
	if err := f.cluster.Asynchronous(f.ctx); err != nil {
		f.t.Fatal(err)
	}
	head := func() (position int) {
		until(f.t, "the head is read", func() bool {
			return f.db.QueryRow(f.ctx, `SELECT position FROM medilab.log_head`).Scan(&position) == nil
		})
		return position
	}
	leader, err := f.cluster.Leader(f.ctx, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	kept := head()
	leader.HoldReplication()
	f.preload(f.nodes[0], "visit.completed", 50) // nothing is called for these
	lost := head()
	f.breaks("lost its tail", (*patroni.Member).Kill, (*patroni.Member).Start)
	for _, n := range f.nodes[:1] {
		var alerts struct {
			Items []struct {
				Kind    string
				Details struct{ From, To int }
			}
		}
		until(f.t, "the loss is named", func() bool {
			n.api(http.StatusOK, "GET", "/webhooks/alerts?state=open", nil, &alerts)
			for _, a := range alerts.Items {
				if a.Kind == "log_lost" {
					if a.Details.From <= kept || a.Details.To < lost {
						f.t.Errorf("%d to %d are said to be lost, and %d to %d are", a.Details.From, a.Details.To, kept+1, lost)
					}
					return true
				}
			}
			return false
		})
	}
	said, counted := 0, 0
	for _, n := range f.nodes {
		said += strings.Count(n.Said.String(), "lost the end of the log")
		counted += n.metric("medilab_log_lost_positions_total")
	}
	if said == 0 || counted == 0 {
		f.t.Errorf("the nodes say %d times that the log lost its end, and count %d positions", said, counted)
	}
	f.loadFor(3*time.Second, 100, f.nodes...)
	f.balance(f.nodes[0])
	f.verified()
}
