package faults

import (
	"bytes"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/medilab/webhooks/cmd/testbed"
	"github.com/medilab/webhooks/eventstore/failpoint"
)

// reading asks the node for everything that read models answer, again and again,
// until end, which gives how often it did. Each answer must be good.
func (l *ledger) reading(n *node) (end func() int64) {
	var reads atomic.Int64
	ended := make(chan struct{})
	var group sync.WaitGroup
	for _, path := range []string{"/webhooks/1/stats", "/webhooks/2/calls?limit=20", "/webhooks/events?limit=20", "/webhooks/system/stats", "/webhooks/"} {
		group.Go(func() {
			for {
				select {
				case <-ended:
					return
				case <-time.After(20 * time.Millisecond):
				}
				a, err := n.request("GET", path, nil)
				if err != nil || a.Status != http.StatusOK {
					l.t.Errorf("GET %s during a rebuild: %d, %v: %.200s", path, a.Status, err, a.Body)
				}
				reads.Add(1)
			}
		})
	}
	return func() int64 {
		close(ended)
		group.Wait()
		return reads.Load()
	}
}

// Every read model is rebuilt under load, again and again: reads never fail, and
// nothing is called because of it. A rebuild that is killed leaves no trace.
func TestRebuildUnderLoad(t *testing.T) {
	inCampaign(t)
	t.Parallel()
	h := newHome(t, sharedCluster(t).database(t))
	l := newLedger(t, h)
	n := h.node("node").start()
	l.usual(n)
	stop := l.load(150, n)
	end := l.reading(n)
	pass(t, 2*time.Second)
	killed := exec.CommandContext(t.Context(), faulty(t), "projections", "rebuild", "--all")
	killed.Env = append(h.environment(), failpoint.Variable+"="+string(failpoint.InRebuild)+":kill:1")
	if out, err := killed.CombinedOutput(); err == nil {
		t.Errorf("the rebuild was to be killed: %s", out)
	}
	for range scaled(2, 20) {
		if out, err := h.command("projections", "rebuild", "--all"); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		pass(t, time.Second)
	}
	stop()
	reads := end()
	l.balance(n)
	t.Logf("%d reads during the rebuilds", reads)
	l.verified()
}

// Rebuilds break in their middle under load: the connection of one by command, the
// connection of one that a serving node makes by itself after an upgrade, and such a
// node itself. Reads never fail, and what a node began ends without a hand.
func TestRebuildBroken(t *testing.T) {
	inCampaign(t)
	t.Parallel()
	h := newHome(t, sharedCluster(t).database(t))
	l := newLedger(t, h)
	// Who keeps the read models rebuilds them: that is never the node which is read.
	n, keeper := h.node("node", "MEDILAB_ROLES=api,saga,worker").start(), h.node("keeper").start()
	l.usual(n)
	stop := l.load(100, n)
	end := l.reading(n)
	pass(t, time.Second)
	frozen := failpoint.Variable + "=" + string(failpoint.InRebuild) + ":stop:1"

	command := exec.CommandContext(t.Context(), faulty(t), "projections", "rebuild", "--all")
	command.Env = append(h.environment(), frozen)
	var said bytes.Buffer
	command.Stdout, command.Stderr = &said, &said
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	until(t, "the command is in the middle of its rebuild", func() bool { return testbed.Stopped(command.Process.Pid) })
	l.cutRebuild()
	if err := command.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := command.Wait(); command.ProcessState.ExitCode() != 1 || strings.Count(strings.TrimSpace(said.String()), "\n") != 0 {
		t.Errorf("the command whose connection was cut ended so: %v: %s", err, &said)
	}

	// As after an upgrade: the tables are another version's.
	outdate := func() { l.exec(`UPDATE medilab.read_models SET shape = 0`) }
	rebuilt := func() bool {
		var left int
		err := l.db.QueryRow(t.Context(), `SELECT count(*) FROM medilab.read_models WHERE shape = 0 OR building IS NOT NULL`).Scan(&left)
		return err == nil && left == 0
	}
	keeper.Term()
	for range scaled(1, 5) {
		outdate()
		cut := h.node("cut", frozen)
		cut.Program = faulty(t)
		cut.Launch()
		until(t, "a serving node is in the middle of its rebuild", cut.stopped)
		l.cutRebuild()
		cut.Signal(syscall.SIGCONT)
		until(t, "the node has rebuilt all the same", rebuilt)
		cut.Kill()

		outdate()
		doomed, heir := h.node("doomed", frozen), h.node("heir")
		doomed.Program = faulty(t)
		doomed.Launch()
		until(t, "a serving node is in the middle of its rebuild", doomed.stopped)
		heir.start() // it finds the rebuild under way
		doomed.Kill()
		until(t, "another node has rebuilt all the same", rebuilt)
		heir.Kill()
	}
	keeper.start()
	stop()
	reads := end()
	l.balance(n)
	t.Logf("%d reads during the rebuilds", reads)
	l.verified()
}

// cutRebuild ends the connection of whoever is rebuilding.
func (l *ledger) cutRebuild() {
	l.t.Helper()
	var cut int
	err := l.db.QueryRow(l.t.Context(), `SELECT count(*) FILTER (WHERE pg_terminate_backend(pid, 10000)) FROM pg_locks
		WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`).Scan(&cut)
	if err != nil {
		l.t.Fatal(err)
	}
	if cut != 1 {
		l.t.Errorf("%d connections held the lock of rebuilds", cut)
	}
}
