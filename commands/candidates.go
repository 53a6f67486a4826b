package commands

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/envelope"
	"github.com/medilab/webhooks/domain/filter"
	"github.com/medilab/webhooks/eventstore"
)

// FailedDeliveries finds deliveries that failed for good.
type FailedDeliveries interface {
	// EachFailed calls yield for each that is asked for, of those that stood as failed
	// at the position; 0: now.
	EachFailed(ctx context.Context, request domain.ReplayRequested, before eventstore.Position, yield func(domain.FailedDelivery)) error
}

// candidate is a delivery that a replay may ask for.
type candidate struct {
	delivery domain.DeliveryID
	webhook  domain.WebhookID
	event    domain.EventID // of a batch: its first member's
	position eventstore.Position
	size     int
	order    []string // see domain.ReplayKeys
	line     domain.Line
	keys     envelope.Keys // of the event's data

	dispatched bool // when the event was appended, as that says
}

// candidates are what a replay may ask for, in the order of the log, a page at a time.
type candidates struct {
	history *history            // from which more are read; nil: all are known
	left    []candidate         // known, and not returned
	last    eventstore.Position // up to which all were read, or returned
}

// roomFunc reports whether a webhook takes more.
type roomFunc func(domain.WebhookID) bool

// candidates returns what the request asks for from a position on, up to before; 0: up to now.
// The webhook's events and filters decide on a replay of history. What is archived is left out.
func (r *Replays) candidates(ctx context.Context, request domain.ReplayRequested, w domain.Webhook, from, before eventstore.Position) (*candidates, error) {
	archived, err := r.Log.ArchivedTo(ctx)
	if err != nil {
		return nil, err
	}
	from = max(from, archived+1)
	if request.Kind == domain.KindRetry {
		return r.failed(ctx, request, from, before)
	}
	h := &history{log: r.Log, webhook: w, request: request, before: cmp.Or(before, math.MaxInt64)}
	if h.wanted, err = domain.NewMatcher(w.Events, w.Filters); err != nil {
		return nil, err
	}
	h.narrowed = h.wanted
	if request.EventTypes != nil {
		h.narrowed, err = domain.NewMatcher(request.EventTypes, nil)
	}
	return &candidates{history: h, last: max(from, 1) - 1}, err
}

// failed returns the deliveries that failed, in the order of their events.
func (r *Replays) failed(ctx context.Context, request domain.ReplayRequested, from, before eventstore.Position) (*candidates, error) {
	all := &candidates{}
	err := r.Failed.EachFailed(ctx, request, before, func(d domain.FailedDelivery) {
		if at := eventstore.Position(d.Position); at >= from {
			w, _ := r.Directory.Webhook(d.WebhookID)
			all.left = append(all.left, candidate{
				delivery: d.ID, webhook: d.WebhookID, event: d.EventID, position: at, size: d.Size, order: domain.ReplayKeys(w, d.Event),
				line: w.LineOf(d.Event.EventData), keys: d.Event.Keys,
			})
		}
	})
	if err != nil {
		return nil, fmt.Errorf("find failed deliveries: %w", err)
	}
	slices.SortStableFunc(all.left, func(a, b candidate) int { return cmp.Compare(a.position, b.position) })
	return all, nil
}

// at is a position below which all were returned.
func (c *candidates) at() eventstore.Position {
	if len(c.left) > 0 {
		return c.left[0].position
	}
	return c.last
}

// has reports whether there may be more for webhooks that have room, or next has to say
// that there is no more.
func (c *candidates) has(room roomFunc) bool {
	if len(c.left) == 0 {
		return c.history == nil || room(c.history.webhook.ID)
	}
	return slices.ContainsFunc(c.left, func(one candidate) bool { return room(one.webhook) })
}

