package commands

import (
	"log/slog"
	"testing"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations/testdb"
)

// A member cannot leave a batch that has gone on since that was decided.
func TestLeavesItsBatchAsItWas(t *testing.T) {
	ctx := t.Context()
	pool, err := eventstore.OpenPool(ctx, testdb.New(t), 4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	directory := NewDirectory(slog.New(slog.DiscardHandler))
	log := eventstore.Open(eventstore.Config{Pool: pool, Observers: []eventstore.Observer{directory.Observe},
		Codec: func(name string, data []byte) (any, error) { return domain.Decode(name, data) }})
	t.Cleanup(log.Close)
	if err := directory.Open(ctx, log); err != nil {
		t.Fatal(err)
	}
	c, caller := &Commands{Log: log, Directory: directory, Pool: pool}, Caller{Actor: "test"}
	add := func(id domain.DeliveryID, version int64, change domain.Change) {
		if _, err := log.Append(ctx, caller.unit(id.Stream(), version, change)); err != nil {
			t.Fatal(err)
		}
	}
	event, w := domain.EventID(uuid.Must(uuid.NewV7())), domain.WebhookID(uuid.New())
	member := domain.DeliveryOf(event, w)
	batch, batched, joined := domain.FormBatch(w, []domain.Waiting{{BatchMember: domain.BatchMember{EventID: event, DeliveryID: member}}})
	add(batch, 0, batched)
	add(member, 0, joined[0])

	var states []domain.DeliveryState
	_, err = c.changeDelivery(ctx, caller, member, func(d domain.Delivery, member *domain.Delivery) (domain.Change, error) {
		if states = append(states, d.State); d.State != domain.DeliveryPending {
			return nil, domain.Conflict("the batch has ended")
		}
		add(batch, 1, domain.DeliverySucceeded{Call: domain.Call{EventID: event, WebhookID: w, Attempt: 1, Outcome: domain.OutcomeSuccess, Status: 200}})
		return domain.DecideLeave(*member, domain.CancelSubjectErased), nil
	})
	if domain.KindOf(err) != domain.KindConflict || len(states) != 2 || states[1] != domain.DeliveryDelivered {
		t.Errorf("it left with %v, decided in the states %v", err, states)
	}
	if events, err := log.Load(ctx, member.Stream()); err != nil || len(events) != 1 {
		t.Errorf("its stream has %d events, %v", len(events), err)
	}
}
