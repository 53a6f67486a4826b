package saga_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/commands/saga"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations/testdb"
)

// lines is a slog.Handler that passes on what is said with the words.
type lines struct {
	slog.Handler
	words string
	said  chan string
}

func (l lines) Enabled(context.Context, slog.Level) bool { return true }

func (l lines) Handle(_ context.Context, r slog.Record) error {
	if strings.Contains(r.Message, l.words) {
		l.said <- r.Message
	}
	return nil
}

// Two calls are under way when the database goes back to before one of their events. The
// call that the log has is recorded as it ended; the other ends without a record and
// without an error that comes again.
func TestCallsUnderWayWhenTheLogLosesItsTail(t *testing.T) {
	t.Parallel()
	url := testdb.New(t)
	entered, leave := make(chan struct{}), make(chan struct{})
	r := newReceiver()
	r.answer = func(commands.Outgoing) commands.Answer {
		entered <- struct{}{}
		<-leave
		return commands.Answer{Outcome: domain.OutcomeSuccess, Status: 200}
	}
	said := lines{slog.DiscardHandler, "the log has lost its event", make(chan string, 10)}
	n := start(t, url, r, func(_ *node, c *saga.Config) { c.Logger = slog.New(said) })
	w := n.register(1, nil)
	kept := domain.DeliveryOf(n.trigger(), w)
	<-entered
	restore := testdb.Snapshot(t, url)
	n.reconnect()
	event := n.trigger()
	<-entered
	before := n.log.Generation()
	restore()
	n.reconnect()
	if n.log.Generation() == before {
		t.Fatal("nothing was noticed")
	}
	close(leave)
	if d := n.awaitState(kept, domain.DeliveryDelivered); d.Attempts != 1 {
		t.Errorf("%+v", d)
	}
	<-said.said
	go func() { <-entered }()
	n.awaitState(domain.DeliveryOf(n.trigger(), w), domain.DeliveryDelivered)
	n.awaitEmptyQueue()
	streams := []string{event.Stream(), domain.DeliveryOf(event, w).Stream()}
	if events, err := n.log.LoadAll(t.Context(), streams); err != nil || len(events) > 0 {
		t.Errorf("of the lost event there are %v, %v", events, err)
	}
	if len(said.said) > 0 {
		t.Errorf("it says again: %s", <-said.said)
	}
	err := n.log.Verify(t.Context(), func(d eventstore.Damage) { t.Errorf("damage: %+v", d) }, func(_, _ eventstore.Position) {})
	if err != nil {
		t.Error(err)
	}
}

// reconnect leaves connections that broke.
func (n *node) reconnect() {
	n.t.Helper()
	n.pool.Reset()
	harness.Until(n.t, "the database is back", func() bool { return n.directory.CatchUp(n.t.Context()) == nil })
}

// Of several processes that notice the same loss, the alert is raised once, and names all
// that is lost. Another loss is another alert.
func TestLossIsRecordedOnce(t *testing.T) {
	n := appending(t, testdb.New(t))
	n.register(1, nil)
	now := func() time.Time {
		anchor, err := n.log.Anchor(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return anchor.RecordedAt
	}
	at := now()
	record := func(first, last eventstore.Position) {
		t.Helper()
		loss := eventstore.Loss{First: first, Known: eventstore.Anchor{Position: last, RecordedAt: at}}
		if err := saga.RecordLoss(t.Context(), n.log, n.directory, loss); err != nil {
			t.Fatal(err)
		}
	}
	record(2, 90)
	record(0, 100)
	record(3, 95)
	at = now()
	record(5, 6)
	events, err := n.log.Load(t.Context(), domain.AlertKey{Kind: domain.AlertLogLost}.Stream())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	ids := map[domain.AlertID]bool{}
	for _, e := range events {
		switch c := e.Value.(type) {
		case domain.WebhookAlertRaised:
			ids[c.ID] = true
			got = append(got, c.Lost.String())
		case domain.WebhookAlertResolved:
			got = append(got, "resolved")
		}
	}
	if s := strings.Join(got, ", "); s != "positions 2 to 90, positions 2 to 100, resolved, positions 5 to 6" || len(ids) != 2 {
		t.Errorf("it holds %s, of %d alerts", s, len(ids))
	}
}
