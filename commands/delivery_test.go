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

// newMember returns commands on a log with one delivery, a member of a batch, and what adds to the log.
func newMember(t *testing.T) (c *Commands, batch domain.DeliveryID, member domain.BatchMember, w domain.WebhookID, add func(id domain.DeliveryID, version int64, change domain.Change)) {
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
	member.EventID = domain.EventID(uuid.Must(uuid.NewV7()))
	member.DeliveryID = domain.DeliveryOf(member.EventID, w)
	batch, batched, joined := domain.FormBatch(w, []domain.Waiting{{BatchMember: member}})
	add(batch, 0, batched)
	add(member.DeliveryID, 0, joined[0])
	return &Commands{Log: log, Directory: directory, Pool: pool}, batch, member, w, add
}

// A member cannot leave a batch that has gone on since that was decided.
func TestLeavesItsBatchAsItWas(t *testing.T) {
	ctx := t.Context()
	c, batch, of, w, add := newMember(t)
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
	c, batch, of, w, add := newMember(t)
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
