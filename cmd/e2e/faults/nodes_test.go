package faults

import (
	"net/http"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/eventstore/failpoint"
)

// takeoverTime is what a dead node's work may wait: its lease, and a few seconds.
const takeoverTime = eventstore.LeaseTime + 5*time.Second

// ids are what the process is called among the nodes: one under each lease.
func (l *ledger) ids(n *node) (ids []int64) {
	l.t.Helper()
	err := l.db.QueryRow(l.t.Context(), `SELECT coalesce(array_agg(id), '{}') FROM medilab.nodes WHERE name LIKE '%/' || $1`,
		strconv.Itoa(n.Pid())).Scan(&ids)
	if err != nil {
		l.t.Fatal(err)
	}
	return ids
}

// takenOver waits until nothing is these nodes' any more: no delivery and no reader.
func (l *ledger) takenOver(ids []int64) {
	l.t.Helper()
	until(l.t, "others have taken over", func() bool {
		var left bool
		err := l.db.QueryRow(l.t.Context(), `SELECT EXISTS (SELECT FROM medilab.pending WHERE node = ANY($1))
			OR EXISTS (SELECT FROM medilab.readers WHERE node = ANY($1))`, ids).Scan(&left)
		return err == nil && !left
	})
}

// Three nodes: one is killed and one frozen past its lease and woken.
func TestOneKilledOneFrozen(t *testing.T) {
	random := inCampaign(t)
	t.Parallel()
	h := newHome(t, sharedCluster(t).database(t))
	l := newLedger(t, h)
	a, b, c := h.node("a").start(), h.node("b").start(), h.node("c").start()
	l.usual(a)
	l.subscribe(a, "slow", after(300*time.Millisecond), nil, everything)
	stop := l.load(150, a, b, c)
	for range scaled(1, 10) {
		pass(t, between(random, time.Second, 3*time.Second))
		gone := append(l.ids(a), l.ids(b)...)
		a.Kill()
		b.Signal(syscall.SIGSTOP)
		began := time.Now()
		l.takenOver(gone)
		took := time.Since(began)
		if took > takeoverTime {
			t.Errorf("taking over took %v, want at most %v", took, takeoverTime)
		}
		b.Signal(syscall.SIGCONT)
		a.start()
		pass(t, 3*time.Second)
		t.Logf("taken over after %v; calls made by a %d, b %d, c %d", took.Round(time.Millisecond), a.calls(), b.calls(), c.calls())
	}
	stop()
	for _, n := range []*node{a, b, c} {
		if n.calls() == 0 {
			t.Errorf("%s made no call", n.Label)
		}
	}
	l.balance(c)
	l.verified()
}

// A node that freezes between the receiver's answer and its record wakes when
// others have decided without it: its outcome is kept as late, and changes nothing.
func TestFrozenAfterTheAnswer(t *testing.T) {
	inCampaign(t)
	t.Parallel()
	h := newHome(t, sharedCluster(t).database(t))
	l := newLedger(t, h)
	frozen, other := h.node("frozen", failpoint.Variable+"="+string(failpoint.AfterCall)+":stop:100"), h.node("other").start()
	frozen.Program = faulty(t)
	frozen.start()
	l.usual(other)
	stop := l.load(100, frozen)
	until(t, "the node is frozen", frozen.stopped)
	stop()
	l.takenOver(l.ids(frozen))
	l.settle()
	frozen.Signal(syscall.SIGCONT)
	until(t, "the late outcome is in the log", func() bool {
		var late int
		err := l.db.QueryRow(t.Context(), `SELECT count(*) FROM medilab.events WHERE type = 'delivery.outcome_late'`).Scan(&late)
		return err == nil && late > 0
	})
	b := l.balance(other)
	late := 0
	for id, d := range b.deliveries {
		if late += d.late; d.late > 0 && d.succeeded < 2 {
			t.Errorf("delivery %s succeeded at attempt %d, which is the late one", id, d.succeeded)
		}
	}
	until(t, "the node works again", func() bool { return frozen.Status("/readyz") == http.StatusOK })
	l.verified()
}

// A node that freezes when it has seen that its lease is good, and before it calls,
// looks again when it wakes: others have made the attempt, and it makes none.
func TestFrozenBeforeTheCall(t *testing.T) {
	inCampaign(t)
	t.Parallel()
	h := newHome(t, sharedCluster(t).database(t))
	l := newLedger(t, h)
	frozen, other := h.node("frozen", failpoint.Variable+"="+string(failpoint.BeforeCall)+":stop:1"), h.node("other")
	frozen.Program = faulty(t)
	frozen.start()
	l.subscribe(frozen, "all", nil, map[string]any{"timeout": 120}, everything)
	// One event alone: whatever else were under way would freeze where it happens to be.
	id := uuid.Must(uuid.NewV7()).String()
	e := accepted{eventTypes[0], 1, time.Now()}
	body := []byte(`{"event_type":"` + e.eventType + `","event_id":"` + id + `","event_data":{"amount":1}}`)
	asked := l.offer(frozen, id, e, body) // it froze before it answered, or after
	until(t, "the node is frozen", frozen.stopped)
	other.start()
	if !asked && !l.offer(other, id, e, body) {
		t.Error("another node does not accept what was not answered")
	}
	l.takenOver(l.ids(frozen))
	l.settle()
	frozen.Signal(syscall.SIGCONT)
	until(t, "the node works again", func() bool { return frozen.Status("/readyz") == http.StatusOK })
	b := l.balance(other)
	for id, d := range b.deliveries {
		if d.interrupted != 1 || d.succeeded != 2 || d.late != 0 {
			t.Errorf("delivery %s succeeded at attempt %d, %d were interrupted and %d late", id, d.succeeded, d.interrupted, d.late)
		}
	}
	if calls := l.all(); len(calls) != 1 || calls[0].attempt != 2 {
		t.Errorf("%d calls arrived: the attempt of the frozen node was to be none", len(calls))
	}
	l.verified()
}

// What one node is given and cannot do at once, others do, down to the last
// delivery: while every call is held, as many are under way as all nodes together
// can make. No time is measured, so a machine that is busy elsewhere proves the same.
func TestNobodyStandsIdle(t *testing.T) {
	inCampaign(t)
	t.Parallel()
	h := newHome(t, sharedCluster(t).database(t))
	l := newLedger(t, h)
	const workers, all = 8, 3 * 8
	var nodes []*node
	for _, name := range []string{"a", "b", "c"} {
		nodes = append(nodes, h.node(name, "MEDILAB_WORKERS="+itoa(workers)).start())
	}
	held := new(gate)
	l.subscribe(nodes[0], "held", held.answer, map[string]any{"timeout": 300}, everything)
	for round := range scaled(3, 20) {
		// More than all can do at once, and then exactly as much: what one of them keeps
		// in its memory is then missing elsewhere.
		given := all
		if round == 0 {
			given = 3 * all
		}
		let := held.close()
		before := l.callsSeen()
		l.preload(nodes[0], "visit.completed", given)
		until(t, "every worker of every node makes a call", func() bool { now, _ := l.underWay("held"); return now == all })
		if seen := l.callsSeen() - before; seen != all {
			t.Errorf("%d calls came while none was answered, and %d is all that the nodes may make", seen, all)
		}
		let()
		l.settle()
	}
	for _, n := range nodes {
		if least := workers * scaled(3, 20); n.calls() < least {
			t.Errorf("%s made %d calls, and was busy with at least %d", n.Label, n.calls(), least)
		}
	}
	l.balance(nodes[0])
	l.verified()
}
