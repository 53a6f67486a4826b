package saga_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/commands/saga"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations/testdb"
	"github.com/medilab/webhooks/projections"
)

// alerting is a node that keeps read models and looks for alerts.
type alerting struct {
	*node
	queries *projections.Projections
}

func startAlerting(t *testing.T, url string, sender commands.Sender, rules domain.AlertRules) *alerting {
	t.Helper()
	return startScanning(t, url, sender, rules, 20*time.Millisecond)
}

func startScanning(t *testing.T, url string, sender commands.Sender, rules domain.AlertRules, interval time.Duration) *alerting {
	t.Helper()
	a := &alerting{}
	a.node = start(t, url, sender, func(n *node, config *saga.Config) {
		logger := slog.New(slog.DiscardHandler)
		a.queries = projections.New(n.pool, n.log, logger)
		config.Failed = a.queries
		alerts := &saga.Alerts{Log: n.log, Directory: n.directory, Basis: a.queries, Rules: rules, Interval: interval, Logger: logger}
		config.Parts = append(config.Parts, a.queries.AddTo, func(ctx context.Context, router *message.Router, node *eventstore.Node) error {
			return alerts.AddTo(ctx, router, node)
		})
		config.Beside = append(config.Beside, alerts.Run)
	})
	return a
}

// await waits until the alerts, oldest first, are these: "kind state".
func (a *alerting) await(want ...string) {
	a.t.Helper()
	a.awaitAlerts(fmt.Sprintf("%q", want), func(alerts []projections.Alert) bool {
		var got []string
		for _, alert := range slices.Backward(alerts) {
			got = append(got, alert.Kind+" "+string(alert.State))
		}
		return slices.Equal(got, want)
	})
}

// awaitAlerts waits until the alerts, newest first, are as wanted.
func (a *alerting) awaitAlerts(want string, are func([]projections.Alert) bool) {
	a.t.Helper()
	var page projections.Page[projections.Alert]
	defer func() {
		if a.t.Failed() {
			a.t.Logf("alerts are %+v", page.Items)
		}
	}()
	harness.Until(a.t, "the alerts are "+want, func() bool {
		next, err := a.queries.Alerts(a.t.Context(), projections.AlertFilter{Limit: 100})
		if err != nil {
			a.t.Fatalf("waiting for %s: %v", want, err)
		}
		page = next
		return are(page.Items)
	})
}

// deliver triggers an event and waits for the end of its delivery to w.
func (a *alerting) deliver(w domain.WebhookID, want domain.DeliveryState) {
	a.t.Helper()
	a.awaitState(domain.DeliveryOf(a.trigger(), w), want)
}

func quiet(c *domain.WebhookRegistered) { c.MaxRetries = 0 }

func TestAlertsOfFailingCalls(t *testing.T) {
	t.Parallel()
	rules := domain.DefaultAlertRules
	rules.RateCalls = 13
	var outcome atomic.Value
	outcome.Store(domain.Outcome("http_error"))
	notices := make(chan string, 16)
	r := newReceiver()
	r.answer = func(call commands.Outgoing) commands.Answer {
		var body struct {
			EventType string          `json:"event_type"`
			Data      json.RawMessage `json:"event_data"`
		}
		if err := json.Unmarshal(call.Body, &body); err != nil {
			t.Error(err)
		}
		switch domain.EventType(body.EventType) {
		case domain.DeliveryGivenUp:
			return commands.Answer{Outcome: "http_error", Status: 500} // which is no alert
		case domain.AlertRaised, domain.AlertResolved:
			var notice struct{ Kind, State string }
			if err := json.Unmarshal(body.Data, &notice); err != nil {
				t.Error(err)
			}
			notices <- fmt.Sprintf("%s %s %s", body.EventType, notice.Kind, notice.State)
			return commands.Answer{Outcome: "http_error", Status: 500} // which is no alert
		}
		return commands.Answer{Outcome: outcome.Load().(domain.Outcome)}
	}
	url := testdb.New(t)
	n := startAlerting(t, url, r, rules)
	w := n.register(1, quiet)
	n.register(2, func(c *domain.WebhookRegistered) { c.Events, c.MaxRetries = []string{"webhook.*"}, 0 })

	for range 10 {
		n.deliver(w, domain.DeliveryFailed)
	}
	n.await("given_up open")
	n.deliver(w, domain.DeliveryFailed)
	n.await("given_up open", "consecutive_failures open")
	n.deliver(w, domain.DeliveryFailed) // raised once
	outcome.Store(domain.OutcomeTimeout)
	n.deliver(w, domain.DeliveryFailed)
	n.await("given_up open", "consecutive_failures open", "timeout open", "low_success_rate open")

	// Another process goes on where this one ended.
	n.stop()
	n = startAlerting(t, url, r, rules)
	outcome.Store(domain.OutcomeSuccess)
	n.deliver(w, domain.DeliveryDelivered)
	n.await("given_up open", "consecutive_failures resolved", "timeout resolved", "low_success_rate open")
	n.append(w.Stream(), 1, domain.WebhookDeleted{})
	n.await("given_up resolved", "consecutive_failures resolved", "timeout resolved", "low_success_rate resolved")

	var got []string
	for range 8 {
		select {
		case notice := <-notices:
			got = append(got, notice)
		case <-time.After(time.Minute):
			t.Fatalf("subscribers got %q", got)
		}
	}
	slices.Sort(got)
	want := []string{
		"webhook.alert_raised consecutive_failures open", "webhook.alert_raised given_up open", "webhook.alert_raised low_success_rate open", "webhook.alert_raised timeout open",
		"webhook.alert_resolved consecutive_failures resolved", "webhook.alert_resolved given_up resolved", "webhook.alert_resolved low_success_rate resolved", "webhook.alert_resolved timeout resolved",
	}
	if !slices.Equal(got, want) {
		t.Errorf("subscribers got %q", got)
	}
}

