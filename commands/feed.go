package commands

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

const (
	// replayWindow is how many calls of a webhook a replay has under way at least. It is half of
	// the window that a lane begins with, so that live events find room beside them. A replay of
	// one webhook has as many as have lately ended in replayRoom, at most mostWindow.
	replayWindow, mostWindow = 32, 256
	replayRoom               = 50 * time.Millisecond
	// mostOpen is how many deliveries a replay has that have not ended, most of which wait for
	// their retries; mostOpenOfMany of each webhook, if it sends to several.
	mostOpen       = 1000
	mostOpenOfMany = 100
	// queuedFor is how long what a replay has queued may keep a webhook with a rate busy: a few
	// steps of the replay.
	queuedFor = 100 * time.Millisecond
	// mostReady is how far a replay reads ahead of what a webhook cannot be sent yet.
	mostReady = 2000
)

// feed is what a replay has read and not asked for, and what of it has not ended. It is in
// memory only: read again from Replay.Next on, it is the same.
type feed struct {
	source *candidates
	more   bool        // the source has
	ready  []candidate // those of a webhook in the order of the log
	open   map[domain.DeliveryID]candidate
	busy   map[sendOrder]bool // in this step: by what is open, or comes before in ready

	version int64 // of the replay's stream; at another, somebody else works on it too
}

// sendOrder names what is sent one after another.
type sendOrder struct {
	webhook domain.WebhookID
	key     string
}

// goOn asks for the next deliveries, as many as the rate and the window leave room for.
func (j *job) goOn(ctx context.Context) (wait time.Duration, over bool, err error) {
	waiting, err := j.r.Queue.OfReplay(ctx, j.id)
	if err != nil {
		return 0, true, err
	}
	if slices.ContainsFunc(waiting, func(d Replayed) bool { return d.Held }) {
		return 0, false, j.r.Queue.Release(ctx, j.id)
	}
	if j.feed == nil || j.feed.version != j.version {
		source, err := j.candidates(ctx, eventstore.Position(j.replay.Next))
		if err != nil {
			return 0, true, err
		}
		j.feed = &feed{source: source, more: true, open: map[domain.DeliveryID]candidate{}, version: j.version}
	}
	j.measure(j.feed.settle(waiting))
	most, next := j.replay.Pace(replayChunk, j.due)
	if early := next.Sub(j.r.Log.Clock().Now()); early > 0 {
		return early, false, nil
	}
	chosen, err := j.choose(ctx, waiting, most)
	if err != nil {
		return 0, true, err
	}
	if len(chosen) > 0 {
		asked, err := j.ask(ctx, chosen)
		if err == nil && asked {
			j.due = next
		}
		return 0, false, err
	}
	former := j.replay.Request.Kind == "" // completed when all was asked for
	if j.replay.Counted && !j.feed.more && len(j.feed.ready) == 0 && (former || len(waiting) == 0) {
		return 0, true, j.append(ctx, domain.ReplayCompleted{})
	}
	return replayIdle, false, nil
}

// measure sets the window by how many calls have ended since it was last done.
func (j *job) measure(ended int) {
	now := j.r.Log.Clock().Now()
	if j.replay.Request.WebhookID == (domain.WebhookID{}) {
		ended = 0 // of all webhooks, one of which may be slow
	}
	j.window, j.measured = windowAfter(j.window, ended, now.Sub(j.measured)), now
}

// windowAfter returns the window that follows one in which so many calls ended in the time: halfway
// to as many as end in replayRoom.
func windowAfter(window, ended int, elapsed time.Duration) int {
	if elapsed <= 0 {
		return max(window, replayWindow)
	}
	within := min(float64(ended)*float64(replayRoom)/float64(elapsed), mostWindow)
	return max(replayWindow, min((window+int(within))/2+1, mostWindow))
}

