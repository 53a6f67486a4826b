package saga_test

import (
	"bytes"
	"testing"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/migrations/testdb"
	"github.com/medilab/webhooks/projections"
)

// failedBatch is a replaying node with a webhook under the rule, and a batch to it that has failed with one
// event of each of the patients.
func failedBatch(t *testing.T, rule func(*domain.WebhookRegistered), patients ...int) (n *replaying, in *stepwise, w domain.WebhookID, events []domain.EventID, batch domain.DeliveryID) {
	t.Helper()
	in = newStepwise(t)
	n = startReplaying(t, testdb.New(t), in)
	w = n.register(1, func(c *domain.WebhookRegistered) {
		rule(c)
		batching(len(patients), never)(c)
	})
	for _, patient := range patients {
		events = append(events, n.triggerOf(patient))
	}
	batch = domain.BatchOf(domain.DeliveryOf(events[0], w))
	(<-in.calls).fail()
	n.awaitState(batch, domain.DeliveryFailed)
	return n, in, w, events, batch
}

// A replay sends the events of a batch that holds up its line by themselves, before what waits behind it:
// once all have left, the batch is over.
func TestReplayOfABatchThatBlocks(t *testing.T) {
	t.Parallel()
	in := newStepwise(t)
	n := startReplaying(t, testdb.New(t), in)
	w := n.register(1, func(c *domain.WebhookRegistered) {
		blocking(c)
		batching(2, never)(c)
	})
	first, second := n.triggerOf(1), n.triggerOf(1)
	batch := domain.BatchOf(domain.DeliveryOf(first, w))
	call := <-in.calls
	behind, last := n.triggerOf(1), n.triggerOf(1)
	call.fail()
	n.awaitBlocked(batch)
	n.awaitGiven(projections.AlertOpen, domain.DeliveryOf(first, w), domain.DeliveryOf(second, w))

	failed := history(w)
	failed.OnlyFailed = true
	id := n.start(failed)
	for _, event := range []domain.EventID{first, second} {
		call := in.next(event)
		n.verify()
		call.succeed()
	}
	if ended := n.awaitState(batch, domain.DeliveryWithdrawn); ended.CancelReason != domain.CancelReplayed {
		t.Errorf("the batch ends as %+v", ended)
	}
	call = <-in.calls
	for _, event := range []domain.EventID{behind, last} {
		if !bytes.Contains(call.Body, []byte(event.String())) {
			t.Errorf("behind it goes %s, want event %s", call.Body, event)
		}
	}
	call.succeed()
	if done := n.awaitReplay(id, "over", finished); done.Delivered != 2 || *done.Matched != 2 {
		t.Errorf("it ends as %+v", done)
	}
	n.awaitGiven(projections.AlertResolved)
	n.awaitEmptyQueue()
	n.verify()
}

// What a replay has sent of a batch that failed is not sent again with it, nor what was withdrawn with the replay.
func TestRetryOfABatchThatEventsHaveLeft(t *testing.T) {
	t.Parallel()
	for _, rule := range []func(*domain.WebhookRegistered){quiet, blocking} {
		n, in, w, events, batch := failedBatch(t, rule, 1, 1, 1)
		id := n.start(history(w))
		in.next(events[0]).succeed()
		call := in.next(events[1])
		n.ask(id, domain.Replay.Cancel)
		call.fail()
		n.awaitState(domain.DeliveryOf(events[1], w), domain.DeliveryFailed)
		n.awaitReplay(id, "over", finished)
		n.awaitState(batch, domain.DeliveryFailed)
		n.retry(batch, events[0], w, 1)
		if len(n.blocked()) > 0 { // the event that failed is before it
			n.retry(domain.DeliveryOf(events[1], w), events[1], w, 1)
			in.next(events[1]).succeed()
		}
		again := <-in.calls
		if body := again.Body; bytes.Contains(body, []byte(events[0].String())) || bytes.Contains(body, []byte(events[1].String())) || !bytes.Contains(body, []byte(events[2].String())) {
			t.Errorf("the batch is sent as %s", body)
		}
		again.succeed()
		n.awaitState(batch, domain.DeliveryDelivered)
		n.verify()
	}
}

// The alert about a batch stays open until each of its events has arrived by itself.
func TestAlertOfABatchThatAReplayEnds(t *testing.T) {
	t.Parallel()
	n, in, w, events, batch := failedBatch(t, blocking, 1, 2)
	n.awaitGiven(projections.AlertOpen, domain.DeliveryOf(events[0], w), domain.DeliveryOf(events[1], w))

	id := n.start(history(w))
	in.next(events[0]).succeed()
	last := in.next(events[1])
	n.awaitState(batch, domain.DeliveryWithdrawn)
	n.awaitGiven(projections.AlertOpen, domain.DeliveryOf(events[1], w))
	last.succeed()
	n.awaitReplay(id, "over", finished)
	n.awaitGiven(projections.AlertResolved)
	n.awaitEmptyQueue()
	n.verify()
}

// What has left a failed batch, as it is erased, does not keep it once the rest has left too.
func TestReplayOfABatchWithoutItsErased(t *testing.T) {
	t.Parallel()
	n, in, w, events, batch := failedBatch(t, blocking, 1, 2)
	n.append(domain.DeliveryOf(events[1], w).Stream(), 1, domain.DecideLeave(domain.Delivery{EventID: events[1], WebhookID: w}, domain.CancelSubjectErased))
	failed := history(w)
	failed.OnlyFailed = true
	id := n.start(failed)
	in.next(events[0]).succeed()
	n.awaitState(batch, domain.DeliveryWithdrawn)
	n.awaitReplay(id, "over", finished)
	if _, err := n.commands.RetryDelivery(t.Context(), commands.Caller{Actor: "test"}, batch); domain.KindOf(err) != domain.KindConflict {
		t.Errorf("it is sent again: %v", err)
	}
	n.awaitEmptyQueue()
	n.verify()
}

// The alert does not wait for what a replay could not send, as it was erased: it ended with its batch.
func TestAlertOfABatchWithErased(t *testing.T) {
	t.Parallel()
	n, _, w, events, batch := failedBatch(t, quiet, 1, 2)
	n.awaitGiven(projections.AlertOpen, domain.DeliveryOf(events[0], w), domain.DeliveryOf(events[1], w))
	n.append(batch.Stream(), 2, domain.DeliveryCancelled{EventID: events[0], WebhookID: w, Reason: domain.CancelReplayed, Was: domain.DeliveryFailed})
	n.awaitGiven(projections.AlertResolved)
	n.verify()
}
