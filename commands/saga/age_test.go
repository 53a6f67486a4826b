package saga_test

import (
	"testing"
	"time"

	"github.com/medilab/webhooks/commands/saga"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/migrations/testdb"
)

// The queue is as old as what is due for longest, claimed by nobody, and of an active webhook.
func TestQueueAge(t *testing.T) {
	n := start(t, testdb.New(t), newReceiver(), func(_ *node, c *saga.Config) { c.Deliver = false })
	age := func() time.Duration {
		t.Helper()
		age, err := saga.Queue{Pool: n.pool}.Age(t.Context(), n.directory)
		if err != nil {
			t.Fatal(err)
		}
		return age
	}
	due := func(w domain.WebhookID, ago string, node any) {
		t.Helper()
		_, err := n.pool.Exec(t.Context(), `INSERT INTO medilab.queue (delivery_id, webhook_id, event_id, size, attempt, retries, version, due_at, node)
			VALUES (gen_random_uuid(), $1, gen_random_uuid(), 1, 1, 0, 0, now() - $2::interval, $3)`, w, ago, node)
		if err != nil {
			t.Fatal(err)
		}
	}
	inactive := n.register(1, nil)
	n.append(inactive.Stream(), 1, domain.WebhookDeactivated{})
	due(inactive, "3 days", nil)
	first, second := n.register(2, nil), n.register(3, nil)
	due(first, "-1 hours", nil)
	due(second, "2 days", int64(0)) // held by an order
	if got := age(); got != 0 {
		t.Errorf("nothing is due, and the queue's age is %v", got)
	}
	due(first, "1 hours", nil)
	due(second, "2 hours", nil)
	due(second, "1 minutes", nil)
	if got := age(); got < 2*time.Hour || got >= 3*time.Hour {
		t.Errorf("the queue's age is %v", got)
	}
}
