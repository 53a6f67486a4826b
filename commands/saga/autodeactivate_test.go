package saga_test

import (
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

// A webhook of which nothing but failures came for as long as it says is deactivated by the
// system; one that does not say so never is.
func TestDeactivatesAfterFailures(t *testing.T) {
	t.Parallel()
	r := newReceiver()
	var works atomic.Bool
	r.answer = func(commands.Outgoing) commands.Answer {
		if works.Load() {
			return commands.Answer{Outcome: domain.OutcomeSuccess, Status: 200}
		}
		return commands.Answer{Outcome: "http_status", Status: 500, Error: "the receiver answered 500"}
	}
	n := startAlerting(t, testdb.New(t), r, domain.DefaultAlertRules)
	// The tenth failure is the first that is retried, a second after it failed.
	limited := func(c *domain.WebhookRegistered) { c.MaxRetries, c.RetryDelay, c.AutoDeactivateAfter = 1, 1, 1 }
	w, other := n.register(1, limited), n.register(2, quiet)
	for range 9 {
		n.deliver(other, domain.DeliveryFailed)
	}
	n.awaitKind(domain.AlertAutoDeactivated, projections.AlertOpen)
	history, err := n.queries.History(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	if last := history[len(history)-1]; len(history) != 2 || last.Actor != saga.ActorAlerts || last.After.Deactivated != domain.DeactivatedFailing {
		t.Errorf("%d changes, the last is %+v", len(history), last)
	}
	if state, _ := n.directory.Webhook(other); !state.Active {
		t.Error("the other one is deactivated too")
	}
	works.Store(true)
	n.append(w.Stream(), 2, domain.WebhookActivated{})
	n.awaitKind(domain.AlertAutoDeactivated, projections.AlertResolved)
	n.verify()
}

// awaitKind waits until the only alert of the kind is in the state.
func (a *alerting) awaitKind(kind domain.AlertKind, want projections.AlertState) {
	a.t.Helper()
	a.awaitAlerts(fmt.Sprintf("one of %s, %s", kind, want), func(alerts []projections.Alert) bool {
		found := slices.DeleteFunc(alerts, func(alert projections.Alert) bool { return alert.Kind != string(kind) })
		return len(found) == 1 && found[0].State == want
	})
}
