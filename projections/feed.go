package projections

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// FeedItem is a numbered delivery: its event and where it stands.
type FeedItem struct {
	Number   int64
	Event    Event
	Delivery Delivery
}

// Feed lists the deliveries of a webhook that have a number after the given one, the oldest
// first. The numbers are the queue's (see commands/saga), so it never lags.
func (p *Projections) Feed(ctx context.Context, w domain.Webhook, after int64, limit int) (page Page[FeedItem], err error) {
	rows, _ := p.pool.Query(ctx, `
		SELECT number, position FROM medilab.sequence AS s WHERE webhook_id = $1 AND since = $2 AND number > $3
			AND EXISTS (SELECT FROM medilab.events AS e WHERE e.position = s.position)
		ORDER BY webhook_id, since, number LIMIT $4`, w.ID, w.SequenceSince, after, limit+1)
	numbers := map[eventstore.Position]int64{}
	var positions []eventstore.Position
	var number int64
	var position eventstore.Position
	_, err = pgx.ForEachRow(rows, []any{&number, &position}, func() error {
		numbers[position], positions = number, append(positions, position)
		return nil
	})
	if err != nil {
		return page, fmt.Errorf("read a feed: %w", err)
	}
	events, err := p.log.GetMany(ctx, positions[:min(limit, len(positions))])
	if err != nil {
		return page, fmt.Errorf("read a feed: %w", err)
	}
	for i := range events {
		decode(&events[i])
		event, ok := newEvent(&events[i])
		if !ok {
			return page, fmt.Errorf("read a feed: position %d: %w", events[i].Position, events[i].Err)
		}
		page.Items = append(page.Items, FeedItem{Number: numbers[event.Position], Event: event})
	}
	if n := len(events); n > 0 && n < len(positions) {
		page.NextCursor = Cursor(numbers[events[n-1].Position])
	}
	return page, p.addDeliveries(ctx, w, page.Items)
}

// addDeliveries adds the state of each item's delivery.
func (p *Projections) addDeliveries(ctx context.Context, w domain.Webhook, items []FeedItem) error {
	streams := make([]string, len(items))
	deliveries, states := make([]Delivery, len(items)), make([]domain.Delivery, len(items))
	for i := range items {
		id := domain.DeliveryOf(items[i].Event.ID, w.ID)
		streams[i], deliveries[i].ID = id.Stream(), id
		states[i].State = domain.DeliveryPending
	}
	if err := p.fold(ctx, streams, states, deliveries); err != nil {
		return err
	}
	batches, err := p.batchesOf(ctx, states)
	if err != nil {
		return err
	}
	for i := range items {
		if states[i].State == domain.DeliveryJoined {
			states[i] = states[i].In(batches[states[i].BatchID])
		}
		deliveries[i].show(states[i])
		items[i].Delivery = deliveries[i]
	}
	return nil
}

// batchesOf returns the batches in which deliveries went, of which several may share one.
func (p *Projections) batchesOf(ctx context.Context, states []domain.Delivery) (map[domain.DeliveryID]domain.Delivery, error) {
	batches := map[domain.DeliveryID]domain.Delivery{}
	var ids []domain.DeliveryID
	var streams []string
	for _, d := range states {
		if _, known := batches[d.BatchID]; d.State == domain.DeliveryJoined && !known {
			batches[d.BatchID] = domain.Delivery{}
			ids, streams = append(ids, d.BatchID), append(streams, d.BatchID.Stream())
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	folded := make([]domain.Delivery, len(ids))
	err := p.fold(ctx, streams, folded, make([]Delivery, len(ids)))
	for i, id := range ids {
		batches[id] = folded[i]
	}
	return batches, err
}
