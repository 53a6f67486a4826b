package saga_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/commands/saga"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/migrations/testdb"
	"github.com/medilab/webhooks/projections"
)

// awaitGiven waits until the only alert of the kind given_up is in the state and counts
// these deliveries.
func (a *alerting) awaitGiven(want projections.AlertState, deliveries ...domain.DeliveryID) {
	a.t.Helper()
	a.awaitAlerts(fmt.Sprintf("one of given_up, %s, with %v", want, deliveries), func(alerts []projections.Alert) bool {
		found := slices.DeleteFunc(alerts, func(alert projections.Alert) bool { return alert.Kind != string(domain.AlertGivenUp) })
		if len(found) != 1 {
			return false
		}
		var details struct {
			Count       int                 `json:"count"`
			DeliveryIDs []domain.DeliveryID `json:"delivery_ids"`
		}
		if err := json.Unmarshal(found[0].Details, &details); err != nil {
			a.t.Fatal(err)
		}
		return found[0].State == want && details.Count == len(deliveries) && slices.Equal(details.DeliveryIDs, deliveries)
	})
}

// givenUp is the data of an event about a delivery that was given up.
type givenUp struct {
	DeliveryID domain.DeliveryID `json:"delivery_id"`
	WebhookID  domain.WebhookID  `json:"webhook_id"`
	EventID    domain.EventID    `json:"event_id"`
	EventType  string            `json:"event_type"`
	Attempts   int               `json:"attempts"`
	LastError  string            `json:"last_error"`
}

// hearing is a receiver that fails for events of the service itself, of which it passes on
// those about deliveries that were given up, and for the others while it is told to.
func hearing(t *testing.T) (r *receiver, works *atomic.Bool, told chan givenUp) {
	r, works, told = newReceiver(), &atomic.Bool{}, make(chan givenUp, 100)
	r.answer = func(call commands.Outgoing) commands.Answer {
		switch eventType := domain.EventType(headerOf(call, "X-Webhook-Event")); {
		case eventType == domain.DeliveryGivenUp:
			var body struct {
				Data givenUp `json:"event_data"`
			}
			if err := json.Unmarshal(call.Body, &body); err != nil {
				t.Error(err)
			}
			told <- body.Data
		case !eventType.IsSystem() && works.Load():
			return commands.Answer{Outcome: domain.OutcomeSuccess, Status: 200}
		}
		return commands.Answer{Outcome: "http_status", Status: 500, Error: "the receiver answered 500"}
	}
	return r, works, told
}

// The first and only event of a quiet webhook is told of when it is given up, once, also
// when what was read of the log is read again. The alert counts what was not delivered or
// cancelled since.
func TestGivenUpIsTold(t *testing.T) {
	t.Parallel()
	r, works, told := hearing(t)
	url := testdb.New(t)
	n := startAlerting(t, url, r, domain.DefaultAlertRules)
	w := n.register(1, func(c *domain.WebhookRegistered) { c.MaxRetries = 1 })
	n.register(2, func(c *domain.WebhookRegistered) {
		c.Events, c.MaxRetries = []string{string(domain.DeliveryGivenUp)}, 0
	})
	n.register(3, func(c *domain.WebhookRegistered) { c.Events, c.MaxRetries, c.Active = []string{"*"}, 0, false })
	event := n.trigger()
	first := domain.DeliveryOf(event, w)
	n.awaitState(first, domain.DeliveryFailed)
	n.awaitGiven(projections.AlertOpen, first)
	if got, want := <-told, (givenUp{first, w, event, "patient.created", 2, "the receiver answered 500"}); got != want {
		t.Errorf("told %+v, want %+v", got, want)
	}
	secondEvent := n.trigger()
	second := domain.DeliveryOf(secondEvent, w)
	n.awaitGiven(projections.AlertOpen, first, second)
	if got := <-told; got.DeliveryID != second {
		t.Errorf("told %+v", got)
	}

	n.awaitAlertsRead()
	n.stop()
	again := startAlerting(t, url, r, domain.DefaultAlertRules)
	if _, err := again.pool.Exec(t.Context(), `UPDATE medilab.readers SET position = 0 WHERE name = 'alerts'`); err != nil {
		t.Fatal(err)
	}
	n = again
	n.awaitAlertsRead()
	n.askAgain(event, w) // it fails again
	if got := <-told; got.DeliveryID != first || got.Attempts != 4 {
		t.Errorf("told %+v", got)
	}
	n.awaitGiven(projections.AlertOpen, second, first)
	works.Store(true)
	n.askAgain(event, w)
	n.awaitState(first, domain.DeliveryDelivered)
	n.awaitGiven(projections.AlertOpen, second)
	n.append(w.Stream(), 1, domain.WebhookDeactivated{})
	n.askAgain(secondEvent, w)
	n.append(second.Stream(), 3, domain.DeliveryCancelled{EventID: secondEvent, WebhookID: w, Reason: domain.CancelRequested})
	n.awaitGiven(projections.AlertResolved)
	n.awaitEmptyQueue()
	if len(told) > 0 {
		t.Errorf("told of more: %+v", <-told)
	}
	n.verify()
}

