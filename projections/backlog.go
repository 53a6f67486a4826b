package projections

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// The deliveries that have no row: those that are in the queue, and those of events.

// pending merges the rows with what nobody has tried yet, which is in the queue.
func (p *Projections) pending(ctx context.Context, f DeliveryFilter, above int64, below ordinal, limit int, queue Backlog) ([]listedDelivery, ordinal, error) {
	if int64(below.position()) <= above {
		return nil, 0, nil
	}
	if at := below.position(); below != ordinalAt(at, 0) && below != math.MaxInt64 {
		// The queue does not have the order of webhooks: the rest of an event is all of it.
		if list, err := p.restOf(ctx, f, at, below); err != nil || len(list) > 0 {
			list, rest := cut(list, limit)
			return list, cmp.Or(rest, ordinalAt(at, 0)), err
		}
	}
	list, err := p.undelivered(ctx, f, above, below, limit+1)
	if err != nil {
		return nil, 0, err
	}
	waiting, err := p.waiting(ctx, f, below, limit+1, queue)
	if err != nil {
		return nil, 0, err
	}
	end := ordinal(0)
	if len(waiting) > limit { // there may be more of its last event
		end = ordinalAt(waiting[len(waiting)-1].ordinal.position()+1, 0) - 1
	}
	list = merge(append(list, waiting...))
	list = slices.DeleteFunc(list, func(d listedDelivery) bool { return d.ordinal < end || int64(d.ordinal.position()) <= above })
	list, rest := cut(list, limit)
	return list, cmp.Or(rest, end), nil
}

// merge puts what is in several lists in the order of the list, once.
func merge(list []listedDelivery) []listedDelivery {
	slices.SortFunc(list, func(a, b listedDelivery) int { return cmp.Compare(b.ordinal, a.ordinal) })
	return slices.CompactFunc(list, func(a, b listedDelivery) bool { return a.ordinal == b.ordinal })
}

// restOf returns the deliveries of one event below the ordinal.
func (p *Projections) restOf(ctx context.Context, f DeliveryFilter, at eventstore.Position, below ordinal) ([]listedDelivery, error) {
	list, _, err := p.ofEvents(ctx, f, int64(at)-1, below, math.MaxInt)
	if err != nil {
		return nil, err
	}
	rows, err := p.undelivered(ctx, f, int64(at)-1, below, 1<<numberBits)
	return merge(append(list, rows...)), err
}

// waiting returns what waits in the queue of events before the ordinal, the newest first.
func (p *Projections) waiting(ctx context.Context, f DeliveryFilter, below ordinal, limit int, queue Backlog) ([]listedDelivery, error) {
	// Rows of the queue are as old as their event, or little younger.
	const younger, ages = 2 * time.Second, 100 * 365 * 24 * time.Hour
	due := time.Now().Add(ages)
	err := p.pool.QueryRow(ctx, `SELECT recorded_at FROM medilab.events WHERE position = $1`, below.position()).Scan(&due)
	if err == nil {
		due = due.Add(younger)
	} else if !errors.Is(err, pgx.ErrNoRows) {
		return nil, err
	}
	untried, err := queue.Backlog(ctx, f.Webhook, below.position(), due, limit)
	if err != nil {
		return nil, err
	}
	return p.placed(ctx, untried)
}

// placed returns what waits in the queue at its place in the list.
func (p *Projections) placed(ctx context.Context, untried []domain.Delivery) (list []listedDelivery, err error) {
	streams, webhooks := map[string]bool{}, map[domain.WebhookID]bool{}
	for _, d := range untried {
		streams[d.EventID.Stream()], webhooks[d.WebhookID] = true, true
	}
	events, err := headsOf(ctx, p.pool, headsByStream, slices.Collect(maps.Keys(streams)))
	if err != nil {
		return nil, err
	}
	numbers, err := p.numbersOf(ctx, webhooks)
	if err != nil {
		return nil, err
	}
	for _, d := range untried {
		if event, ok := events[d.EventID]; ok {
			one := listed(event, domain.Recipient{WebhookID: d.WebhookID}, numbers[d.WebhookID])
			one.NextAttemptAt = &d.NextAttemptAt
			list = append(list, one)
		}
	}
	return list, nil
}

