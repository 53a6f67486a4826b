package saga_test

import (
	"bytes"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations/testdb"
	"github.com/medilab/webhooks/projections"
)

// emitAll appends events with the data at once.
func (r *replaying) emitAll(eventType string, data ...string) (events []domain.EventID) {
	r.t.Helper()
	const together = 500
	for part := range slices.Chunk(data, together) {
		var unit eventstore.Unit
		for _, text := range part {
			id := domain.EventID(uuid.Must(uuid.NewV7()))
			change := domain.EventTriggered{EventType: eventType, EventData: []byte(text)}
			unit.Writes = append(unit.Writes, eventstore.Write{Stream: id.Stream(), Events: []eventstore.NewEvent{
				{Type: change.ChangeType(), Data: domain.AppendJSON(nil, change), Value: change}}})
			events = append(events, id)
		}
		if _, err := r.directory.Append(r.t.Context(), unit); err != nil {
			r.t.Fatal(err)
		}
	}
	return events
}

// A retry of all that failed goes on with other webhooks when one is inactive, or fails again,
// and has more failures than are read ahead.
func TestRetryPassesAWebhookThatTakesNothing(t *testing.T) {
	t.Parallel()
	const many = 2500 // beyond mostReady and a page
	in := newReceiver()
	var works atomic.Bool // for all but patient.created
	in.answer = func(call commands.Outgoing) commands.Answer {
		if works.Load() && headerOf(call, "X-Webhook-Event") != "patient.created" {
			return commands.Answer{Outcome: domain.OutcomeSuccess, Status: 200}
		}
		return commands.Answer{Outcome: "http_status", Status: 503}
	}
	n := startReplaying(t, testdb.New(t), in)
	w := n.register(1, quiet)
	other := n.register(2, func(c *domain.WebhookRegistered) { c.Events, c.MaxRetries = []string{"visit.created"}, 0 })
	n.emitAll("patient.created", slices.Repeat([]string{`{}`}, many)...)
	n.awaitEmptyQueue()
	retryOthers := func() {
		t.Helper()
		works.Store(false)
		event := n.emitAll("visit.created", `{}`)[0]
		n.awaitState(domain.DeliveryOf(event, other), domain.DeliveryFailed)
		works.Store(true)
		id := n.start(domain.ReplaySpec{Kind: domain.KindRetry})
		n.awaitState(domain.DeliveryOf(event, other), domain.DeliveryDelivered)
		n.ask(id, domain.Replay.Cancel)
		n.awaitReplay(id, "over", finished)
	}
	n.append(w.Stream(), 1, domain.WebhookDeactivated{})
	retryOthers()
	n.append(w.Stream(), 2, domain.WebhookActivated{})
	n.append(w.Stream(), 3, domain.WebhookChanged{MaxRetries: new(3), RetryDelay: new(3600)})
	retryOthers()
}

// A replay goes on with other patients while lines are blocked.
func TestReplayPassesBlockedLines(t *testing.T) {
	t.Parallel()
	const blocked = 40 // beyond replayWindow
	in := newReceiver()
	var works atomic.Bool
	in.answer = func(call commands.Outgoing) commands.Answer {
		if bytes.Contains(call.Body, []byte(`"bad"`)) || !works.Load() && bytes.Contains(call.Body, []byte(`"last"`)) {
			return commands.Answer{Outcome: "http_status", Status: 503}
		}
		return commands.Answer{Outcome: domain.OutcomeSuccess, Status: 200}
	}
	n := startReplaying(t, testdb.New(t), in)
	w := n.register(1, func(c *domain.WebhookRegistered) { c.MaxRetries, c.OrderBy = 0, "patient_id" })
	var data []string
	for _, is := range []string{"bad", "good"} {
		for p := range blocked {
			data = append(data, fmt.Sprintf(`{"patient_id":%d,"is":%q}`, p, is))
		}
	}
	events := n.emitAll("patient.created", append(data, `{"patient_id":"x","is":"last"}`)...)
	last := domain.DeliveryOf(events[len(events)-1], w)
	n.awaitEmptyQueue()
	n.append(w.Stream(), 1, domain.WebhookChanged{OrderOnFailure: new(domain.OrderBlock)})
	works.Store(true)
	id := n.start(history(w))
	n.awaitState(last, domain.DeliveryDelivered)
	n.awaitReplay(id, "waiting for what is blocked", func(p projections.Replay) bool { return p.Queued == 2*blocked+1 })
	if got := len(n.blocked()); got != blocked {
		t.Errorf("%d lines are blocked, want %d", got, blocked)
	}
	n.ask(id, domain.Replay.Cancel)
	n.awaitReplay(id, "over", finished)
	n.verify()
}
