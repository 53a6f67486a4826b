package faults

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
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

// nameLoss is how soon nodes say what the log has lost.
const nameLoss = 5 * time.Second

// failover is a cluster with three nodes, each of which reaches the primary in another way.
type failover struct {
	*ledger
	cluster *patroni.Cluster
	nodes   []*node
	proxies map[string][]*proxy // what stands before each server
	rounds  int
	led     time.Time // when the newest primary was seen
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
	ctx, cancel := context.WithTimeout(t.Context(), scaled(10*time.Minute, time.Hour))
	t.Cleanup(cancel)
	proxies := map[string][]*proxy{}
	through := func(member, address string) (string, error) {
		p := standBefore(t, "tcp", address)
		proxies[member] = append(proxies[member], p)
		return p.listener.Addr().String(), nil
	}
	c, err := patroni.Start(ctx, patroni.Options{Dir: dir, Synchronous: true, Through: through})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	h := newHome(t, c.URL())
	h.env = []string{"MEDILAB_READ_URL=" + c.StandbyURL()}
	f := &failover{ledger: newLedger(t, h), cluster: c, proxies: proxies, ctx: ctx}
	for name, url := range map[string]string{"direct": c.URL(), "balanced": c.BalancedURL(), "pooled": c.PooledURL()} {
		f.nodes = append(f.nodes, h.node(name, "DATABASE_URL="+url).start())
	}
	return f
}

// breaks does something to the primary while one node dies and another freezes, and returns
// when all is well again. The third node must accept events soon, the frozen one too. Another
// server must take over. What back brings back follows it then.
func (f *failover) breaks(what string, do func(*patroni.Member), back func(*patroni.Member) error) {
	f.t.Helper()
	before, err := f.cluster.Leader(f.ctx, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	node := func(i int) *node { return f.nodes[(f.rounds+i)%len(f.nodes)] }
	killed, frozen, left := node(0), node(1), node(2)
	began := time.Now()
	do(before)
	killed.Kill()
	frozen.Signal(syscall.SIGSTOP)
	if _, err := f.cluster.Leader(f.ctx, before); err != nil {
		f.t.Fatal(err)
	}
	f.led = time.Now()
	led := f.led.Sub(began)
	f.accepts(left)
	took := time.Since(began)
	f.t.Logf("%s, %s killed, %s frozen: another primary after %v, %s accepts after %v", what, killed.Label, frozen.Label,
		led.Round(time.Millisecond), left.Label, took.Round(time.Millisecond))
	if most := recovery(led); took > most {
		f.t.Errorf("%s: %s recovered after %v, want at most %v", what, left.Label, took, most)
	}
	frozen.Signal(syscall.SIGCONT)
	f.accepts(frozen)
	killed.start()
	f.accepts(killed)
	if back != nil {
		if err := back(before); err != nil {
			f.t.Fatal(err)
		}
	}
	if err := f.cluster.Healthy(f.ctx); err != nil {
		f.t.Fatal(err)
	}
	f.rounds++
}

// cutOff takes the network from the primary for the time that another takes over.
func (f *failover) cutOff() {
	f.t.Helper()
	var mends []func()
	mend := func(*patroni.Member) error {
		for _, mend := range mends {
			mend()
		}
		return nil
	}
	defer mend(nil) //nolint:errcheck // it does not fail
	f.breaks("cut off", func(m *patroni.Member) {
		for _, p := range f.proxies[m.Name] {
			mends = append(mends, p.cut())
		}
	}, mend)
}

// accepts waits until the node accepts events.
func (f *failover) accepts(n *node) {
	f.t.Helper()
	until(f.t, n.Label+" accepts events", func() bool {
		a, err := n.requestWithin(callerPatience, "POST", "/webhooks/events/trigger", []byte(`{"event_type":"user.created","event_data":{}}`))
		return err == nil && a.Status == http.StatusAccepted
	})
}

// The primary is switched over, crashes, freezes, loses its machine and its network, each time
// with a node killed and one frozen: what was answered 202 is delivered, and callers see nothing
// but 503 with Retry-After. At last commits wait for no standby, and what a failover loses is named.
func TestFailover(t *testing.T) {
	inCampaign(t)
	f := newFailover(t)
	for _, name := range []string{"all", "flaky"} {
		f.subscribe(f.nodes[0], name, map[string]behaviour{"flaky": flaky}[name], map[string]any{"events": []string{"patient.created", "payment.completed"}},
			func(eventType string, _ int) bool { return eventType != "visit.completed" })
	}
	stop := f.load(scaled(60, 150), f.nodes...)
	for round := range scaled(1, 10) {
		f.breaks("switched over", func(*patroni.Member) {
			if err := f.cluster.Switchover(f.ctx); err != nil {
				f.t.Fatal(err)
			}
		}, nil)
		if round%2 == 0 {
			f.breaks("crashed", (*patroni.Member).Crash, nil)
		} else {
			f.breaks("lost its machine", (*patroni.Member).Kill, (*patroni.Member).Start)
		}
		f.breaks("frozen", (*patroni.Member).Freeze, (*patroni.Member).Thaw)
		f.cutOff()
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
	anchors := filepath.Join(f.home.dir, "anchors")
	leader.HoldReplication()
	f.preload(f.nodes[0], "visit.completed", 50) // nothing is called for these
	lost := head()
	if _, err := f.home.command("audit", "anchor", "--file", anchors); err != nil {
		f.t.Fatal(err)
	}
	f.breaks("lost its tail", (*patroni.Member).Kill, (*patroni.Member).Start)
	for _, n := range f.nodes[:1] {
		var alerts struct {
			Items []struct {
				Kind     string
				RaisedAt time.Time `json:"raised_at"`
				Details  struct{ From, To int }
			}
		}
		until(f.t, "the loss is named", func() bool {
			n.api(http.StatusOK, "GET", "/webhooks/alerts?state=open", nil, &alerts)
			for _, a := range alerts.Items {
				if a.Kind == "log_lost" {
					if a.Details.From <= kept || a.Details.To < lost {
						f.t.Errorf("%d to %d are said to be lost, and %d to %d are", a.Details.From, a.Details.To, kept+1, lost)
					}
					if took := a.RaisedAt.Sub(f.led); took > nameLoss {
						f.t.Errorf("the loss is named %v after another primary led, want at most %v", took, nameLoss)
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
	if _, err := f.home.command("audit", "verify", "--anchor", anchors); err == nil || !strings.Contains(err.Error(), strconv.Itoa(lost)) {
		f.t.Errorf("audit verify does not say that the log ended at %d: %v", lost, err)
	}
}