// A webhook that gets alerts in batches raises none about itself, unless other events are among them.
func TestNoAlertsOfBatchedAlerts(t *testing.T) {
	t.Parallel()
	rules := domain.DefaultAlertRules
	rules.Failures, rules.RateCalls = 0, 1
	r := newReceiver()
	r.answer = func(commands.Outgoing) commands.Answer { return commands.Answer{Outcome: domain.OutcomeTimeout} }
	url := testdb.New(t)
	n := startAlerting(t, url, r, rules)
	w := n.register(1, quiet)
	listener := n.register(2, func(c *domain.WebhookRegistered) {
		c.Events, c.MaxRetries, c.Batch = []string{"webhook.alert_raised"}, 0, &domain.Batch{MaxEvents: 1, MaxWait: 1}
	})
	n.deliver(w, domain.DeliveryFailed)
	const kinds = 4
	ofWebhook := func(id domain.WebhookID) (kinds []string) {
		page, err := n.queries.Alerts(t.Context(), projections.AlertFilter{Webhook: id, Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		for _, alert := range page.Items {
			kinds = append(kinds, alert.Kind)
		}
		return kinds
	}
	called := func() bool {
		stats, err := n.queries.Stats(t.Context(), listener, projections.StatsFilter{})
		return err == nil && stats.Exhausted >= kinds
	}
	harness.Until(t, "the alerts about the other were sent", called)
	n.awaitAlertsRead()
	if own := ofWebhook(listener); len(own) > 0 || len(ofWebhook(w)) != kinds {
		t.Errorf("alerts about the listener %q, about the other %q", own, ofWebhook(w))
	}

	// Another process reads the calls again that are in the figures already.
	n.stop()
	n = startAlerting(t, url, r, rules)
	if _, err := n.pool.Exec(t.Context(), `UPDATE medilab.readers SET position = 0 WHERE name = 'alerts'`); err != nil {
		t.Fatal(err)
	}
	n.awaitAlertsRead()
	if own := ofWebhook(listener); len(own) > 0 {
		t.Errorf("read again, alerts about the listener %q", own)
	}
	n.verify()
}

// A page that comes again raises nothing again that was resolved since.
func TestTimeoutIsRaisedOnce(t *testing.T) {
	t.Parallel()
	var outcome atomic.Value
	outcome.Store(domain.OutcomeTimeout)
	r := newReceiver()
	r.answer = func(commands.Outgoing) commands.Answer {
		return commands.Answer{Outcome: outcome.Load().(domain.Outcome)}
	}
	url := testdb.New(t)
	n := startAlerting(t, url, r, domain.DefaultAlertRules)
	w := n.register(1, func(c *domain.WebhookRegistered) { c.MaxRetries = 1 })
	id := domain.DeliveryOf(n.trigger(), w)
	n.await("timeout open")
	outcome.Store(domain.OutcomeSuccess)
	n.awaitState(id, domain.DeliveryDelivered)
	n.await("timeout resolved")
	n.stop()

	pool, err := eventstore.OpenPool(t.Context(), url, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if _, err := pool.Exec(t.Context(), `UPDATE medilab.readers SET position = 0 WHERE name = 'alerts'`); err != nil {
		t.Fatal(err)
	}
	n = startAlerting(t, url, r, domain.DefaultAlertRules)
	n.awaitAlertsRead()
	n.await("timeout resolved")
}

// A call whose delivery is cancelled meanwhile is judged like others.
func TestTimeoutOfWhatIsCancelled(t *testing.T) {
	t.Parallel()
	r := newStepwise(t)
	n := startAlerting(t, testdb.New(t), r, domain.DefaultAlertRules)
	w := n.register(1, nil)
	event := n.trigger()
	call := r.next(event)
	n.cancel(domain.DeliveryOf(event, w))
	call.answer <- commands.Answer{Outcome: domain.OutcomeTimeout}
	n.await("timeout open")
}

// It is also judged by who reads of it when the figures have gone on.
func TestTimeoutOfWhatIsCancelledIsCaughtUp(t *testing.T) {
	t.Parallel()
	r, url := newStepwise(t), testdb.New(t)
	var queries *projections.Projections
	n := start(t, url, r, func(n *node, config *saga.Config) {
		queries = projections.New(n.pool, n.log, slog.New(slog.DiscardHandler))
		config.Parts, config.Failed = append(config.Parts, queries.AddTo), queries
	})
	w := n.register(1, nil)
	late := n.trigger()
	call := r.next(late)
	n.cancel(domain.DeliveryOf(late, w))
	call.answer <- commands.Answer{Outcome: domain.OutcomeTimeout}
	n.awaitStats(queries, w, 1)
	r.next(n.trigger()).succeed()
	n.awaitStats(queries, w, 2)
	n.stop()
	startAlerting(t, url, r, domain.DefaultAlertRules).await("timeout resolved")
}

// awaitStats waits until so many calls to the webhook count.
func (n *node) awaitStats(queries *projections.Projections, w domain.WebhookID, calls int64) {
	n.t.Helper()
	harness.Until(n.t, fmt.Sprintf("%d calls count", calls), func() bool {
		stats, err := queries.Stats(n.t.Context(), w, projections.StatsFilter{})
		return err == nil && stats.TotalCalls == calls
	})
}

func TestAlertsOfInactiveWebhooks(t *testing.T) {
	t.Parallel()
	rules := domain.DefaultAlertRules
	rules.InactiveAfter = time.Second
	url := testdb.New(t)
	n := startAlerting(t, url, newReceiver(), rules)
	w := n.register(1, quiet)
	n.register(2, func(c *domain.WebhookRegistered) { c.Events = []string{"webhook.*"} }) // none are sent to it: no alert
	n.await("inactive open")
	n.stop()
	n = startAlerting(t, url, newReceiver(), rules) // knows what is open
	n.deliver(w, domain.DeliveryDelivered)
	n.await("inactive resolved", "inactive open") // and again after a while
	n.append(w.Stream(), 1, domain.WebhookDeactivated{})
	n.append(w.Stream(), 2, domain.WebhookActivated{})
	n.append(w.Stream(), 3, domain.WebhookDeactivated{})
	n.await("inactive resolved", "inactive resolved", "inactive open")
}

// A call that succeeds resolves at once what is open, with no scan, even of a webhook
// whose calls have all succeeded.
func TestACallResolvesAnAlertAtOnce(t *testing.T) {
	t.Parallel()
	rules := domain.DefaultAlertRules
	rules.InactiveAfter = time.Second
	url := testdb.New(t)
	n := startAlerting(t, url, newReceiver(), rules)
	w := n.register(1, quiet)
	n.await("inactive open")
	n.stop()
	n = startScanning(t, url, newReceiver(), rules, time.Hour)
	n.register(2, func(c *domain.WebhookRegistered) { c.Events = []string{"webhook.*"} })
	n.awaitAlertsRead() // it began from the alert that is open, and looked at all webhooks
	n.await("inactive open")
	n.deliver(w, domain.DeliveryDelivered)
	n.await("inactive resolved")
}

// awaitAlertsRead waits until the alerts have read what the log holds.
func (a *alerting) awaitAlertsRead() {
	a.t.Helper()
	var head, read eventstore.Position
	if err := a.pool.QueryRow(a.t.Context(), `SELECT position FROM medilab.log_head`).Scan(&head); err != nil {
		a.t.Fatal(err)
	}
	harness.Until(a.t, "the alerts have read the log", func() bool {
		if err := a.pool.QueryRow(a.t.Context(), `SELECT position FROM medilab.readers WHERE name = 'alerts'`).Scan(&read); err != nil {
			a.t.Fatal(err)
		}
		return read >= head
	})
}
