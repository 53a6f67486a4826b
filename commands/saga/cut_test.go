package saga_test

import (
	"testing"

	"github.com/medilab/webhooks/commands/saga"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/migrations/testdb"
)

func (n *node) url() string { return n.pool.Config().ConnString() }

const cutShort = `SELECT count(*) FROM medilab.cut_short`

// What a dead node may have been calling when it was cancelled was maybe sent: nobody knows.
func TestCancelledUnderADeadNode(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		claim string // of the delivery, by the node dead
		batch bool
	}{
		"by a row of its own":  {claim: `UPDATE medilab.queue SET node = dead.id FROM dead`},
		"by a batch's":         {claim: `UPDATE medilab.queue SET node = dead.id FROM dead`, batch: true},
		"by a row of the rest": {claim: `, rest AS (DELETE FROM medilab.queue RETURNING *) INSERT INTO medilab.claims SELECT dead.id, delivery_id, ARRAY[delivery_id], ARRAY[webhook_id], ARRAY[event_id], ARRAY[size] FROM dead, rest`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := start(t, testdb.New(t), newReceiver(), func(_ *node, config *saga.Config) { config.Deliver = c.batch })
			w := n.register(1, func(change *domain.WebhookRegistered) {
				if c.batch {
					batching(2, 1)(change)
				}
			})
			event := n.trigger()
			id, version, eventType := domain.DeliveryOf(event, w), int64(0), "patient.created"
			if c.batch {
				n.append(w.Stream(), 1, domain.WebhookDeactivated{})
				id, version, eventType = domain.BatchOf(id), 1, string(domain.BatchEventType)
				n.awaitState(id, domain.DeliveryPending)
			}
			if _, err := n.pool.Exec(t.Context(), `WITH dead AS (INSERT INTO medilab.nodes (name, lease_until) VALUES ('dead', 'infinity') RETURNING id) `+c.claim); err != nil {
				t.Fatal(err)
			}
			n.append(id.Stream(), version, domain.DeliveryCancelled{EventID: event, WebhookID: w, Reason: domain.CancelSubjectErased})
			// What else becomes of it does not say how that call ended.
			n.append(id.Stream(), version+1, domain.DeliveryOutcomeLate{Call: domain.Call{EventID: event, EventType: eventType, WebhookID: w, Attempt: 7, Outcome: "timeout"}})
			if got := n.count(cutShort); got != 1 {
				t.Fatalf("%d are noted", got)
			}
			if _, err := n.pool.Exec(t.Context(), `UPDATE medilab.nodes SET lease_until = '-infinity' WHERE name = 'dead'`); err != nil {
				t.Fatal(err)
			}
			if !c.batch {
				start(t, n.url(), newReceiver())
			}
			n.awaitVersion(id, int(version)+3)
			stream, err := n.log.Load(t.Context(), id.Stream())
			if err != nil {
				t.Fatal(err)
			}
			late, ok := stream[version+2].Value.(domain.DeliveryOutcomeLate)
			if !ok || late.Outcome != domain.OutcomeInterrupted || late.Attempt != 1 || late.EventID != event || late.EventType != eventType || !late.Counts {
				t.Errorf("recorded as %+v", stream[version+2])
			}
			n.awaitRows(cutShort, 0)
			n.awaitEmptyQueue()
			n.verify()
		})
	}
}

// A node that lives records how the call ended, and of what it had not called, nothing.
func TestCancelledUnderALiveNode(t *testing.T) {
	t.Parallel()
	in := newStepwise(t)
	n := start(t, testdb.New(t), in)
	w := n.register(1, func(c *domain.WebhookRegistered) { c.MaxConcurrent = 1 })
	called, waits := n.trigger(), n.trigger()
	call := <-in.calls
	n.await(`SELECT count(*) = 2 FROM medilab.pending WHERE node > 0`)
	for _, event := range []domain.EventID{called, waits} {
		n.append(domain.DeliveryOf(event, w).Stream(), 0, domain.DeliveryCancelled{EventID: event, WebhookID: w, Reason: domain.CancelRequested})
	}
	if got := n.count(cutShort); got != 2 {
		t.Errorf("%d are noted", got)
	}
	call.succeed()
	n.awaitVersion(domain.DeliveryOf(called, w), 2)
	n.awaitRows(cutShort, 1)
	after := appending(t, n.url())
	n.stop()
	if got := after.count(cutShort); got != 0 {
		t.Errorf("%d are noted when it has stopped", got)
	}
}

// A node that was taken for dead and wakes up adds how the call ended, which then counts once.
func TestCancelledUnderAFrozenNode(t *testing.T) {
	t.Parallel()
	in := newStepwise(t)
	n := start(t, testdb.New(t), in)
	w := n.register(1, nil)
	event := n.trigger()
	id := domain.DeliveryOf(event, w)
	call := <-in.calls
	n.append(id.Stream(), 0, domain.DeliveryCancelled{EventID: event, WebhookID: w, Reason: domain.CancelRequested})
	cut := domain.DeliveryInterrupted{EventID: event, EventType: "patient.created", WebhookID: w, Attempt: 1}
	n.append(id.Stream(), 1, cut.Late(n.log.Clock().Now()))
	call.succeed()
	n.awaitVersion(id, 3)
	stream, err := n.log.Load(t.Context(), id.Stream())
	if err != nil {
		t.Fatal(err)
	}
	if late, ok := stream[2].Value.(domain.DeliveryOutcomeLate); !ok || late.Outcome != domain.OutcomeSuccess || late.Counts {
		t.Errorf("recorded as %+v", stream[2])
	}
}