// settle forgets what has ended, and returns how much that is.
func (f *feed) settle(waiting []Replayed) (ended int) {
	still := make(map[domain.DeliveryID]candidate, len(waiting))
	f.busy = make(map[sendOrder]bool, len(waiting))
	for _, d := range waiting {
		if c, ok := f.open[d.ID]; ok {
			still[d.ID] = c
			f.take(c)
		}
	}
	ended, f.open = len(f.open)-len(still), still
	return ended
}

// take makes what comes after the candidate in its orders wait. It reports whether the
// candidate has to wait itself.
func (f *feed) take(c candidate) (waits bool) {
	for _, key := range c.order {
		order := sendOrder{c.webhook, key}
		waits = waits || f.busy[order]
		f.busy[order] = true
	}
	return waits
}

// choose returns the next of what can be asked for now, at most most. A webhook that takes
// no more holds up no other.
func (j *job) choose(ctx context.Context, waiting []Replayed, most int) (chosen []candidate, err error) {
	due, open, ahead := map[domain.WebhookID]int{}, map[domain.WebhookID]int{}, map[domain.WebhookID]int{}
	queued := map[domain.WebhookID]int{} // of what is due, what no node has taken
	for _, d := range waiting {
		open[d.WebhookID]++
		if d.Due {
			due[d.WebhookID]++
		}
		if d.Due && d.Free {
			queued[d.WebhookID]++
		}
	}
	limit := mostOpen
	if j.replay.Request.WebhookID == (domain.WebhookID{}) {
		limit = mostOpenOfMany
	}
	room := func(id domain.WebhookID) bool {
		w, _ := j.r.Directory.Webhook(id)
		return due[id] < j.window && open[id] < limit && queued[id] < mostQueued(j.window, w)
	}
	wanted := func(w domain.WebhookID) bool { return room(w) && ahead[w] < mostReady }
	f := j.feed
	for i := 0; len(chosen) < most; i++ {
		for i == len(f.ready) && f.more && f.source.has(wanted) {
			if err := j.read(ctx, wanted); err != nil {
				return nil, err
			}
		}
		if i == len(f.ready) {
			break
		}
		c := f.ready[i]
		if f.take(c) || !room(c.webhook) {
			ahead[c.webhook]++
			continue
		}
		due[c.webhook]++
		open[c.webhook]++
		queued[c.webhook]++
		chosen = append(chosen, c)
	}
	return chosen, nil
}

// mostQueued is how many deliveries of a replay may wait in the table for their calls to the webhook, as
// live events come after them: what it takes in queuedFor, or four rounds of its calls.
func mostQueued(window int, w domain.Webhook) int {
	most := window
	if w.MaxConcurrent > 0 {
		most = min(most, 4*w.MaxConcurrent)
	}
	if w.RateLimit > 0 {
		most = min(most, max(1, int(w.RateLimit*queuedFor.Seconds())))
	}
	return most
}

// read reads the next page. What the replay has asked for already, also on another node,
// is open or has ended.
func (j *job) read(ctx context.Context, room roomFunc) error {
	f := j.feed
	page, more, err := f.source.next(ctx, room)
	if err != nil {
		return err
	}
	found, err := j.r.standings(ctx, j.replay.Request, j.before, page)
	if err != nil {
		return err
	}
	for i, c := range page {
		switch {
		case found[i].wanted:
			f.ready = append(f.ready, c)
		case found[i].asked && found[i].State == domain.DeliveryPending:
			f.open[c.delivery] = c
			f.take(c)
		}
	}
	f.more = more
	return nil
}