// ofEvents goes through the events, and through the deliveries of each.
func (p *Projections) ofEvents(ctx context.Context, f DeliveryFilter, above int64, below ordinal, limit int) ([]listedDelivery, ordinal, error) {
	const most, least = 200, 20
	high := int64(math.MaxInt64)
	if below < math.MaxInt64 {
		high = int64(below.position()) + 1
	}
	var list []listedDelivery
	for reading, more := max(least, min(limit, most)), true; more; reading = most { // as events may have none
		events, err := p.dispatchedBetween(ctx, f, above, high, reading)
		if err != nil {
			return nil, 0, err
		}
		if list, err = p.appendDispatched(ctx, list, events.Items, f.Webhook, below, limit); err != nil {
			return nil, 0, err
		}
		high = int64(events.NextCursor)
		more = high != 0 && len(list) < limit && reading < most
	}
	end := ordinalAt(eventstore.Position(high), 0)
	// Replays send events to others too.
	rows, err := p.undelivered(ctx, f, max(above, int64(end.position())-1), below, min(limit, most)+1)
	if err != nil {
		return nil, 0, err
	}
	list = append(list, rows...)
	list, rest := cut(merge(list), limit)
	return list, cmp.Or(rest, end), nil
}

// appendDispatched appends the deliveries of the events below the ordinal to the webhook, zero is
// any, until there are more than limit.
func (p *Projections) appendDispatched(ctx context.Context, list []listedDelivery, events []dispatchedEvent, webhook domain.WebhookID, below ordinal, limit int) ([]listedDelivery, error) {
	wanted := map[domain.WebhookID]bool{}
	for _, e := range events {
		for _, d := range e.Deliveries {
			if webhook == (domain.WebhookID{}) || d.WebhookID == webhook {
				wanted[d.WebhookID] = true
			}
		}
	}
	numbers, err := p.numbersOf(ctx, wanted)
	if err != nil {
		return nil, err
	}
	for _, e := range events {
		for _, d := range e.Deliveries {
			if number, ok := numbers[d.WebhookID]; ok && ordinalAt(e.position, number) < below {
				list = append(list, listed(e.eventHead, d.Recipient, number))
			}
		}
		if len(list) > limit {
			break
		}
	}
	return list, nil
}

// dispatchedEvent is an event with whom it went to.
type dispatchedEvent struct {
	eventHead
	domain.EventDispatched
}

// eventsQuery returns the query of the events between the positions.
func (f DeliveryFilter) eventsQuery(low, high int64, limit int) (string, []any) {
	if f.Webhook != (domain.WebhookID{}) {
		return reachedSQL, []any{low, high, uuid.UUID(f.Webhook), limit + 1}
	}
	return eventsSQL, []any{low, high, hashOrNil(f.EventType), limit + 1}
}

// dispatchedBetween returns the newest events between the positions.
func (p *Projections) dispatchedBetween(ctx context.Context, f DeliveryFilter, low, high int64, limit int) (Page[dispatchedEvent], error) {
	sql, args := f.eventsQuery(low, high, limit)
	var undecided []string
	page, err := pageAt(ctx, p, p.closed, limit, func(e *eventstore.Event) (d dispatchedEvent, ok bool) {
		event, ok := newEvent(e)
		d.eventHead = event.head()
		if d.EventDispatched, _ = domain.DispatchOf(event.ID, e.Value); ok && d.Deliveries == nil {
			undecided = append(undecided, e.Stream)
		}
		return d, ok && (f.EventType == "" || event.Type == f.EventType)
	}, sql, args...)
	if err != nil {
		return page, err
	}
	decided, err := p.decidedLater(ctx, undecided)
	for i := range page.Items {
		if d, ok := decided[page.Items[i].id.Stream()]; ok {
			page.Items[i].EventDispatched = d
		}
	}
	return page, err
}

// decidedLater returns by their streams where events went whose recipients versions before
// migration 14 decided after they were appended.
func (p *Projections) decidedLater(ctx context.Context, streams []string) (map[string]domain.EventDispatched, error) {
	if len(streams) == 0 {
		return nil, nil
	}
	events, err := p.closed.LoadAll(ctx, streams)
	decided := map[string]domain.EventDispatched{}
	for e, d := range each[domain.EventDispatched](events) {
		decided[e.Stream] = d
	}
	return decided, err
}
