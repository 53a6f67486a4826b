package saga_test

import (
	"encoding/json"
	"sync/atomic"
	"testing"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/migrations/testdb"
)

// A 410 ends its delivery and deactivates the webhook, once, by the system and on record.
// What else is pending waits until the webhook is activated, which resolves the alert. Who
// asks for it is told of each delivery that failed; nothing ran out of retries.
func TestGoneDeactivates(t *testing.T) {
	var gone atomic.Bool
	gone.Store(true)
	r := newReceiver()
	entered, leave := make(chan struct{}), make(chan struct{})
	told := make(chan domain.DeliveryID, 10)
	r.answer = func(call commands.Outgoing) commands.Answer {
		if call.URL == "http://oncall.test/" {
			var body struct {
				Data givenUp `json:"event_data"`
			}
			if err := json.Unmarshal(call.Body, &body); err != nil {
				t.Error(err)
			}
			told <- body.Data.DeliveryID
			return commands.Answer{Outcome: domain.OutcomeSuccess, Status: 200}
		}
		if !gone.Load() {
			return commands.Answer{Outcome: domain.OutcomeSuccess, Status: 200}
		}
		entered <- struct{}{}
		<-leave
		return commands.Answer{Outcome: "http_status", Status: 410, Error: "the receiver answered 410"}
	}
	n := startAlerting(t, testdb.New(t), r, domain.DefaultAlertRules)
	w := n.register(1, nil)
	n.register(2, func(c *domain.WebhookRegistered) {
		c.Events, c.URL = []string{string(domain.DeliveryGivenUp)}, "http://oncall.test/"
	})
	first, second := domain.DeliveryOf(n.trigger(), w), domain.DeliveryOf(n.trigger(), w)
	<-entered
	<-entered
	close(leave) // both at once
	for _, id := range []domain.DeliveryID{first, second} {
		if d := n.awaitState(id, domain.DeliveryFailed); d.GaveUp != domain.GaveUpGone || d.Attempts != 1 {
			t.Errorf("%+v", d)
		}
	}
	n.await("gone open")
	if a, b := <-told, <-told; a == b || a != first && a != second || b != first && b != second {
		t.Errorf("told of %v and %v, want %v and %v", a, b, first, second)
	}
	key := domain.AlertKey{Webhook: w, Kind: domain.AlertGone}
	raised, err := n.log.Load(t.Context(), key.Stream())
	if err != nil {
		t.Fatal(err)
	}
	id := raised[0].Value.(domain.WebhookAlertRaised).ID
	n.append(key.Stream(), 1, domain.WebhookAlertAcknowledged{ID: id, WebhookID: w, Kind: key.Kind})
	history, err := n.queries.History(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	last := history[len(history)-1]
	if len(history) != 2 || last.Actor != commands.ActorDelivery || last.After.Active || last.After.Deactivated != domain.DeactivatedGone {
		t.Errorf("%d changes, the last is %+v", len(history), last)
	}
	waits := domain.DeliveryOf(n.askAgain(n.trigger(), w), w)
	gone.Store(false)
	if n.pending() != 1 || len(r.attempts(waits)) != 0 {
		t.Errorf("%d pending, attempts %v", n.pending(), r.attempts(waits))
	}
	n.append(w.Stream(), 2, domain.WebhookActivated{})
	n.awaitState(waits, domain.DeliveryDelivered)
	n.await("gone resolved")
	var notices int
	err = n.pool.QueryRow(t.Context(), `SELECT count(*) FROM medilab.events WHERE stream LIKE 'event-%' AND position($1::bytea IN data) > 0`,
		[]byte(id.String())).Scan(&notices)
	if err != nil || notices != 1 { // it was acknowledged, so nobody is notified of its end
		t.Errorf("%d notices, %v", notices, err)
	}
}

// askAgain asks for a delivery of the event to the webhook, whether it matches or not.
func (n *node) askAgain(event domain.EventID, w domain.WebhookID) domain.EventID {
	n.t.Helper()
	id := domain.DeliveryOf(event, w)
	events, err := n.log.Load(n.t.Context(), id.Stream())
	if err != nil {
		n.t.Fatal(err)
	}
	attempt := 1
	for _, e := range events {
		if failed, ok := e.Value.(domain.DeliveryAttemptFailed); ok {
			attempt = failed.Attempt + 1
		}
	}
	n.append(id.Stream(), int64(len(events)), domain.DeliveryRetryRequested{EventID: event, WebhookID: w, Attempt: attempt, Size: 19})
	return event
}