// ask asks for the chosen deliveries that the replay wants as they stand now. They are in
// the replay's stream if they are in the deliveries'. It reports whether there are any.
func (j *job) ask(ctx context.Context, chosen []candidate) (bool, error) {
	unit := eventstore.Unit{Generation: j.r.Log.Generation()}
	found, err := j.r.standings(ctx, j.replay.Request, j.before, chosen)
	if err != nil {
		return false, err
	}
	left := make(map[domain.DeliveryID]bool, len(chosen))
	leaving := map[domain.DeliveryID]*standing{} // batches that are left
	queued := domain.ReplayQueued{Matched: j.replay.Matched}
	for i, c := range chosen {
		left[c.delivery] = true
		if w, _ := j.r.Directory.Webhook(c.webhook); w.Deleted || !found[i].wanted || found[i].Members == nil && c.keys.Destroyed() {
			continue // there is nobody to send to or nothing to send, or somebody else asked meanwhile
		}
		asked := domain.DeliveryRetryRequested{
			EventID: c.event, WebhookID: c.webhook, Attempt: found[i].NextAttempt(), Size: c.size, ReplayID: j.id, Line: c.line,
		}
		if batch := found[i].batch; batch != nil {
			asked.BatchID = found[i].BatchID
			leaving[asked.BatchID] = batch
		}
		unit.Writes = append(unit.Writes, j.write(c.delivery.Stream(), found[i].Version, asked))
		queued.Count++
		if j.replay.Request.Kind == "" {
			queued.Deliveries = append(queued.Deliveries, c.delivery)
		}
		j.feed.open[c.delivery] = c
	}
	j.feed.ready = slices.DeleteFunc(j.feed.ready, func(c candidate) bool { return left[c.delivery] })
	if queued.Count == 0 {
		return false, nil
	}
	if err := j.endEmptied(ctx, &unit, leaving); err != nil {
		return false, err
	}
	queued.Next = int64(j.feed.begin())
	return true, j.commit(ctx, unit, queued)
}

// endEmptied cancels the failed batches of which nothing is left to send once those leave that the unit
// asks for: else they would be failed for ever. The unit is a conflict if another part of such a batch goes
// on meanwhile.
func (j *job) endEmptied(ctx context.Context, unit *eventstore.Unit, leaving map[domain.DeliveryID]*standing) error {
	asked := map[string]bool{}
	for _, w := range unit.Writes {
		asked[w.Stream] = true
	}
	for id, batch := range leaving {
		if batch.State != domain.DeliveryFailed {
			continue
		}
		departed, err := departedFrom(ctx, j.r.Log, batch.Members)
		if err != nil {
			return err
		}
		streams, version, left := make([]string, len(batch.Members)), batch.Version, 0
		for i, m := range batch.Members {
			if streams[i] = m.DeliveryID.Stream(); departed[m.DeliveryID] || asked[streams[i]] {
				left++
			}
		}
		events, _, err := BatchEvents(ctx, j.r.Log, id, false)
		if err != nil && !errors.Is(err, ErrUnreadable) {
			return err
		}
		stays := func(e domain.PayloadEvent) bool {
			member := domain.DeliveryOf(domain.EventID(e.EventID), batch.WebhookID)
			return !departed[member] && !asked[member.Stream()]
		}
		if err == nil && !slices.ContainsFunc(events, stays) {
			unit.Writes = append(unit.Writes, j.write(id.Stream(), version, domain.DeliveryCancelled{
				EventID: batch.EventID, WebhookID: batch.WebhookID, Reason: domain.CancelReplayed, Was: domain.DeliveryFailed,
			}))
			version++
		}
		unit.With = append(unit.With, eventstore.Statement{SQL: batchUnmovedSQL, Args: []any{id.Stream(), version, streams, left}})
	}
	return nil
}

// batchUnmovedSQL is unmovedSQL for a batch and its members, so many of which have gone on by themselves.
const batchUnmovedSQL = `SELECT width_bucket(0, 0, CASE WHEN (SELECT max(version) FROM medilab.events WHERE stream = $1) = $2
	AND (SELECT count(*) FROM medilab.events WHERE stream = ANY($3) AND version = 2) = $4 THEN 1 ELSE 0 END, 1)`

// begin returns the position from which on the feed is to be read again.
func (f *feed) begin() eventstore.Position {
	begin := f.source.at()
	for _, c := range f.ready {
		begin = min(begin, c.position)
	}
	for _, c := range f.open {
		begin = min(begin, c.position)
	}
	return begin
}
