package saga_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/commands/saga"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/migrations/testdb"
)

func ordered(c *domain.WebhookRegistered) { c.OrderBy = "patient_id" }

func blocking(c *domain.WebhookRegistered) {
	c.OrderBy, c.OrderOnFailure, c.MaxRetries = "patient_id", domain.OrderBlock, 0
}

// triggerOf triggers an event of a patient.
func (n *node) triggerOf(patient any) domain.EventID {
	n.t.Helper()
	id := domain.EventID(uuid.Must(uuid.NewV7()))
	n.append(id.Stream(), 0, domain.EventTriggered{EventType: "patient.created", EventData: fmt.Appendf(nil, `{"patient_id":%v}`, patient)})
	return id
}

// order checks what a receiver sees: calls of a key never overlap, and no delivery is
// called after one that stands behind it in the log.
type order struct {
	mu     sync.Mutex
	t      *testing.T
	random *rand.Rand
	fail   float64
	keyOf  map[string]int
	turnOf map[string]int // of the delivery within its key
	last   map[int]int
	busy   map[int]string
	seen   map[string]bool
}

func (o *order) answer(call commands.Outgoing) commands.Answer {
	id := headerOf(call, "X-Webhook-Delivery-ID")
	o.mu.Lock()
	key, turn := o.keyOf[id], o.turnOf[id]
	if with := o.busy[key]; with != "" && with != id { // the same is one that was taken over
		o.t.Errorf("key %d: %s is called while %s is", key, id, with)
	}
	if turn < o.last[key] {
		o.t.Errorf("key %d: delivery %d is called after %d", key, turn, o.last[key])
	}
	o.last[key], o.busy[key], o.seen[id] = turn, id, true
	failed := o.random.Float64() < o.fail
	o.mu.Unlock()
	defer func() {
		o.mu.Lock()
		delete(o.busy, key)
		o.mu.Unlock()
	}()
	if failed {
		return commands.Answer{Outcome: "http_status", Status: 500}
	}
	return commands.Answer{Outcome: domain.OutcomeSuccess, Status: 200}
}

var _ = slices.Contains[[]int]
var _ saga.Queue

func TestOrderSmoke(t *testing.T) {
	r := newReceiver()
	n := start(t, testdb.New(t), r)
	w := n.register(1, ordered)
	var ids []domain.EventID
	for range 5 {
		ids = append(ids, n.triggerOf(7))
	}
	for _, id := range ids {
		n.awaitState(domain.DeliveryOf(id, w), domain.DeliveryDelivered)
	}
	n.awaitEmptyQueue()
}
