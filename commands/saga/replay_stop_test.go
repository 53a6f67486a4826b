package saga_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/commands/saga"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations/testdb"
	"github.com/medilab/webhooks/projections"
)

// A live event does not wait for a replay; a paused one sends nothing more; what a
// cancelled one has not sent counts as cancelled.
func TestReplayIsPausedAndCancelled(t *testing.T) {
	t.Parallel()
	in, let := gated()
	n := startReplaying(t, testdb.New(t), in)
	n.emit(100, 0)
	w := n.register(1, nil)
	for range 64 { // until the receiver is known to take many at once
		known := n.trigger()
		<-in.seen
		let <- struct{}{}
		n.awaitState(domain.DeliveryOf(known, w), domain.DeliveryDelivered)
	}
	id := n.start(history(w))
	for range 32 {
		<-in.seen
	}
	live := n.trigger()
	<-in.seen
	if got := in.attempts(domain.DeliveryOf(live, w)); len(got) != 1 {
		t.Fatal("the live event waits for the replay")
	}
	n.ask(id, domain.Replay.Pause)
	n.ask(id, domain.Replay.Pause) // changes nothing
	for range 33 {
		let <- struct{}{}
	}
	paused := n.awaitReplay(id, "paused", func(p projections.Replay) bool { return p.Delivered == 32 })
	if err := (&commands.Replays{Log: n.log, Directory: n.directory, Queue: saga.Queue{Pool: n.pool}, Pool: n.pool}).Run(t.Context(), id, nil, nil); err != nil {
		t.Fatal(err)
	}
	if paused.State != domain.ReplayStatePaused || paused.Queued != 32 || len(in.seen) > 0 {
		t.Errorf("paused as %+v, with %d more calls", paused, len(in.seen))
	}
	n.ask(id, domain.Replay.Resume)
	for range 32 {
		<-in.seen
	}
	n.ask(id, domain.Replay.Cancel)
	close(let)
	done := n.awaitReplay(id, "over", finished)
	if done.State != domain.ReplayStateCancelled || done.Queued != 64 || done.Delivered != 64 || done.Cancelled != 100 || len(in.seen) > 0 {
		t.Errorf("cancelled as %+v, with %d more calls", done, len(in.seen))
	}
	if _, err := (domain.Replay{Cancelled: true}).Resume(); err == nil {
		t.Error("a cancelled replay is resumed")
	}
}

// What is pending when a job is requested is not for it, whatever becomes of it while the job is paused.
func TestReplaySendsWhatItMatchedAtTheRequest(t *testing.T) {
	t.Parallel()
	single, batch := quiet, func(c *domain.WebhookRegistered) {
		quiet(c)
		batching(1, never)(c)
	}
	for name, c := range map[string]struct {
		spec    domain.ReplaySpec
		webhook func(*domain.WebhookRegistered)
	}{
		"all":               {domain.ReplaySpec{Kind: domain.KindReplay}, single},
		"only failed":       {domain.ReplaySpec{Kind: domain.KindReplay, OnlyFailed: true}, single},
		"retry":             {domain.ReplaySpec{Kind: domain.KindRetry}, single},
		"all, in batches":   {domain.ReplaySpec{Kind: domain.KindReplay}, batch},
		"retry, in batches": {domain.ReplaySpec{Kind: domain.KindRetry}, batch},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := newStepwise(t)
			n := startReplaying(t, testdb.New(t), in)
			w := n.register(1, c.webhook)
			const again, untried = 1, 2 // the other has failed
			events, deliveries := make([]domain.EventID, 3), make([]domain.DeliveryID, 3)
			for i := range events {
				events[i] = n.triggerOf(i)
				if deliveries[i] = domain.DeliveryOf(events[i], w); strings.Contains(name, "batches") {
					deliveries[i] = domain.BatchOf(deliveries[i])
				}
				if i != untried {
					(<-in.calls).fail()
					n.awaitState(deliveries[i], domain.DeliveryFailed)
				}
			}
			first := <-in.calls
			n.retry(deliveries[again], events[again], w, again)
			second := <-in.calls

			c.spec.WebhookID, c.spec.From, c.spec.To = w, time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
			id := n.start(c.spec)
			sent := <-in.calls
			n.awaitReplay(id, "counted", func(p projections.Replay) bool { return p.Matched != nil })
			n.ask(id, domain.Replay.Pause)
			first.fail()
			second.fail()
			n.awaitState(deliveries[untried], domain.DeliveryFailed)
			n.awaitState(deliveries[again], domain.DeliveryFailed)
			n.ask(id, domain.Replay.Resume)
			sent.succeed()
			done := n.awaitReplay(id, "over, or sending more", func(p projections.Replay) bool { return finished(p) || p.Queued > 1 })
			if *done.Matched != 1 || done.Queued != 1 || done.Delivered != 1 || done.Cancelled != 0 {
				t.Errorf("it ends as %+v", done)
			}
		})
	}
}

