package projections

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// The clinic's events: for each type the positions of its events, and those of each
// correlation id.

var eventsModel = Model{
	Name: "events", SchemaVersion: 3, Tables: []string{"triggered", "correlated", "occurred"},
	New: func(t Tables) Projection {
		return &triggered{
			table: newListTable(t, "triggered", false, blockBits),
			correlate: t.SQL(`
				INSERT INTO {correlated} (correlation, position, kind)
				SELECT * FROM unnest($1::integer[], $2::bigint[], $3::integer[])`),
			occur: t.SQL(`
				INSERT INTO {occurred} AS o (block, earliest, latest)
				SELECT block, min(at), max(at) FROM unnest($1::bigint[], $2::timestamptz[]) AS e (block, at) GROUP BY block
				ON CONFLICT (block) DO UPDATE SET earliest = least(o.earliest, EXCLUDED.earliest), latest = greatest(o.latest, EXCLUDED.latest)`),
		}
	},
}

type triggered struct {
	table            listTable
	correlate, occur string
}

func (p *triggered) Project(_ context.Context, _ Querier, events []eventstore.Event) ([]eventstore.Statement, error) {
	lists := positionLists{}
	var correlations, kinds []int32
	var positions []int64
	for i := range events {
		change, ok := events[i].Value.(domain.EventTriggered)
		if !ok {
			continue
		}
		kind := hash31(change.EventType)
		lists.add(0, kind, events[i].Position)
		if change.CorrelationID != "" {
			correlations, kinds = append(correlations, hash31(change.CorrelationID)), append(kinds, kind)
			positions = append(positions, int64(events[i].Position))
		}
	}
	statements := p.table.statements(lists, events[0].Position)
	if len(positions) > 0 {
		statements = append(statements, eventstore.Statement{SQL: p.correlate, Args: []any{correlations, positions, kinds}})
	}
	if blocks, times := occurredIn(events); blocks != nil {
		statements = append(statements, eventstore.Statement{SQL: p.occur, Args: []any{blocks, times}})
	}
	return statements, nil
}

// Event is one event of the clinic.
type Event struct {
	ID            domain.EventID      `json:"event_id"`
	Type          string              `json:"event_type"`
	Source        string              `json:"source"`
	CorrelationID *string             `json:"correlation_id"`
	ClientEventID *domain.EventID     `json:"client_event_id"`                 // what its caller sent, if another caller has that id
	Data          json.RawMessage     `json:"event_data" schema:"object,null"` // byte for byte as it was accepted
	AcceptedAt    time.Time           `json:"accepted_at"`
	OccurredAt    time.Time           `json:"occurred_at"` // when it was emitted, however late it was accepted
	Traceparent   *string             `json:"traceparent"`
	Tracestate    *string             `json:"tracestate"`
	Deliver       bool                `json:"deliver"` // false: it was only recorded, and goes to nobody unless a replay sends it
	Position      eventstore.Position `json:"position"`
	Deliveries    *DeliveryCounts     `json:"deliveries,omitempty"` // if it was asked for
	Gone

	recipients []domain.Recipient
}

// Trace returns the trace that the event is part of.
func (e Event) Trace() (trace domain.Trace) {
	if e.Traceparent != nil {
		trace.Traceparent = *e.Traceparent
	}
	if e.Tracestate != nil {
		trace.Tracestate = *e.Tracestate
	}
	return trace
}

// DeliveryCounts says how many deliveries an event was dispatched to, and how the first of them,
// so many as are in States, stand.
type DeliveryCounts struct {
	Total  int                          `json:"total"`
	States map[domain.DeliveryState]int `json:"states"`
}

// CountDeliveries counts the deliveries of each event, by their keys. The work is bounded: of
// events that went to many, it looks at some.
func (p *Projections) CountDeliveries(ctx context.Context, events []Event) error {
	const most, ofOne = 2000, 20
	few := min(ofOne, max(1, most/max(1, len(events))))
	var items []Delivery
	var of []int
	for i := range events {
		e := &events[i]
		e.Deliveries = &DeliveryCounts{Total: len(e.recipients), States: map[domain.DeliveryState]int{}}
		for _, r := range e.recipients[:min(few, len(e.recipients))] {
			items, of = append(items, newDelivery(e.head(), dispatchTo(e.ID, r))), append(of, i)
		}
	}
	if err := p.stateOf(ctx, items); err != nil {
		return fmt.Errorf("count deliveries: %w", err)
	}
	for i := range items {
		events[of[i]].Deliveries.States[items[i].State]++
	}
	return nil
}

// Gone says why there is no content: event_data, or what was sent and answered, is null.
type Gone struct {
	Erased  bool `json:"erased,omitempty"`  // a subject of it was erased
	Expired bool `json:"expired,omitempty"` // it was kept for as long as it is to be
}

func goneOf(c domain.Content) Gone { return Gone{c.Erased && !c.Expired, c.Expired} }

// IsGone reports whether there is no content.
func (g Gone) IsGone() bool { return g.Erased || g.Expired }

// head returns what of the event can be read without its data.
func (e *Event) head() eventHead {
	return eventHead{id: e.ID, position: e.Position, eventType: e.Type, acceptedAt: e.AcceptedAt, occurredAt: e.OccurredAt}
}

