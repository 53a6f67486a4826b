package projections

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// EachFailed calls yield for each delivery that had failed for good where the log had come to the
// position, 0: to its end, of those that the request asks for. It reads the read models up to there, and
// costs what the failed calls of the webhooks do.
func (p *Projections) EachFailed(ctx context.Context, request domain.ReplayRequested, before eventstore.Position, yield func(domain.FailedDelivery)) error {
	if err := p.awaitFailed(ctx, before); err != nil {
		return err
	}
	positions, err := p.failedCalls(ctx, request.WebhookID, before)
	if err != nil {
		return err
	}
	f, seen := newFailedFilter(request), map[domain.DeliveryID]bool{}
	return p.log.EachAt(ctx, positions, func(calls []eventstore.Event) error {
		failed, err := p.stillFailed(ctx, calls, f, before, seen)
		if err == nil {
			err = p.dropDeparted(ctx, failed, before)
		}
		if err != nil || len(failed) == 0 {
			return err
		}
		return p.yieldFailed(ctx, failed, f, yield)
	})
}

// awaitFailed waits until the read models hold what the log does before the position; 0: by
// now, for some seconds, as nobody may keep them.
func (p *Projections) awaitFailed(ctx context.Context, before eventstore.Position) error {
	if before > 0 {
		return p.WaitFor(ctx, before)
	}
	head, err := p.log.Head(ctx)
	if err != nil {
		return err
	}
	return p.waitBriefly(ctx, head, 5*time.Second)
}

// failedCalls returns the positions of the failed calls of the webhook, or of all if that is
// zero, in the order of the log.
func (p *Projections) failedCalls(ctx context.Context, webhook domain.WebhookID, before eventstore.Position) ([]eventstore.Position, error) {
	rows, _ := p.pool.Query(ctx, `
		SELECT c.block << 8 | get_byte(c.places, n) AS position FROM medilab.webhooks AS w
		CROSS JOIN LATERAL (SELECT block, places FROM medilab.calls WHERE webhook = w.number AND kind & 1 = 0 OFFSET 0) AS c
		CROSS JOIN LATERAL generate_series(0, length(c.places) - 1) AS n
		WHERE w.status <> 'deleted' AND ($1::uuid IS NULL OR w.id = $1)`, orNil(webhook))
	positions, err := pgx.CollectRows(rows, pgx.RowTo[eventstore.Position])
	if err != nil {
		return nil, fmt.Errorf("look for failed calls: %w", err)
	}
	slices.Sort(positions)
	if before > 0 {
		end, _ := slices.BinarySearch(positions, before)
		positions = positions[:end]
	}
	return positions, nil
}

// failedFilter is a request that is ready to be asked.
type failedFilter struct {
	request  domain.ReplayRequested
	statuses domain.Statuses
	types    domain.Subscriptions // none: any
}

func newFailedFilter(request domain.ReplayRequested) failedFilter {
	statuses, _ := domain.ParseStatuses(request.ResponseStatus) // it was checked
	return failedFilter{request, statuses, domain.SubscriptionsOf(request.EventTypes)}
}

// matches reports whether the request asks for the event, which was recorded at the time.
func (f *failedFilter) matches(e domain.EventTriggered, at time.Time) bool {
	return (len(f.types) == 0 || f.types.Match(domain.EventType(e.EventType))) &&
		isWithin(e.Occurred(at), f.request.From, f.request.To)
}

// stillFailed returns the deliveries that gave up by one of the calls and still stood as
// failed before the position, once each.
func (p *Projections) stillFailed(ctx context.Context, calls []eventstore.Event, f failedFilter, before eventstore.Position, seen map[domain.DeliveryID]bool) (map[domain.DeliveryID]domain.Delivery, error) {
	var streams []string
	for e, failed := range each[domain.DeliveryAttemptFailed](calls) {
		id := domain.DeliveryID(deliveryIn(e.Stream))
		if failed.GaveUp != "" && id != (domain.DeliveryID{}) && !seen[id] {
			seen[id] = true
			streams = append(streams, e.Stream)
		}
	}
	history, err := p.log.LoadAll(ctx, streams)
	if err != nil {
		return nil, err
	}
	failed := map[domain.DeliveryID]domain.Delivery{}
	for e, change := range each[domain.Change](history) {
		if before > 0 && e.Position >= before {
			continue
		}
		id := domain.DeliveryID(deliveryIn(e.Stream))
		failed[id] = failed[id].Evolve(change, e.RecordedAt)
	}
	maps.DeleteFunc(failed, func(_ domain.DeliveryID, d domain.Delivery) bool {
		return d.State != domain.DeliveryFailed || !f.statuses.Has(d.LastStatus)
	})
	return failed, nil
}

// dropDeparted leaves out the members that had gone on by themselves, and batches that had no others.
func (p *Projections) dropDeparted(ctx context.Context, failed map[domain.DeliveryID]domain.Delivery, before eventstore.Position) error {
	var streams []string
	for _, d := range failed {
		for _, m := range d.Members {
			streams = append(streams, m.DeliveryID.Stream())
		}
	}
	if len(streams) == 0 {
		return nil
	}
	at := eventstore.Position(math.MaxInt64)
	if before > 0 {
		at = before - 1
	}
	list, err := stillJoined(ctx, p.pool, streams, at)
	if err != nil {
		return fmt.Errorf("look for members of batches: %w", err)
	}
	joined := map[string]bool{}
	for _, stream := range list {
		joined[stream] = true
	}
	for id, d := range failed {
		if d.Members == nil {
			continue
		}
		d.Members = slices.DeleteFunc(slices.Clone(d.Members), func(m domain.BatchMember) bool { return !joined[m.DeliveryID.Stream()] })
		if failed[id] = d; len(d.Members) == 0 {
			delete(failed, id)
		}
	}
	return nil
}

// yieldFailed reads the events of the deliveries, and yields those that the filter matches.
// A batch is matched by any of its members.
func (p *Projections) yieldFailed(ctx context.Context, failed map[domain.DeliveryID]domain.Delivery, f failedFilter, yield func(domain.FailedDelivery)) error {
	of := map[string][]domain.DeliveryID{}
	for id, d := range failed {
		for _, m := range d.Members {
			of[m.EventID.Stream()] = append(of[m.EventID.Stream()], id)
		}
		if d.Members == nil {
			of[d.EventID.Stream()] = append(of[d.EventID.Stream()], id)
		}
	}
	positions, err := p.firstPositions(ctx, slices.Collect(maps.Keys(of)))
	if err != nil {
		return fmt.Errorf("look for events: %w", err)
	}
	return p.log.EachAt(ctx, positions, func(page []eventstore.Event) error {
		for e, event := range each[domain.EventTriggered](page) {
			if event.Erased || !f.matches(event, e.RecordedAt) {
				continue
			}
			for _, id := range of[e.Stream] {
				d, left := failed[id]
				if delete(failed, id); !left {
					continue
				}
				size := d.Size
				if d.Members == nil {
					size = len(event.EventData)
				}
				yield(domain.FailedDelivery{ID: id, WebhookID: d.WebhookID, EventID: d.EventID, Event: event, Position: int64(e.Position), Size: size})
			}
		}
		return nil
	})
}