// Whoever goes on with a retry knows what it has under way: the next of a patient waits for it.
func TestResumedRetryKeepsTheOrder(t *testing.T) {
	t.Parallel()
	in := newStepwise(t)
	n := startReplaying(t, testdb.New(t), in)
	w := n.register(1, quiet)
	for range 2 {
		delivery := domain.DeliveryOf(n.triggerOf(1), w)
		(<-in.calls).fail()
		n.awaitState(delivery, domain.DeliveryFailed)
	}
	id := n.start(domain.ReplaySpec{Kind: domain.KindRetry, WebhookID: w})
	first := <-in.calls
	n.ask(id, domain.Replay.Pause)
	n.ask(id, domain.Replay.Resume)
	step := make(chan struct{})
	close(step)
	for range 3 { // one may release what was held, and one lose to the node
		all := commands.Replays{Log: n.log, Directory: n.directory, Queue: saga.Queue{Pool: n.pool}, Pool: n.pool, Failed: n.queries}
		if err := all.Run(t.Context(), id, nil, step); err != nil {
			t.Fatal(err)
		}
	}
	if progress := n.awaitReplay(id, "running", func(p projections.Replay) bool { return p.State == domain.ReplayStateRunning }); progress.Queued != 1 {
		t.Errorf("with one under way, %d are queued", progress.Queued)
	}
	first.succeed()
	(<-in.calls).succeed()
	if done := n.awaitReplay(id, "over", finished); *done.Matched != 2 || done.Delivered != 2 {
		t.Errorf("it ends as %+v", done)
	}
}

// holdless is a queue that holds nothing.
type holdless struct{ saga.Queue }

func (holdless) Hold(context.Context, domain.ReplayID) error { return errors.New("no connection") }

// A replay that is paused on record is paused for who asked, and the node that works on it holds what waits.
func TestReplayIsPausedThoughNothingIsHeldAtOnce(t *testing.T) {
	t.Parallel()
	n, _, id := replayWaiting(t)
	n.commands.Queue = holdless{}
	n.ask(id, domain.Replay.Pause)
	n.awaitRows(`SELECT count(*) FROM medilab.queue WHERE due_at > now() + interval '100 years'`, 3)
}

// A paused replay of a webhook that is deleted is cancelled, as one that runs.
func TestPausedReplayOfADeletedWebhookEnds(t *testing.T) {
	t.Parallel()
	n, w, id := replayWaiting(t)
	n.ask(id, domain.Replay.Pause)
	n.append(w.Stream(), 1, domain.WebhookDeleted{})
	done := n.awaitReplay(id, "over", finished)
	if done.State != domain.ReplayStateCancelled || done.Cancelled != 3 {
		t.Errorf("it ended as %+v", done)
	}
	n.verify()
}