func newEvent(e *eventstore.Event) (Event, bool) {
	change, ok := e.Value.(domain.EventTriggered)
	kind, id, err := domain.ParseStream(e.Stream)
	if !ok || err != nil || kind != "event" {
		return Event{}, false
	}
	return Event{ID: domain.EventID(id), Type: change.EventType, Source: change.Source,
		Data: change.EventData, AcceptedAt: e.RecordedAt, OccurredAt: change.Occurred(e.RecordedAt), Deliver: !change.Imported, Position: e.Position, Gone: goneOf(change.Content), recipients: change.Recipients,
		Traceparent: orNil(change.Traceparent), Tracestate: orNil(change.Tracestate),
		CorrelationID: orNil(change.CorrelationID), ClientEventID: orNil(change.ClientEventID)}, true
}

// EventFilter says which events to list.
type EventFilter struct {
	EventType     string    // "" is any
	CorrelationID string    // "" is any
	From, To      time.Time // occurred at or after, before; zero is any
	Limit         int
	Cursor        Cursor
}

// kindsSQL goes from kind to kind by the key.
const kindsSQL = `
WITH RECURSIVE kinds AS (
	SELECT (SELECT min(kind) FROM medilab.triggered) AS kind
	UNION ALL
	SELECT (SELECT min(e.kind) FROM medilab.triggered AS e WHERE e.kind > kinds.kind) FROM kinds WHERE kinds.kind IS NOT NULL
)`

// eventsSQL merges the newest of each type, see callsSQL.
var eventsSQL = kindsSQL + `
SELECT newest.position FROM kinds CROSS JOIN LATERAL (` +
	newestPositions("triggered", "t.kind = kinds.kind", "$4::bigint") + `
) AS newest
WHERE kinds.kind IS NOT NULL AND ($3::integer IS NULL OR kinds.kind = $3)
ORDER BY newest.position DESC LIMIT $4`

const correlatedSQL = `
SELECT position FROM medilab.correlated
WHERE correlation = $5 AND position > $1 AND position < $2 AND ($3::integer IS NULL OR kind = $3)
ORDER BY position DESC LIMIT $4`

// typesSQL reads the beginning of one event of each kind, which has the type.
const typesSQL = kindsSQL + `
SELECT e.data FROM kinds
CROSS JOIN LATERAL (SELECT block << 8 | get_byte(places, 0) AS position FROM medilab.triggered WHERE kind = kinds.kind ORDER BY block LIMIT 1) AS t
CROSS JOIN LATERAL (SELECT ` + beginning + ` FROM medilab.events WHERE position = t.position LIMIT 1) AS e`

// EventTypes returns the types of which the log has events, those that left the catalogue
// since included.
func (p *Projections) EventTypes(ctx context.Context) (types []domain.EventType, err error) {
	rows, _ := p.pool.Query(ctx, typesSQL)
	var data []byte
	_, err = pgx.ForEachRow(rows, []any{&data}, func() error {
		if eventType, ok := domain.EventTypeIn(data); ok {
			types = append(types, domain.EventType(eventType))
		}
		return nil
	})
	return types, doing("list event types", err)
}

// Events lists the clinic's events, the newest first.
func (p *Projections) Events(ctx context.Context, f EventFilter) (Page[Event], error) {
	if err := p.awaitData(ctx); err != nil {
		return Page[Event]{}, err
	}
	spans, err := p.spansOf(ctx, f.From, f.To, f.Cursor.Below())
	if err != nil {
		return Page[Event]{}, err
	}
	kind := hashOrNil(f.EventType)
	list := Page[Event]{Items: []Event{}}
	for i, s := range spans {
		sql, args := eventsSQL, []any{s.low, s.high, kind, f.Limit - len(list.Items) + 1}
		if f.CorrelationID != "" {
			sql, args = correlatedSQL, append(args, hash31(f.CorrelationID))
		}
		page, err := pageAt(ctx, p, p.log, f.Limit-len(list.Items), f.show, sql, args...)
		if err != nil {
			return page, fmt.Errorf("list events: %w", err)
		}
		list.Items, list.NextCursor = append(list.Items, page.Items...), page.NextCursor
		if len(list.Items) == f.Limit && page.NextCursor == 0 && i < len(spans)-1 {
			list.NextCursor = Cursor(s.low + 1)
		}
		if list.NextCursor != 0 {
			break
		}
	}
	return list, nil
}

// show returns the event, and whether it is one that is asked for.
func (f *EventFilter) show(e *eventstore.Event) (Event, bool) {
	event, ok := newEvent(e)
	return event, ok && (f.EventType == "" || event.Type == f.EventType) && isWithin(event.OccurredAt, f.From, f.To) &&
		(f.CorrelationID == "" || event.CorrelationID != nil && *event.CorrelationID == f.CorrelationID)
}

// Event returns one event, or a *domain.Error of KindNotFound. It reads the log
// itself, so it never lags.
func (p *Projections) Event(ctx context.Context, id domain.EventID) (Event, error) {
	event, _, err := p.event(ctx, id)
	return event, err
}

// event returns an event with the deliveries that it was dispatched to: none if it
// went to nobody, or is not dispatched yet.
func (p *Projections) event(ctx context.Context, id domain.EventID) (Event, []domain.Dispatch, error) {
	stream, err := p.log.Load(ctx, id.Stream())
	if err != nil {
		return Event{}, nil, err
	}
	var deliveries []domain.Dispatch
	var event Event
	found := false
	for i := range stream {
		if e, ok := newEvent(&stream[i]); ok {
			event, found = e, true
		}
		if dispatched, ok := domain.DispatchOf(id, stream[i].Value); ok {
			deliveries = dispatched.Deliveries
		}
	}
	if !found {
		return Event{}, nil, p.notFound(ctx, "event")
	}
	return event, deliveries, nil
}
