package projections

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
)

// Delivery is one event on its way to one webhook, as it stands.
type Delivery struct {
	ID             domain.DeliveryID    `json:"delivery_id"`
	EventID        domain.EventID       `json:"event_id"`
	WebhookID      domain.WebhookID     `json:"webhook_id"`
	BatchID        *domain.DeliveryID   `json:"batch_id"` // the delivery by which it goes together with others; null: by itself
	State          domain.DeliveryState `json:"state"`
	Attempts       int                  `json:"attempts"`
	NextAttemptAt  *time.Time           `json:"next_attempt_at"`
	Reason         *string              `json:"reason"` // why it ended, when it did not succeed
	ResponseStatus *int                 `json:"response_status"`
	Error          *string              `json:"error"`
	CreatedAt      time.Time            `json:"created_at"`
	UpdatedAt      time.Time            `json:"updated_at"`
	Version        int64                `json:"version"`
}

// Deliveries lists the deliveries of an event in the order of its dispatch, or
// returns a *domain.Error of KindNotFound. It reads the log itself, so it never lags.
func (p *Projections) Deliveries(ctx context.Context, id domain.EventID, limit int, cursor Cursor) (page Page[Delivery], err error) {
	event, dispatched, err := p.event(ctx, id)
	if err != nil {
		return page, err
	}
	all, err := p.replayedTo(ctx, id, dispatched)
	if err != nil {
		return page, err
	}
	list := all[min(int64(cursor), int64(len(all))):]
	list = list[:min(limit, len(list))]
	if rest := int64(cursor) + int64(len(list)); rest < int64(len(all)) {
		page.NextCursor = Cursor(rest)
	}
	page.Items, err = p.deliveries(ctx, event, list)
	return page, err
}

// deliveries returns the state of the deliveries of the event. They began, to the
// moment or nearly, when the event was accepted.
func (p *Projections) deliveries(ctx context.Context, event Event, list []domain.Dispatch) ([]Delivery, error) {
	streams := make([]string, len(list))
	items := make([]Delivery, len(list))
	states := make([]domain.Delivery, len(list))
	for i, d := range list {
		streams[i] = d.DeliveryID.Stream()
		items[i] = Delivery{ID: d.DeliveryID, EventID: event.ID, WebhookID: d.WebhookID, CreatedAt: event.AcceptedAt, UpdatedAt: event.AcceptedAt}
		states[i] = domain.Delivery{State: domain.DeliveryPending, NextAttemptAt: event.AcceptedAt.Add(time.Duration(d.BatchWait) * time.Second)}
	}
	if err := p.fold(ctx, streams, states, items); err != nil {
		return nil, err
	}
	if err := p.resolve(ctx, states, items); err != nil {
		return nil, err
	}
	for i := range items {
		items[i].show(states[i])
	}
	return items, nil
}

// fold evolves each state by its stream, and notes in the item when that was.
func (p *Projections) fold(ctx context.Context, streams []string, states []domain.Delivery, items []Delivery) error {
	byStream := make(map[string]int, len(streams))
	for i, stream := range streams {
		byStream[stream] = i
	}
	events, err := p.log.LoadAll(ctx, streams)
	if err != nil {
		return err
	}
	for i := range events {
		e := &events[i]
		decode(e)
		if change, ok := e.Value.(domain.Change); ok {
			at := byStream[e.Stream]
			states[at] = states[at].Evolve(change, e.RecordedAt)
			items[at].UpdatedAt = e.RecordedAt
		}
	}
	return nil
}

// resolve sets the state of the deliveries that went in batches to that of their batch.
func (p *Projections) resolve(ctx context.Context, states []domain.Delivery, items []Delivery) error {
	streams, batches := make([]string, len(states)), make([]domain.Delivery, len(states))
	none := true
	for i, d := range states {
		if d.State == domain.DeliveryJoined {
			streams[i], none = d.BatchID.Stream(), false
		}
	}
	if none {
		return nil
	}
	if err := p.fold(ctx, streams, batches, items); err != nil {
		return err
	}
	for i, d := range states {
		if d.State == domain.DeliveryJoined {
			states[i] = d.In(batches[i])
		}
	}
	return nil
}

func (d *Delivery) show(s domain.Delivery) {
	d.State, d.Attempts, d.Version = s.State, s.Attempts, s.Version
	if s.BatchID != (domain.DeliveryID{}) {
		d.BatchID = &s.BatchID
	}
	if s.State == domain.DeliveryPending {
		d.NextAttemptAt = &s.NextAttemptAt
	}
	if s.LastStatus != 0 {
		d.ResponseStatus = &s.LastStatus
	}
	if s.LastError != "" {
		d.Error = &s.LastError
	}
	if reason := string(s.GaveUp) + string(s.CancelReason); reason != "" {
		d.Reason = &reason
	}
}

// replayedTo adds to the deliveries that an event was dispatched to those that only
// a replay made. No table lists them, but the id of a webhook's delivery of an event
// follows from both.
func (p *Projections) replayedTo(ctx context.Context, id domain.EventID, dispatched []domain.Dispatch) ([]domain.Dispatch, error) {
	known := make(map[domain.DeliveryID]bool, len(dispatched))
	for _, d := range dispatched {
		known[d.DeliveryID] = true
	}
	begun, err := p.begunWith(ctx, id)
	if err != nil {
		return nil, err
	}
	for d := range begun {
		if known[d] {
			delete(begun, d)
		}
	}
	if len(begun) == 0 {
		return dispatched, nil
	}
	webhooks, err := p.webhookIDs(ctx)
	if err != nil {
		return nil, fmt.Errorf("look for replays: %w", err)
	}
	all := slices.Clip(dispatched)
	for _, webhook := range webhooks {
		if d := domain.DeliveryOf(id, webhook); begun[d] {
			all = append(all, domain.Dispatch{DeliveryID: d, Recipient: domain.Recipient{WebhookID: webhook}})
		}
	}
	return all, nil
}

// begunWith returns every delivery that began with a request, as those of a replay
// do, of the event and of those with ids of the same millisecond: a UUIDv7 shares it
// with its deliveries, so they are one short run of the log's index however many
// webhooks there are.
func (p *Projections) begunWith(ctx context.Context, id domain.EventID) (map[domain.DeliveryID]bool, error) {
	first, last := domain.DeliveryID(id), domain.DeliveryID(id)
	for i := 6; i < len(id); i++ {
		first[i], last[i] = 0, 0xff
	}
	rows, err := p.pool.Query(ctx, `SELECT stream FROM medilab.events WHERE stream >= $1 AND stream <= $2
		AND version = 1 AND type = $3`, first.Stream(), last.Stream(), domain.DeliveryRetryRequested{}.ChangeType())
	if err != nil {
		return nil, fmt.Errorf("look for replays: %w", err)
	}
	begun := map[domain.DeliveryID]bool{}
	var stream string
	_, err = pgx.ForEachRow(rows, []any{&stream}, func() error {
		_, delivery, err := domain.ParseStream(stream)
		begun[domain.DeliveryID(delivery)] = true
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look for replays: %w", err)
	}
	return begun, nil
}