// Once it is answered that a replay is paused or cancelled, no call of it begins, neither of what
// waits in the table nor of what a node has taken.
func TestNoCallFollowsTheAnswer(t *testing.T) {
	t.Parallel()
	const events = 40
	stops := map[string]func(domain.Replay) ([]domain.Change, error){"pause": domain.Replay.Pause, "cancel": domain.Replay.Cancel}
	for name, c := range map[string]struct {
		calls int // that the receiver gets at once
		limit func(*domain.WebhookRegistered)
	}{
		"inactive":   {0, func(c *domain.WebhookRegistered) { c.Active = false }},
		"one call":   {1, func(c *domain.WebhookRegistered) { c.MaxConcurrent = 1 }},
		"rate":       {8, func(c *domain.WebhookRegistered) { c.RateLimit = 20 }},
		"in a line":  {0, func(c *domain.WebhookRegistered) { c.Active, c.OrderBy = false, domain.OrderAll }},
		"no limit":   {8, nil},
		"many nodes": {8, func(c *domain.WebhookRegistered) { c.RateLimit = 20 }},
	} {
		for how, stop := range stops {
			if name == "in a line" && how == "pause" {
				continue // it goes on: live events wait behind it
			}
			t.Run(name+", "+how, func(t *testing.T) {
				t.Parallel()
				var late, begun atomic.Int64
				var over atomic.Bool
				called, let := make(chan struct{}, events), make(chan struct{})
				in := newReceiver()
				in.answer = func(call commands.Outgoing) commands.Answer {
					if headerOf(call, "X-Webhook-Replay") != "" {
						begun.Add(1)
						if over.Load() {
							late.Add(1)
						}
						called <- struct{}{}
						<-let
					}
					return commands.Answer{Outcome: domain.OutcomeSuccess, Status: 200}
				}
				url := testdb.New(t)
				n := startReplaying(t, url, in)
				asked := n
				if name == "many nodes" {
					n.awaitHeard(eventstore.AnnouncedAll) // it listens
					asked = startReplaying(t, url, in)
				}
				n.emit(events, 0)
				w := n.register(1, c.limit)
				id := n.start(history(w))
				n.awaitReplay(id, "under way", func(p projections.Replay) bool { return p.Queued > int64(c.calls) })
				for range c.calls { // no other begins before one of them ends
					<-called
				}
				asked.ask(id, stop)
				if name == "many nodes" {
					n.awaitHeard(id.Stream())
				}
				over.Store(true)
				close(let)
				if c.calls == 0 {
					n.append(w.Stream(), 1, domain.WebhookActivated{})
				}
				n.awaitState(domain.DeliveryOf(n.trigger(), w), domain.DeliveryDelivered) // what was before it has had its turn
				if late.Load() > 0 {
					t.Errorf("%d calls begin after the answer", late.Load())
				}
				if how == "pause" {
					over.Store(false)
					n.ask(id, domain.Replay.Resume)
					if done := n.awaitReplay(id, "over", finished); done.Delivered != events || begun.Load() != events {
						t.Errorf("with %d calls it ends as %+v", begun.Load(), done)
					}
				} else if done := n.awaitReplay(id, "over", finished); done.Delivered+done.Cancelled != events || done.Delivered != begun.Load() {
					t.Errorf("with %d calls it ends as %+v", begun.Load(), done)
				}
				n.verify()
			})
		}
	}
}

// What a node had under way of a replay that stopped is not called by a node that joins when that one is gone.
func TestNoCallFollowsOnANodeThatJoins(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]func(domain.Replay) ([]domain.Change, error){"pause": domain.Replay.Pause, "cancel": domain.Replay.Cancel} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, in := testdb.New(t), newStepwise(t)
			gone := start(t, url, in, func(_ *node, c *saga.Config) { c.Grace = 0 })
			asks := &replaying{&alerting{node: gone}, &commands.Commands{Log: gone.log, Directory: gone.directory, Queue: saga.Queue{Pool: gone.pool}, Pool: gone.pool}}
			asks.emit(1, 0)
			id := asks.start(history(gone.register(1, nil)))
			<-in.calls
			asks.ask(id, stop)
			gone.stop() // which cuts the call off

			var calls atomic.Int64
			after := newReceiver()
			after.answer = func(commands.Outgoing) commands.Answer {
				calls.Add(1)
				return commands.Answer{Outcome: domain.OutcomeSuccess, Status: 200}
			}
			joined := start(t, url, after, func(_ *node, c *saga.Config) { c.Dispatch = false })
			joined.await(`SELECT NOT EXISTS (SELECT FROM medilab.queue WHERE due_at < now() + interval '100 years')`)
			if calls.Load() > 0 {
				t.Error("it is called all the same")
			}
			n := startReplaying(t, url, after)
			if name == "pause" {
				n.ask(id, domain.Replay.Resume)
			}
			if done := n.awaitReplay(id, "over", finished); done.Delivered+done.Cancelled != 1 || (done.Cancelled == 1) != (name == "cancel") {
				t.Errorf("it ends as %+v", done)
			}
		})
	}
}

// What one node is asked to replay is announced, so that another that replays begins at once.
func TestReplaysAreAnnounced(t *testing.T) {
	t.Parallel()
	url, in := testdb.New(t), newReceiver()
	n := startReplaying(t, url, in)
	n.awaitHeard(eventstore.AnnouncedAll) // it listens
	asked := startReplaying(t, url, in)
	id := asked.start(history(n.register(1, nil)))
	n.awaitHeard("replays")
	n.awaitReplay(id, "over", finished)
}

// What a paused replay has asked for in a line goes on: live events wait behind it.
func TestPausedReplayHoldsUpNoLine(t *testing.T) {
	t.Parallel()
	in := newReceiver()
	in.answer = func(call commands.Outgoing) commands.Answer {
		if headerOf(call, "X-Webhook-Replay") != "" && headerOf(call, "X-Webhook-Attempt") == "1" {
			return commands.Answer{Outcome: "http_status", Status: 500}
		}
		return commands.Answer{Outcome: domain.OutcomeSuccess, Status: 200}
	}
	n := startReplaying(t, testdb.New(t), in)
	n.emit(2, 1)
	w := n.register(1, func(c *domain.WebhookRegistered) { c.OrderBy, c.RetryDelay = domain.OrderAll, 2 })
	id := n.start(history(w))
	<-in.seen
	n.ask(id, domain.Replay.Pause)
	if err := (&commands.Replays{Log: n.log, Directory: n.directory, Queue: saga.Queue{Pool: n.pool}, Pool: n.pool}).Run(t.Context(), id, nil, nil); err != nil {
		t.Fatal(err)
	}
	n.awaitState(domain.DeliveryOf(n.trigger(), w), domain.DeliveryDelivered)
	n.awaitReplay(id, "paused, with what waited delivered", func(p projections.Replay) bool {
		return p.State == domain.ReplayStatePaused && p.Delivered == p.Queued
	})
	n.verify()
}

