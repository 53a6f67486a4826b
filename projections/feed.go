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
	deliveries := mapped(items, func(item FeedItem) Delivery {
		return newDelivery(item.Event.head(), dispatchTo(item.Event.ID, domain.Recipient{WebhookID: w.ID}))
	})
	err := p.stateOf(ctx, deliveries)
	for i := range items {
		items[i].Delivery = deliveries[i]
	}
	return err
}
