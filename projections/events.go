package projections

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// The clinic's events: for each type the places where the log has them (see places),
// and those of each correlation id.

var eventsModel = Model{
	Name: "events", Shape: 2, Tables: []string{"triggered", "correlated"},
	New: func(t Tables) Projection {
		insert := t.SQL(`
			INSERT INTO {triggered} AS t (kind, block, places)
			SELECT * FROM unnest($1::integer[], $2::bigint[], $3::bytea[])`)
		return &triggered{
			insert: insert, grow: insert + ` ON CONFLICT (kind, block) DO UPDATE SET places = t.places || EXCLUDED.places`,
			correlate: t.SQL(`
				INSERT INTO {correlated} (correlation, position, kind)
				SELECT * FROM unnest($1::integer[], $2::bigint[], $3::integer[])`),
		}
	},
}

type triggered struct{ insert, grow, correlate string }

func (p *triggered) Project(_ context.Context, _ Querier, events []eventstore.Event) ([]eventstore.Statement, error) {
	added := placesOf{}
	var correlations, kindsOf []int32
	var positions []int64
	for i := range events {
		change, ok := events[i].Value.(domain.EventTriggered)
		if !ok {
			continue
		}
		kind := hash31(change.EventType)
		added.add(0, kind, events[i].Position)
		if change.CorrelationID != "" {
			correlations = append(correlations, hash31(change.CorrelationID))
			positions = append(positions, int64(events[i].Position))
			kindsOf = append(kindsOf, kind)
		}
	}
	if len(added) == 0 {
		return nil, nil
	}
	_, kinds, blocks, places, grown := added.rows(events[0].Position)
	var out []eventstore.Statement
	if grown > 0 {
		out = append(out, eventstore.Statement{SQL: p.grow, Args: []any{kinds[:grown], blocks[:grown], places[:grown]}})
	}
	if grown < len(blocks) {
		out = append(out, eventstore.Statement{SQL: p.insert, Args: []any{kinds[grown:], blocks[grown:], places[grown:]}})
	}
	if len(positions) > 0 {
		out = append(out, eventstore.Statement{SQL: p.correlate, Args: []any{correlations, positions, kindsOf}})
	}
	return out, nil
}

// Event is one event of the clinic.
type Event struct {
	ID            domain.EventID      `json:"event_id"`
	Type          string              `json:"event_type"`
	Source        string              `json:"source"`
	CorrelationID *string             `json:"correlation_id"`
	Data          json.RawMessage     `json:"event_data"` // byte for byte as it was accepted
	AcceptedAt    time.Time           `json:"accepted_at"`
	Position      eventstore.Position `json:"position"`
}

func newEvent(e *eventstore.Event) (Event, bool) {
	change, ok := e.Value.(domain.EventTriggered)
	kind, id, err := domain.ParseStream(e.Stream)
	if !ok || err != nil || kind != "event" {
		return Event{}, false
	}
	event := Event{ID: domain.EventID(id), Type: change.EventType, Source: change.Source,
		Data: change.EventData, AcceptedAt: e.RecordedAt, Position: e.Position}
	if change.CorrelationID != "" {
		event.CorrelationID = &change.CorrelationID
	}
	return event, true
}

// EventFilter says which events to list.
type EventFilter struct {
	EventType     string    // "" is any
	CorrelationID string    // "" is any
	From, To      time.Time // accepted at or after, before; zero is any
	Limit         int
	Cursor        string
}

// EventPage is one page of events, newest first. It may be shorter than the
// limit and have more after it, when its events are large.
type EventPage struct {
	Items      []Event
	NextCursor string // "": there is no more
}

// eventsSQL merges the newest of each type, see callsSQL.
var eventsSQL = `
WITH RECURSIVE kinds AS (
	SELECT (SELECT min(kind) FROM medilab.triggered) AS kind
	UNION ALL
	SELECT (SELECT min(e.kind) FROM medilab.triggered AS e WHERE e.kind > kinds.kind) FROM kinds WHERE kinds.kind IS NOT NULL
)
SELECT newest.position FROM kinds CROSS JOIN LATERAL (` +
	newestPlaces("triggered", "t.kind = kinds.kind", "$1::bigint", "$2::bigint", "$4::bigint") + `
) AS newest
WHERE kinds.kind IS NOT NULL AND ($3::integer IS NULL OR kinds.kind = $3)
ORDER BY newest.position DESC LIMIT $4`

