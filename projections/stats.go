package projections

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// Statistics (contract section 5), of each webhook and of the whole system.
//
//   - Test calls are in none of the figures.
//   - An interrupted attempt is a failed call without a duration; it neither
//     lengthens nor ends a run of failures. What became of it later adds nothing.
//   - Every delivery is in one of pending, delivered, exhausted and cancelled: a
//     retry that somebody asked for takes it back to pending from where it was.
//   - A batch is one delivery: its members are no deliveries of their own any more.

var statsModel = Model{
	Name: "stats", Shape: 1, Tables: []string{"stats"},
	New: func(t Tables) Projection {
		return &stats{
			// LATERAL with LIMIT keeps to the primary key whatever the planner knew.
			load: t.SQL(`
				SELECT k.webhook, k.hour, s.tally FROM unnest($1::uuid[], $2::integer[]) AS k (webhook, hour)
				CROSS JOIN LATERAL (SELECT tally FROM {stats} WHERE webhook = k.webhook AND hour = k.hour LIMIT 1) AS s`),
			save: t.SQL(`
				INSERT INTO {stats} (webhook, hour, calls, tally)
				SELECT * FROM unnest($1::uuid[], $2::integer[], $3::bigint[], $4::bytea[])
				ON CONFLICT (webhook, hour) DO UPDATE SET calls = EXCLUDED.calls, tally = EXCLUDED.tally`),
		}
	},
}

type stats struct{ load, save string }

// statsKey names a row. The zero webhook is the whole system.
type statsKey struct {
	webhook domain.WebhookID
	hour    int32
}

const allTime = -1

func hourOf(at time.Time) int32 { return int32(at.Unix() / 3600) }

func (p *stats) Project(ctx context.Context, db Querier, events []eventstore.Event) ([]eventstore.Statement, error) {
	before, err := retriedStates(ctx, db, events)
	if err != nil {
		return nil, err
	}
	sums := sumsOf{byKey: map[statsKey]*tally{}}
	for i := range events {
		sums.count(&events[i], before)
	}
	if len(sums.keys) == 0 {
		return nil, nil
	}
	return p.merge(ctx, db, &sums)
}

// sumsOf are a page's tallies by webhook and hour, in the order of the log.
type sumsOf struct {
	keys  []statsKey
	byKey map[statsKey]*tally
}

func (s *sumsOf) of(webhook domain.WebhookID, at time.Time) *tally {
	key := statsKey{webhook, hourOf(at)}
	t := s.byKey[key]
	if t == nil {
		t = &tally{}
		s.byKey[key] = t
		s.keys = append(s.keys, key)
	}
	return t
}

// count takes in one event of the log.
func (s *sumsOf) count(e *eventstore.Event, before map[eventstore.Position]domain.DeliveryState) {
	switch c := e.Value.(type) {
	case domain.EventTriggered:
		s.of(domain.WebhookID{}, e.RecordedAt).events++
		for _, r := range c.Recipients {
			s.of(r.WebhookID, e.RecordedAt).pending++
		}
	case domain.EventDispatched:
		for _, d := range c.Deliveries {
			s.of(d.WebhookID, e.RecordedAt).pending++
		}
	case domain.DeliveryBatched:
		s.of(c.WebhookID, e.RecordedAt).pending++
	case domain.DeliveryJoinedBatch:
		s.of(c.WebhookID, e.RecordedAt).pending--
	case domain.DeliverySucceeded:
		t := s.of(c.WebhookID, e.RecordedAt)
		t.call(&c.Call, e.RecordedAt)
		t.pending--
		t.delivered++
	case domain.DeliveryAttemptFailed:
		t := s.of(c.WebhookID, e.RecordedAt)
		t.call(&c.Call, e.RecordedAt)
		if c.GaveUp != "" {
			t.pending--
			t.exhausted++
		}
	case domain.DeliveryInterrupted:
		call, _ := callOf(c)
		s.of(c.WebhookID, e.RecordedAt).call(&call, e.RecordedAt)
	case domain.DeliveryCancelled:
		t := s.of(c.WebhookID, e.RecordedAt)
		t.pending--
		t.cancelled++
	case domain.DeliveryRetryRequested:
		s.of(c.WebhookID, e.RecordedAt).backToPending(before[e.Position])
	}
}

func (t *tally) backToPending(from domain.DeliveryState) {
	switch from {
	case domain.DeliveryDelivered:
		t.delivered--
	case domain.DeliveryFailed:
		t.exhausted--
	case domain.DeliveryWithdrawn:
		t.cancelled--
	case domain.DeliveryPending:
		return // it waits already
	}
	t.pending++
}

