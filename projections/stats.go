package projections

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

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
//
// A webhook has one row, and so has the whole system: its figures of all time,
// and those of the latest hour in which anything happened to it. When its next
// hour begins, the latest is put by in stats_hours and does not change again.

var statsModel = Model{
	Name: "stats", Shape: 2, Tables: []string{"stats", "stats_hours"},
	New: func(t Tables) Projection {
		return &stats{
			// LATERAL with LIMIT keeps to the primary key whatever the planner knew.
			load: t.SQL(`
				SELECT k.webhook, s.tally, s.latest, s.latest_tally FROM unnest($1::uuid[]) AS k (webhook)
				CROSS JOIN LATERAL (SELECT tally, latest, latest_tally FROM {stats} WHERE webhook = k.webhook LIMIT 1) AS s`),
			save: t.SQL(`
				INSERT INTO {stats} (webhook, calls, tally, latest, latest_calls, latest_tally)
				SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bytea[], $4::integer[], $5::bigint[], $6::bytea[])
				ON CONFLICT (webhook) DO UPDATE SET calls = EXCLUDED.calls, tally = EXCLUDED.tally,
					latest = EXCLUDED.latest, latest_calls = EXCLUDED.latest_calls, latest_tally = EXCLUDED.latest_tally`),
			// There is no such row yet, unless somebody damaged the tables: that is
			// no reason to park events.
			putBy: t.SQL(`
				INSERT INTO {stats_hours} (webhook, hour, calls, tally)
				SELECT * FROM unnest($1::uuid[], $2::integer[], $3::bigint[], $4::bytea[])
				ON CONFLICT (webhook, hour) DO UPDATE SET calls = EXCLUDED.calls, tally = EXCLUDED.tally`),
		}
	},
}

type stats struct{ load, save, putBy string }

// wholeSystem stands in the place of a webhook for all of them together.
var wholeSystem domain.WebhookID

// statsKey names an hour of a webhook.
type statsKey struct {
	webhook domain.WebhookID
	hour    int32
}

// hourOf counts hours since 1970, UTC.
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

// sumsOf are a page's tallies by webhook and hour, in the order of the log. Hours
// only go up, as the log's times do: were one to go back, what happened in it
// would belong to the latest before it, however the log is cut into pages.
type sumsOf struct {
	keys  []statsKey
	byKey map[statsKey]*tally
	hour  int32 // the latest
}

func (s *sumsOf) of(webhook domain.WebhookID, at time.Time) *tally {
	s.hour = max(s.hour, hourOf(at))
	key := statsKey{webhook, s.hour}
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
		s.of(wholeSystem, e.RecordedAt).events++
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

// statsRow is a row of the table stats. The zero value is none yet.
type statsRow struct {
	total  tally
	latest tally
	hour   int32
}

// hours are rows for the table stats_hours, by column.
type hours struct {
	webhooks [][16]byte
	hours    []int32
	calls    []int64
	tallies  [][]byte
}

// merge adds the page's tallies to the rows they belong to: the webhook's and
// the system's.
func (p *stats) merge(ctx context.Context, db Querier, sums *sumsOf) ([]eventstore.Statement, error) {
	ids := [][16]byte{wholeSystem}
	rows := map[domain.WebhookID]*statsRow{wholeSystem: {}}
	for _, key := range sums.keys {
		if rows[key.webhook] == nil {
			rows[key.webhook] = &statsRow{}
			ids = append(ids, key.webhook)
		}
	}
	if err := p.loadInto(ctx, db, ids, rows); err != nil {
		return nil, err
	}
	var finished hours
	latest := rows[wholeSystem].hour
	for _, key := range sums.keys {
		hour := max(latest, key.hour)
		if key.webhook != wholeSystem {
			rows[key.webhook].add(key.webhook, hour, sums.byKey[key], &finished)
		}
		rows[wholeSystem].add(wholeSystem, hour, sums.byKey[key], &finished)
	}
	n := len(ids)
	calls, latestCalls, latestHours := make([]int64, n), make([]int64, n), make([]int32, n)
	tallies, latestTallies := make([][]byte, n), make([][]byte, n)
	for i, id := range ids {
		r := rows[id]
		if id == wholeSystem {
			r.total.figures, r.total.consecutive = domain.CallFigures{}, 0 // of one webhook after another they say nothing
		}
		calls[i], tallies[i] = r.total.calls, r.total.encode()
		latestHours[i], latestCalls[i], latestTallies[i] = r.hour, r.latest.calls, r.encodeLatest(id)
	}
	statements := []eventstore.Statement{{SQL: p.save, Args: []any{ids, calls, tallies, latestHours, latestCalls, latestTallies}}}
	if len(finished.webhooks) > 0 {
		statements = append(statements, eventstore.Statement{SQL: p.putBy,
			Args: []any{finished.webhooks, finished.hours, finished.calls, finished.tallies}})
	}
	return statements, nil
}

// add takes in what happened in the hour, which is the latest or a later one.
func (r *statsRow) add(webhook domain.WebhookID, hour int32, sum *tally, finished *hours) {
	if r.hour < hour {
		if r.hour > 0 {
			finished.webhooks, finished.hours = append(finished.webhooks, webhook), append(finished.hours, r.hour)
			finished.calls, finished.tallies = append(finished.calls, r.latest.calls), append(finished.tallies, r.encodeLatest(webhook))
		}
		r.hour, r.latest = hour, tally{}
	}
	r.total.add(sum)
	r.latest.add(sum)
}

// encodeLatest gives the stored form of the latest hour: alerts ask only for
// figures of all time.
func (r *statsRow) encodeLatest(webhook domain.WebhookID) []byte {
	r.latest.figures = domain.CallFigures{}
	if webhook == wholeSystem {
		r.latest.consecutive = 0
	}
	return r.latest.encode()
}

func (p *stats) loadInto(ctx context.Context, db Querier, ids [][16]byte, into map[domain.WebhookID]*statsRow) error {
	rows, err := db.Query(ctx, p.load, ids)
	if err != nil {
		return fmt.Errorf("load statistics: %w", err)
	}
	var id [16]byte
	var hour int32
	var total, latest pgtype.DriverBytes
	_, err = pgx.ForEachRow(rows, []any{&id, &total, &hour, &latest}, func() error {
		row := into[id]
		row.hour = hour
		return errors.Join(row.total.decode(total), row.latest.decode(latest))
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