const correlatedSQL = `
SELECT position FROM medilab.correlated
WHERE correlation = $5 AND position > $1 AND position < $2 AND ($3::integer IS NULL OR kind = $3)
ORDER BY position DESC LIMIT $4`

// Events lists the clinic's events, the newest first.
func (p *Projections) Events(ctx context.Context, f EventFilter) (EventPage, error) {
	if err := p.settle(ctx); err != nil {
		return EventPage{}, err
	}
	low, high, err := p.between(ctx, f.From, f.To, f.Cursor)
	if err != nil {
		return EventPage{}, err
	}
	var kind *int32
	if f.EventType != "" {
		h := hash31(f.EventType)
		kind = &h
	}
	sql, args := eventsSQL, []any{low, high, kind, f.Limit + 1}
	if f.CorrelationID != "" {
		sql, args = correlatedSQL, append(args, hash31(f.CorrelationID))
	}
	positions, err := p.positions(ctx, sql, args...)
	if err != nil {
		return EventPage{}, fmt.Errorf("list events: %w", err)
	}
	found, next, err := p.pick(ctx, positions, f.Limit)
	if err != nil {
		return EventPage{}, fmt.Errorf("list events: %w", err)
	}
	page := EventPage{NextCursor: next}
	for i := range found {
		event, ok := newEvent(&found[i])
		if ok && (f.EventType == "" || event.Type == f.EventType) && (f.CorrelationID == "" || event.CorrelationID != nil && *event.CorrelationID == f.CorrelationID) {
			page.Items = append(page.Items, event)
		}
	}
	return page, nil
}

// Event gives one event; a *domain.Error of KindNotFound when there is none.
// It reads the log itself, so it never lags.
func (p *Projections) Event(ctx context.Context, id domain.EventID) (Event, error) {
	event, _, err := p.event(ctx, id)
	return event, err
}

// event comes with the deliveries that it was dispatched to; none: it went to
// nobody, or is not dispatched yet.
func (p *Projections) event(ctx context.Context, id domain.EventID) (Event, []domain.Dispatch, error) {
	stream, err := p.log.Load(ctx, id.Stream())
	if err != nil {
		return Event{}, nil, err
	}
	var deliveries []domain.Dispatch
	var event Event
	found := false
	for i := range stream {
		decode(&stream[i])
		if e, ok := newEvent(&stream[i]); ok {
			event, found = e, true
		}
		if dispatched, ok := domain.DispatchOf(id, stream[i].Value); ok {
			deliveries = dispatched.Deliveries
		}
	}
	if !found {
		return Event{}, nil, domain.NotFound("event")
	}
	return event, deliveries, nil
}

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

// DeliveryPage is one page of an event's deliveries, in the order of webhooks.
type DeliveryPage struct {
	Items      []Delivery
	NextCursor string // "": there is no more
}

// Deliveries lists the deliveries of an event; a *domain.Error of KindNotFound
// when there is no such event. It reads the log itself, so it never lags.
func (p *Projections) Deliveries(ctx context.Context, id domain.EventID, limit int, cursor string) (DeliveryPage, error) {
	skip := int64(0)
	if cursor != "" {
		var err error
		if skip, err = parseCursor(cursor); err != nil {
			return DeliveryPage{}, err
		}
	}
	event, dispatched, err := p.event(ctx, id)
	if err != nil {
		return DeliveryPage{}, err
	}
	all, err := p.replayedTo(ctx, id, dispatched)
	if err != nil {
		return DeliveryPage{}, err
	}
	list := all[min(skip, int64(len(all))):]
	list = list[:min(limit, len(list))]
	var page DeliveryPage
	if rest := skip + int64(len(list)); rest < int64(len(all)) {
		page.NextCursor = cursorAt(rest)
	}
	page.Items, err = p.deliveries(ctx, event, list)
	return page, err
}

// deliveries gives where the deliveries of the event stand. They began, to the
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

// fold evolves each state by its stream, and tells the item when.
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

// resolve makes the deliveries that went in batches stand as the batches do.
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