// next returns the next page for webhooks that have room, which may be empty, and whether
// more follow, for whatever webhook.
func (c *candidates) next(ctx context.Context, room roomFunc) (page []candidate, more bool, err error) {
	if len(c.left) == 0 && c.history != nil {
		found, last, ended, err := c.history.read(ctx, c.last)
		if err != nil {
			return nil, false, err
		}
		if c.left, c.last = found, last; ended {
			c.history = nil
		}
	}
	var skipped []candidate
	end := 0
	for ; end < len(c.left) && len(page) < replayChunk; end++ {
		one := c.left[end]
		if c.last = max(c.last, one.position); room(one.webhook) {
			page = append(page, one)
		} else {
			skipped = append(skipped, one)
		}
	}
	c.left = c.left[end-len(skipped):]
	copy(c.left, skipped)
	return page, len(c.left) > 0 || c.history != nil, nil
}

// history is the events of a range that match a webhook.
type history struct {
	log              *eventstore.Log
	webhook          domain.Webhook
	request          domain.ReplayRequested
	wanted, narrowed domain.Matcher
	before           eventstore.Position
}

const (
	// replayChunk is how many deliveries are looked at at once.
	replayChunk = 400
	// replayAhead is how many are read at once, as reading on is cheaper than to begin, and
	// mostLooked how many events are looked at for them, so that a pause is soon noticed.
	replayAhead, mostLooked = 4000, 20_000
)

// errEnough ends a reading of the log early, errEnd for good.
var errEnough, errEnd = errors.New("enough was read"), errors.New("all was read")

func (h *history) subscribes(e *eventstore.Event) bool {
	event, ok := e.Value.(domain.EventTriggered)
	return ok && h.narrowed.Subscribes(domain.EventType(event.EventType)) && h.wanted.Subscribes(domain.EventType(event.EventType))
}

// read returns the next after a position, up to where it has read, and whether that is the end.
func (h *history) read(ctx context.Context, after eventstore.Position) (found []candidate, last eventstore.Position, ended bool, err error) {
	looked, last := 0, after
	triggered := eventstore.Filter{Type: domain.EventTriggered{}.ChangeType(), From: h.request.From, To: h.request.To, Opens: h.subscribes}
	err = h.log.Compute(ctx, after, triggered, func(e eventstore.Event) error {
		if e.Position >= h.before {
			return errEnd
		}
		looked++
		event, ok := e.Value.(domain.EventTriggered)
		_, id, err := domain.ParseStream(e.Stream)
		if !ok || err != nil || event.Erased || !h.subscribes(&e) {
			return nil // no event that could be sent
		}
		eventType, doc := domain.EventType(event.EventType), filter.Parse(event.EventData)
		if h.narrowed.Match(eventType, doc) && h.wanted.Match(eventType, doc) {
			found = append(found, candidate{
				delivery: domain.DeliveryOf(domain.EventID(id), h.webhook.ID), webhook: h.webhook.ID, event: domain.EventID(id),
				position: e.Position, size: len(event.EventData), order: domain.ReplayKeys(h.webhook, event), line: h.webhook.LineOf(event.EventData),
				keys:       event.Keys,
				dispatched: slices.ContainsFunc(event.Recipients, func(r domain.Recipient) bool { return r.WebhookID == h.webhook.ID }),
			})
		}
		return nil
	}, func(at eventstore.Position) error {
		if last = at; len(found) >= replayAhead || looked >= mostLooked {
			return errEnough
		}
		return nil
	})
	switch {
	case errors.Is(err, errEnough):
		return found, last, false, nil
	case err == nil, errors.Is(err, errEnd):
		return found, last, true, nil
	}
	return nil, last, false, err
}

// standing is where a candidate stands.
type standing struct {
	domain.Delivery
	atRequest domain.Delivery // as it stood when the replay was requested
	batch     *standing       // that it is in; nil: none
	asked     bool            // the replay has asked for it
	matched   bool            // it is for the replay: atRequest says so, whenever that is looked at
	wanted    bool            // it is to be asked for now
}

