package faults

import (
	"bytes"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The log cannot keep up, and callers send the largest bodies there are: they are
// told to come again, and memory stays bounded.
func TestPressure(t *testing.T) {
	inCampaign(t)
	h := newHome(t, sharedCluster(t).database(t))
	l := newLedger(t, h)
	n := h.node("node").start()
	l.subscribe(n, "all", nil, map[string]any{"events": []string{"visit.completed"}}, func(eventType string, _ int) bool { return eventType == "visit.completed" })
	blocker, err := l.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := blocker.Exec(t.Context(), `SELECT FROM medilab.log_head FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	const size = 10<<20 - 200
	body := append([]byte(`{"event_type":"visit.created","event_data":{"text":"`), bytes.Repeat([]byte{'x'}, size)...)
	body = append(body, `"}}`...)
	var group sync.WaitGroup
	var taken, refused, unanswered atomic.Int64
	for range scaled(100, 300) {
		group.Go(func() {
			a, err := n.requestWithin(patience, "POST", "/webhooks/events/trigger", body)
			switch {
			case err != nil:
				unanswered.Add(1) // the server need not read what it will not take
			case a.Status == http.StatusAccepted:
				taken.Add(1)
			case comeAgain(a):
				refused.Add(1)
			default:
				t.Errorf("a large body was answered %d: %.200s", a.Status, a.Body)
			}
		})
	}
	var most int64
	deadline := time.After(5 * time.Second)
	for watching := true; watching; {
		select {
		case <-deadline:
			watching = false
		case <-time.After(20 * time.Millisecond):
			most = max(most, n.rss())
		}
	}
	if err := blocker.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	group.Wait()
	most = max(most, n.rss())
	t.Logf("bodies of 10 MB: %d taken, %d told to come again, %d cut off; memory at most %d MB", taken.Load(), refused.Load(), unanswered.Load(), most>>20)
	const bound = 1 << 30
	if most > bound {
		t.Errorf("memory went up to %d MB", most>>20)
	}
	if refused.Load() == 0 {
		t.Error("nobody was told to come again")
	}
	l.loadFor(time.Second, 100, n) // and it goes on
	l.balance(n)
	l.verified()
}
