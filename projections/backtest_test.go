package projections

import (
	"encoding/json"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/eventstore/cpulimit"
)

// A backtest compares with what the log recorded, in the event or, in logs of older versions,
// behind it; it holds no turn for expensive work while it asks the database or its caller.
func TestBacktestComparesWithTheLog(t *testing.T) {
	b := newBench(t)
	w := b.register(1)
	other := b.register(2)
	const pages, each = 2100, 3 // more than a page of the log
	unit := eventstore.Unit{}
	for i := range pages * each {
		id := domain.EventID(uuid.New())
		e := domain.EventTriggered{EventType: "patient.created", EventData: json.RawMessage(`{"n":1}`)}
		changes := []domain.Change{}
		switch i % each {
		case 0: // sent, as the event says
			e.Recipients = []domain.Recipient{{WebhookID: w, WebhookVersion: 1}}
		case 1: // sent, as what follows says
			changes = append(changes, domain.EventDispatched{EventID: id, EventType: e.EventType, Deliveries: []domain.Dispatch{
				{DeliveryID: domain.DeliveryOf(id, other), Recipient: domain.Recipient{WebhookID: other, WebhookVersion: 1}},
				{DeliveryID: domain.DeliveryOf(id, w), Recipient: domain.Recipient{WebhookID: w, WebhookVersion: 1}},
			}})
		case 2: // to nobody, and of another type
			e.EventType = "visit.created"
		}
		write := eventstore.Write{Stream: id.Stream()}
		for _, c := range append([]domain.Change{e}, changes...) {
			write.Events = append(write.Events, eventstore.NewEvent{Type: c.ChangeType(), Data: domain.AppendJSON(nil, c)})
		}
		if unit.Writes = append(unit.Writes, write); len(unit.Writes) == 900 {
			if _, err := b.log.Append(b.ctx, unit); err != nil {
				t.Fatal(err)
			}
			unit.Writes = nil
		}
	}
	ctx := cpulimit.WithCaller(b.ctx, "somebody")
	takeTurns := func() {
		for range max(1, runtime.GOMAXPROCS(0)/2) {
			task := b.log.Limiter.Task()
			if err := task.Spend(ctx, cpulimit.Expensive); err != nil {
				t.Fatal(err)
			}
			defer task.End()
		}
	}
	for _, c := range []struct {
		events                   string
		matched, gained, lost, n int
	}{
		{"patient.created", 2 * pages, 0, 0, samplesOfAKind}, {"*", 3 * pages, pages, 0, 2 * samplesOfAKind}, {"visit.created", pages, pages, 2 * pages, 2 * samplesOfAKind},
	} {
		events, err := domain.NewMatcher([]string{c.events}, nil)
		if err != nil {
			t.Fatal(err)
		}
		told := 0
		got, err := b.Backtest(ctx, BacktestSpec{Webhook: w, Events: events, Progress: func(at BacktestProgress) error {
			if told++; at.Progress <= 0 || at.Progress > 1 || at.Considered == 0 {
				t.Errorf("it is at %+v", at)
			}
			takeTurns()
			return nil
		}})
		if err != nil || got.Considered != 3*pages || got.Matched != c.matched || got.Gained != c.gained || got.Lost != c.lost || len(got.Samples) != c.n || told == 0 {
			t.Errorf("%s: %+v, %v, told %d times", c.events, got, err, told)
		}
	}
	enough := errors.New("enough")
	_, err := b.Backtest(ctx, BacktestSpec{Webhook: w, Progress: func(BacktestProgress) error { return enough }})
	if !errors.Is(err, enough) {
		t.Errorf("the caller's error is %v", err)
	}
	if n := b.pool.Stat().AcquiredConns(); n > 1 { // the log's own
		t.Errorf("%d connections are still in use", n)
	}
	if got, err := b.Backtest(ctx, BacktestSpec{Webhook: w, To: time.Unix(0, 0)}); err != nil || got.Considered != 0 {
		t.Errorf("of no time: %+v, %v", got, err)
	}
}