// A cancelled job leaves what failed and blocks its line as it is.
func TestCancelledJobLeavesWhatBlocks(t *testing.T) {
	t.Parallel()
	in := newReceiver()
	var status atomic.Int64
	in.answer = func(commands.Outgoing) commands.Answer {
		if code := int(status.Load()); code != 200 {
			return commands.Answer{Outcome: "http_status", Status: code}
		}
		return commands.Answer{Outcome: domain.OutcomeSuccess, Status: 200}
	}
	n := startReplaying(t, testdb.New(t), in)
	w := n.register(1, func(c *domain.WebhookRegistered) {
		c.MaxRetries, c.OrderBy, c.OrderOnFailure = 0, domain.OrderAll, domain.OrderBlock
	})
	status.Store(200)
	head, next := domain.DeliveryOf(n.trigger(), w), domain.DeliveryOf(n.trigger(), w)
	n.awaitState(head, domain.DeliveryDelivered)
	n.awaitState(next, domain.DeliveryDelivered)

	status.Store(500)
	blocks := func(what string) {
		t.Helper()
		n.awaitState(head, domain.DeliveryFailed)
		if blocked := n.blocked(); len(blocked) != 1 || blocked[0] != head {
			t.Errorf("%s: %v blocks, want %v", what, blocked, head)
		}
		n.verify()
	}
	id := n.start(history(w))
	n.awaitReplay(id, "behind what failed", func(r projections.Replay) bool { return r.Failed == 1 && r.Queued == 2 })
	n.ask(id, domain.Replay.Cancel)
	if done := n.awaitReplay(id, "over", finished); *done.Matched != 2 || done.Failed != 1 || done.Cancelled != 1 {
		t.Errorf("the replay ends as %+v", done)
	}
	n.awaitState(next, domain.DeliveryWithdrawn)
	blocks("the replay")

	// It is to be retried in an hour when the job is cancelled.
	n.append(w.Stream(), 1, domain.WebhookChanged{MaxRetries: new(3), RetryDelay: new(3600)})
	id = n.start(domain.ReplaySpec{Kind: domain.KindRetry, WebhookID: w})
	n.awaitReplay(id, "waiting for the retry", func(projections.Replay) bool { return len(in.attempts(head)) == 3 && n.pending() == 1 })
	n.ask(id, domain.Replay.Cancel)
	if done := n.awaitReplay(id, "over", finished); *done.Matched != 1 || done.Failed != 0 || done.Cancelled != 1 {
		t.Errorf("the retry ends as %+v", done)
	}
	blocks("the retry")
}

// What failed, and is cancelled later, counts once.
func TestReplayCountsWhatFailedOnce(t *testing.T) {
	t.Parallel()
	in := newReceiver()
	in.answer = func(commands.Outgoing) commands.Answer { return commands.Answer{Outcome: "http_status", Status: 500} }
	n := startReplaying(t, testdb.New(t), in)
	events := n.emit(1, 0)
	w := n.register(1, func(c *domain.WebhookRegistered) { c.MaxRetries = 0 })
	first := n.start(history(w))
	n.awaitReplay(first, "over", finished)
	n.cancel(domain.DeliveryOf(events[0], w))
	n.awaitReplay(n.start(history(w)), "over", finished) // so that the read model has the cancellation
	if done := n.awaitReplay(first, "over", finished); done.Failed != 1 || done.Cancelled != 0 {
		t.Errorf("it ends as %+v", done)
	}
}

// replayWaiting starts a replay of three events, which wait for their webhook to be activated.
func replayWaiting(t *testing.T) (*replaying, domain.WebhookID, domain.ReplayID) {
	t.Helper()
	n := startReplaying(t, testdb.New(t), newReceiver())
	n.emit(3, 0)
	w := n.register(1, func(c *domain.WebhookRegistered) { c.Active = false })
	id := n.start(history(w))
	n.awaitReplay(id, "waiting", func(p projections.Replay) bool { return p.Queued == 3 })
	return n, w, id
}