// Members of a batch are told of each by itself, and count until their batch is delivered or
// they are by themselves. The service's own events among them do not.
func TestGivenUpBatchIsTold(t *testing.T) {
	r, works, told := hearing(t)
	n := startAlerting(t, testdb.New(t), r, domain.DefaultAlertRules)
	w := n.register(1, func(c *domain.WebhookRegistered) {
		c.Events, c.MaxRetries, c.Batch = []string{"*", "webhook.*"}, 0, &domain.Batch{MaxEvents: 2, MaxWait: 1}
	})
	n.register(2, func(c *domain.WebhookRegistered) { c.Events, c.MaxRetries = []string{"webhook.delivery_given_up"}, 0 })
	events := []domain.EventID{n.trigger(), n.trigger()}
	batch := domain.BatchOf(domain.DeliveryOf(events[0], w))
	n.awaitState(batch, domain.DeliveryFailed)
	var want, got []domain.DeliveryID
	for _, event := range events {
		want = append(want, domain.DeliveryOf(event, w))
		told := <-told
		got = append(got, told.DeliveryID)
		if domain.DeliveryOf(told.EventID, w) != told.DeliveryID || told.EventType != "patient.created" {
			t.Errorf("told %+v", told)
		}
	}
	sorted := func(a, b domain.DeliveryID) int { return bytes.Compare(a[:], b[:]) }
	slices.SortFunc(got, sorted)
	slices.SortFunc(want, sorted)
	if !slices.Equal(got, want) {
		t.Errorf("told of %v, want %v", got, want)
	}
	n.awaitGiven(projections.AlertOpen, want...)
	works.Store(true)
	n.append(batch.Stream(), 2, domain.DeliveryRetryRequested{EventID: events[0], WebhookID: w, Attempt: 2, Size: 38})
	n.awaitState(batch, domain.DeliveryDelivered)
	n.awaitGiven(projections.AlertResolved)
	n.verify()
}

// What left a batch, or was left out of it, is not given up with it.
func TestGivenUpBatchWithoutItsErased(t *testing.T) {
	r, _, _ := hearing(t)
	n := startAlerting(t, testdb.New(t), r, domain.DefaultAlertRules)
	w := n.register(1, func(c *domain.WebhookRegistered) {
		c.MaxRetries, c.RetryDelay, c.Batch = 1, 3600, &domain.Batch{MaxEvents: 3, MaxWait: 60}
	})
	events := []domain.EventID{n.trigger(), n.trigger(), n.trigger()}
	left := domain.DeliveryOf(events[0], w)
	batch := domain.BatchOf(left)
	n.awaitVersion(batch, 2)
	n.append(left.Stream(), 1, domain.DecideLeave(domain.Delivery{EventID: events[0], WebhookID: w}, domain.CancelSubjectErased))
	n.append(batch.Stream(), 2, domain.DeliveryAttemptFailed{GaveUp: domain.GaveUpRetriesExhausted, Call: domain.Call{
		EventID: events[0], EventType: string(domain.BatchEventType), WebhookID: w, Attempt: 2, Outcome: "status", Status: 500,
		LeftOut: []domain.LeftOut{{EventID: events[1], Reason: domain.CancelSubjectErased}},
	}})
	n.awaitGiven(projections.AlertOpen, domain.DeliveryOf(events[2], w))
	n.verify()
}

// verify checks that the read models are what the log makes of them.
func (a *alerting) verify() {
	a.t.Helper()
	err := a.queries.Verify(a.t.Context(), saga.Queue{}, func(p projections.Problem) { a.t.Errorf("%+v", p) }, nil)
	if err != nil {
		a.t.Error(err)
	}
}
