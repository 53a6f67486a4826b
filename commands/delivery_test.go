package commands

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations/testdb"
)

// newBatch returns commands on a log with a batch of n members, and what adds to the log.
func newBatch(t *testing.T, n int) (c *Commands, batch domain.DeliveryID, members []domain.BatchMember, w domain.WebhookID, add func(id domain.DeliveryID, version int64, change domain.Change)) {
	t.Helper()
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
	add = func(id domain.DeliveryID, version int64, change domain.Change) {
		t.Helper()
		if _, err := log.Append(ctx, Caller{Actor: "test"}.unit(id.Stream(), version, change)); err != nil {
			t.Fatal(err)
		}
	}
	w = domain.WebhookID(uuid.New())
	var together []domain.Waiting
	for range n {
		event := domain.EventID(uuid.Must(uuid.NewV7()))
		together = append(together, domain.Waiting{BatchMember: domain.BatchMember{EventID: event, DeliveryID: domain.DeliveryOf(event, w)}})
	}
	batch, batched, joined := domain.FormBatch(w, together)
	add(batch, 0, batched)
	for i, m := range batched.Members {
		add(m.DeliveryID, 0, joined[i])
	}
	return &Commands{Log: log, Directory: directory, Pool: pool}, batch, batched.Members, w, add
}

// A member cannot leave a batch that has gone on since that was decided.
func TestLeavesItsBatchAsItWas(t *testing.T) {
	ctx := t.Context()
	c, batch, members, w, add := newBatch(t, 1)
	of := members[0]
	var states []domain.DeliveryState
	_, err := c.changeDelivery(ctx, Caller{Actor: "test"}, of.DeliveryID, func(d domain.Delivery, member *domain.Delivery) (domain.Change, error) {
		if states = append(states, d.State); d.State != domain.DeliveryPending {
			return nil, domain.Conflict("the batch has ended")
		}
		add(batch, 1, domain.DeliverySucceeded{Call: domain.Call{EventID: of.EventID, WebhookID: w, Attempt: 1, Outcome: domain.OutcomeSuccess, Status: 200}})
		return domain.DecideLeave(*member, domain.CancelSubjectErased), nil
	})
	if domain.KindOf(err) != domain.KindConflict || len(states) != 2 || states[1] != domain.DeliveryDelivered {
		t.Errorf("it left with %v, decided in the states %v", err, states)
	}
	if events, err := c.Log.Load(ctx, of.DeliveryID.Stream()); err != nil || len(events) != 1 {
		t.Errorf("its stream has %d events, %v", len(events), err)
	}
}

// Who asks for a retry of what a batch left out hears why there is nothing to deliver.
func TestRetryOfLeftOut(t *testing.T) {
	c, batch, members, w, add := newBatch(t, 1)
	of := members[0]
	for i, reason := range []domain.CancelReason{domain.CancelExpired, domain.CancelSubjectErased} {
		add(batch, int64(1+i), domain.DeliveryAttemptFailed{Call: domain.Call{
			EventID: of.EventID, WebhookID: w, Attempt: 1 + i, LeftOut: []domain.LeftOut{{EventID: of.EventID, Reason: reason}},
		}})
		_, err := c.RetryDelivery(t.Context(), Caller{Actor: "test"}, of.DeliveryID)
		if err == nil || strings.Contains(err.Error(), "expired") != (reason == domain.CancelExpired) {
			t.Errorf("left out as %s it is refused with %v", reason, err)
		}
	}
}

// What a replay asks for of a failed batch is a conflict if another of its events, or the batch itself, has
// gone on since it was decided whether that is over.
func TestLeavesAFailedBatchAsItWas(t *testing.T) {
	for name, moves := range map[string]bool{"": false, "another event": true, "the batch": true} {
		t.Run(name, func(t *testing.T) {
			c, id, members, w, add := newBatch(t, 2)
			add(id, 1, domain.DeliveryAttemptFailed{Call: domain.Call{EventID: members[0].EventID, WebhookID: w, Attempt: 1}, GaveUp: domain.GaveUpRetriesExhausted})
			batch, err := c.foldDelivery(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			asked := func(m domain.BatchMember) domain.Change {
				return domain.DeliveryRetryRequested{EventID: m.EventID, WebhookID: w, Attempt: 1, BatchID: id}
			}
			j := &job{r: &Replays{Log: c.Log}, caller: Caller{Actor: "test"}}
			unit := eventstore.Unit{Writes: []eventstore.Write{j.write(members[0].DeliveryID.Stream(), 1, asked(members[0]))}}
			if err := j.endEmptied(t.Context(), &unit, map[domain.DeliveryID]*standing{id: {Delivery: batch}}); err != nil {
				t.Fatal(err)
			}
			switch name {
			case "another event":
				add(members[1].DeliveryID, 1, asked(members[1]))
			case "the batch":
				add(id, 2, domain.DeliveryRetryRequested{EventID: members[0].EventID, WebhookID: w, Attempt: 2})
			}
			if _, err := c.Log.Append(t.Context(), unit); eventstore.IsConflict(err) != moves || !moves && err != nil {
				t.Errorf("got %v, want a conflict: %v", err, moves)
			}
		})
	}
}