// merge adds the page's tallies to the rows they belong to: the webhook's hour
// and all time, and the system's.
func (p *stats) merge(ctx context.Context, db Querier, sums *sumsOf) ([]eventstore.Statement, error) {
	rows := sumsOf{byKey: map[statsKey]*tally{}}
	touch := func(key statsKey) {
		if rows.byKey[key] == nil {
			rows.byKey[key] = &tally{}
			rows.keys = append(rows.keys, key)
		}
	}
	var system domain.WebhookID
	for _, key := range sums.keys {
		for _, webhook := range []domain.WebhookID{key.webhook, system} {
			touch(statsKey{webhook, key.hour})
			touch(statsKey{webhook, allTime})
		}
	}
	ids, hours := make([][16]byte, len(rows.keys)), make([]int32, len(rows.keys))
	for i, key := range rows.keys {
		ids[i], hours[i] = key.webhook, key.hour
	}
	if err := p.loadInto(ctx, db, ids, hours, rows.byKey); err != nil {
		return nil, err
	}
	for _, key := range sums.keys {
		sum := sums.byKey[key]
		if key.webhook != system {
			rows.byKey[key].add(sum)
			rows.byKey[statsKey{key.webhook, allTime}].add(sum)
		}
		rows.byKey[statsKey{system, key.hour}].add(sum)
		rows.byKey[statsKey{system, allTime}].add(sum)
	}
	calls, tallies := make([]int64, len(rows.keys)), make([][]byte, len(rows.keys))
	for i, key := range rows.keys {
		t := rows.byKey[key]
		if key.hour != allTime || key.webhook == system {
			t.figures = domain.CallFigures{}
		}
		if key.webhook == system {
			t.consecutive = 0 // of one webhook after another it says nothing
		}
		calls[i], tallies[i] = t.calls, t.encode()
	}
	return []eventstore.Statement{{SQL: p.save, Args: []any{ids, hours, calls, tallies}}}, nil
}

func (p *stats) loadInto(ctx context.Context, db Querier, ids [][16]byte, hours []int32, into map[statsKey]*tally) error {
	rows, err := db.Query(ctx, p.load, ids, hours)
	if err != nil {
		return fmt.Errorf("load statistics: %w", err)
	}
	var id [16]byte
	var hour int32
	var encoded []byte
	_, err = pgx.ForEachRow(rows, []any{&id, &hour, &encoded}, func() error {
		t, err := decodeTally(encoded)
		if err != nil {
			return err
		}
		into[statsKey{domain.WebhookID(id), hour}] = t
		return nil
	})
	if err != nil {
		return fmt.Errorf("load statistics: %w", err)
	}
	return nil
}

// retriedStates tells where each delivery stood of which the page asks a retry;
// "" that nobody had sent it, so that the request is its beginning. Such
// requests are few but for replays.
func retriedStates(ctx context.Context, db Querier, events []eventstore.Event) (map[eventstore.Position]domain.DeliveryState, error) {
	requests := map[string][]*eventstore.Event{}
	first := map[string][]*eventstore.Event{}
	for i := range events {
		e := &events[i]
		c, ok := e.Value.(domain.DeliveryRetryRequested)
		switch {
		case !ok:
		case e.Version == 1:
			first[c.EventID.Stream()] = append(first[c.EventID.Stream()], e)
		default:
			requests[e.Stream] = append(requests[e.Stream], e)
		}
	}
	if len(requests) == 0 && len(first) == 0 {
		return nil, nil
	}
	states := map[eventstore.Position]domain.DeliveryState{}
	before := events[len(events)-1].Position
	if err := foldRetried(ctx, db, requests, before, states); err != nil {
		return nil, fmt.Errorf("read retried deliveries: %w", err)
	}
	if err := findDispatched(ctx, db, first, before, states); err != nil {
		return nil, fmt.Errorf("read retried deliveries: %w", err)
	}
	return states, nil
}

// foldRetried folds the streams of retried deliveries up to each request.
func foldRetried(ctx context.Context, db Querier, requests map[string][]*eventstore.Event, before eventstore.Position, states map[eventstore.Position]domain.DeliveryState) error {
	if len(requests) == 0 {
		return nil
	}
	rows, err := db.Query(ctx, `
		SELECT stream, version, type, data FROM medilab.events
		WHERE stream = ANY($1) AND position < $2 ORDER BY stream, version`,
		slices.Collect(maps.Keys(requests)), before)
	if err != nil {
		return err
	}
	var stream, last, changeType string
	var version int64
	var data []byte
	var delivery domain.Delivery
	_, err = pgx.ForEachRow(rows, []any{&stream, &version, &changeType, &data}, func() error {
		if stream != last {
			delivery, last = domain.Delivery{}, stream
		}
		if change, err := domain.Decode(changeType, data); err == nil {
			delivery = delivery.Evolve(change, time.Time{})
		}
		for _, e := range requests[stream] {
			if e.Version == version+1 {
				states[e.Position] = delivery.State
			}
		}
		return nil
	})
	return err
}

// findDispatched tells, of requests that begin a delivery's stream, those whose
// delivery was dispatched and had not been tried from those of a replay, which
// sends what was never meant for the webhook.
func findDispatched(ctx context.Context, db Querier, first map[string][]*eventstore.Event, before eventstore.Position, states map[eventstore.Position]domain.DeliveryState) error {
	if len(first) == 0 {
		return nil
	}
	rows, err := db.Query(ctx, `
		SELECT stream, position, type, data FROM medilab.events WHERE stream = ANY($1) AND position < $2`,
		slices.Collect(maps.Keys(first)), before)
	if err != nil {
		return err
	}
	var stream, changeType string
	var position eventstore.Position
	var data []byte
	_, err = pgx.ForEachRow(rows, []any{&stream, &position, &changeType, &data}, func() error {
		change, decoding := domain.Decode(changeType, data)
		id, err := domain.ParseEventStream(stream)
		dispatched, ok := domain.DispatchOf(id, change)
		if decoding != nil || err != nil || !ok {
			return nil // not a dispatch, or poison that is parked
		}
		for _, d := range dispatched.Deliveries {
			for _, e := range first[stream] {
				if e.Position > position && e.Stream == d.DeliveryID.Stream() {
					states[e.Position] = domain.DeliveryPending
				}
			}
		}
		return nil
	})
	return err
}