// take takes in the next event of the stream; before is where the replay was requested.
func (d *standing) take(e eventstore.Event, before eventstore.Position) {
	if change, ok := e.Value.(domain.Change); ok {
		d.Delivery = d.Evolve(change, e.RecordedAt)
	}
	if e.Position < before {
		d.atRequest = d.Delivery
	}
}

// standings returns where the candidates of the replay stand, now and before the position at which it
// was requested; 0: now. Without an id, it has asked for nothing yet.
func (r *Replays) standings(ctx context.Context, request domain.ReplayRequested, before eventstore.Position, page []candidate) ([]standing, error) {
	before = cmp.Or(before, math.MaxInt64)
	found := make([]standing, len(page))
	at := make(map[string]int, len(page))
	streams, ids := make([]string, len(page)), make([]domain.DeliveryID, len(page))
	for i, c := range page {
		ids[i], streams[i] = c.delivery, c.delivery.Stream()
		at[streams[i]] = i
		if c.dispatched { // and nothing else, until its stream says so
			found[i].State, found[i].atRequest.State = domain.DeliveryPending, domain.DeliveryPending
		}
	}
	history, err := r.Log.LoadAll(ctx, streams)
	if err != nil {
		return nil, err
	}
	for _, e := range history {
		d := &found[at[e.Stream]]
		d.take(e, before)
		if _, asked := e.Value.(domain.DeliveryRetryRequested); asked && request.ID != (domain.ReplayID{}) {
			by, _ := e.ReadMetadata() // what does not decode names nothing
			d.asked = d.asked || by.CausationID == request.ID.String()
		}
	}
	untried, err := r.Queue.Untried(ctx, ids) // also of events that do not say to whom they went
	if err != nil {
		return nil, err
	}
	for i, id := range ids {
		if _, ok := untried[id]; ok && found[i].Version == 0 {
			found[i].State, found[i].atRequest.State = domain.DeliveryPending, domain.DeliveryPending
		}
	}
	return found, r.decide(ctx, request, before, found)
}

// decide decides which of the deliveries the replay sends. One that went in a batch stands
// as the batch does.
func (r *Replays) decide(ctx context.Context, request domain.ReplayRequested, before eventstore.Position, found []standing) error {
	batches := map[string]*standing{}
	for i := range found {
		for _, d := range []domain.Delivery{found[i].Delivery, found[i].atRequest} {
			if d.State == domain.DeliveryJoined {
				batches[d.BatchID.Stream()] = &standing{}
			}
		}
	}
	if len(batches) > 0 {
		history, err := r.Log.LoadAll(ctx, slices.Collect(maps.Keys(batches)))
		if err != nil {
			return err
		}
		for _, e := range history {
			batches[e.Stream].take(e, before)
		}
	}
	for i := range found {
		d := &found[i]
		now, then := d.Delivery, d.atRequest
		if now.State == domain.DeliveryJoined {
			d.batch = batches[now.BatchID.Stream()]
			now = now.In(d.batch.Delivery)
		}
		if then.State == domain.DeliveryJoined {
			then = then.In(batches[then.BatchID.Stream()].atRequest)
		}
		onlyFailed := request.OnlyFailed || request.Kind == domain.KindRetry
		d.matched = d.asked || then.ReplayWants(onlyFailed)
		d.wanted = d.matched && !d.asked && now.ReplayWants(onlyFailed)
	}
	return nil
}

// countNext returns how many of the next page the replay sends, and whether more follow.
func (r *Replays) countNext(ctx context.Context, request domain.ReplayRequested, before eventstore.Position, all *candidates) (n int, more bool, err error) {
	page, more, err := all.next(ctx, func(domain.WebhookID) bool { return true })
	if err != nil {
		return 0, false, err
	}
	found, err := r.standings(ctx, request, before, page)
	for i := range found {
		if found[i].matched {
			n++
		}
	}
	return n, more, err
}
