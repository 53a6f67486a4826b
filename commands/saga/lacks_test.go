package saga_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/commands/saga"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/migrations/testdb"
	"github.com/medilab/webhooks/projections"
)

// What this server lacks is no attempt: the deliveries wait and then go as the first one,
// nothing of it is in their streams or the statistics, and an alert says so meanwhile.
func TestDeliveriesWaitForWhatThisServerLacks(t *testing.T) {
	t.Parallel()
	var lacking atomic.Bool
	lacking.Store(true)
	r := newReceiver()
	r.answer = func(commands.Outgoing) commands.Answer {
		if lacking.Load() {
			return commands.Answer{Outcome: domain.LacksDescriptors, Error: "nothing was sent"}
		}
		return commands.Answer{Outcome: domain.OutcomeSuccess, Status: 200}
	}
	n := startScanning(t, testdb.New(t), r, domain.DefaultAlertRules, time.Hour)
	w := n.register(1, quiet)
	var ids []domain.DeliveryID
	for range 100 {
		ids = append(ids, domain.DeliveryOf(n.trigger(), w))
	}
	n.await("node open")
	if pending := n.pending(); pending != len(ids) {
		t.Errorf("%d deliveries are pending of %d", pending, len(ids))
	}
	lacking.Store(false)
	for _, id := range ids {
		if d := n.awaitState(id, domain.DeliveryDelivered); d.Attempts != 1 || d.Version != 1 {
			t.Errorf("delivered by attempt %d, with %d entries", d.Attempts, d.Version)
		}
		if attempts := r.attempts(id); slices.ContainsFunc(attempts, func(number string) bool { return number != "1" }) {
			t.Errorf("attempts %v", attempts)
		}
	}
	n.await("node resolved")
	page, err := n.queries.Alerts(t.Context(), projections.AlertFilter{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"message":"the server ` + t.Name() + ` lacks free file descriptors: deliveries wait","observed":0,"limit":0,"nodes":[{"node":"` + t.Name() + `","lacks":"no_descriptors"}]}`
	if a := page.Items[0]; a.WebhookID != nil || string(a.Details) != want {
		t.Errorf("about %v: %s, want %s", a.WebhookID, a.Details, want)
	}
	stats, err := n.queries.SystemStats(t.Context(), projections.StatsFilter{})
	if err != nil {
		t.Fatal(err)
	}
	if stats.TotalCalls != int64(len(ids)) || stats.FailedCalls != 0 {
		t.Errorf("%d calls, %d failed", stats.TotalCalls, stats.FailedCalls)
	}
}

// What a node lacked is over once it is stopped: the next one need not wait for a scan.
func TestALackEndsWithItsNode(t *testing.T) {
	t.Parallel()
	r := newReceiver()
	r.answer = func(commands.Outgoing) commands.Answer {
		return commands.Answer{Outcome: domain.LacksDescriptors, Error: "nothing was sent"}
	}
	url := testdb.New(t)
	n := startScanning(t, url, r, domain.DefaultAlertRules, time.Hour)
	n.register(1, quiet)
	n.trigger()
	n.await("node open")
	n.stop()
	n = startScanning(t, url, newReceiver(), domain.DefaultAlertRules, time.Hour)
	n.await("node resolved")
}

// pending counts the rows of the queue.
func (n *node) pending() (count int) {
	n.t.Helper()
	if err := n.pool.QueryRow(n.t.Context(), `SELECT count(*) FROM medilab.pending`).Scan(&count); err != nil {
		n.t.Fatal(err)
	}
	return count
}

// keyless cannot decrypt until it has the key. asked receives once it was tried.
type keyless struct {
	hasKey atomic.Bool
	asked  chan struct{}
}

func (k *keyless) Decrypt(w domain.WebhookID, field string, sealed domain.Sealed) (string, error) {
	if !k.hasKey.Load() {
		select {
		case k.asked <- struct{}{}:
		default:
		}
		return "", errors.New("no key")
	}
	return clear{}.Decrypt(w, field, sealed)
}

func TestDeliveryWaitsForTheKeyOfItsSecret(t *testing.T) {
	t.Parallel()
	keys := &keyless{asked: make(chan struct{}, 1)}
	r := newReceiver()
	n := start(t, testdb.New(t), r, func(_ *node, config *saga.Config) { config.Attempter.Decrypter = keys })
	w := n.register(1, func(c *domain.WebhookRegistered) { c.MaxRetries, c.Secret = 0, "secret" })
	id := domain.DeliveryOf(n.trigger(), w)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range 2 { // it tries again
		select {
		case <-keys.asked:
		case <-ctx.Done():
			t.Fatal("the key is not asked for")
		}
	}
	keys.hasKey.Store(true)
	if d := n.awaitState(id, domain.DeliveryDelivered); d.Attempts != 1 || len(r.attempts(id)) != 1 {
		t.Errorf("%+v", d)
	}
}
