package projections

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/google/uuid"
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
//   - A call that ends after its delivery was cancelled counts like others.
//   - Every delivery is one of pending, delivered, exhausted and cancelled: a
//     requested retry takes it from there back to pending.
//   - A batch is one delivery; its members no longer count.
//
// Each webhook, and the whole system, has a row with its counters of all time and
// of the latest hour in which anything happened to it. When its next hour begins,
// the latest moves to stats_hours and does not change again.

var statsModel = Model{
	Name: "stats", SchemaVersion: 54, Tables: []string{"stats", "stats_hours"}, Totals: true,
	New: func(t Tables) Projection {
		return &stats{
			// LATERAL with LIMIT goes by the primary key whatever the planner knew.
			load: t.SQL(`
				SELECT k.webhook, s.tally, s.latest, s.latest_tally FROM unnest($1::uuid[]) AS k (webhook)
				CROSS JOIN LATERAL (SELECT tally, latest, latest_tally FROM {stats} WHERE webhook = k.webhook LIMIT 1) AS s`),
			save: t.SQL(`
				INSERT INTO {stats} (webhook, calls, tally, latest, latest_calls, latest_tally)
				SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bytea[], $4::integer[], $5::bigint[], $6::bytea[])
				ON CONFLICT (webhook) DO UPDATE SET calls = EXCLUDED.calls, tally = EXCLUDED.tally,
					latest = EXCLUDED.latest, latest_calls = EXCLUDED.latest_calls, latest_tally = EXCLUDED.latest_tally`),
			// A finished hour is new, unless somebody damaged the tables: that is no
			// reason to dead-letter events.
			finish: t.SQL(`
				INSERT INTO {stats_hours} (webhook, hour, calls, tally)
				SELECT * FROM unnest($1::uuid[], $2::integer[], $3::bigint[], $4::bytea[])
				ON CONFLICT (webhook, hour) DO UPDATE SET calls = EXCLUDED.calls, tally = EXCLUDED.tally`),
		}
	},
}

type stats struct{ load, save, finish string }

// wholeSystem stands for all webhooks together.
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
	page := countPage(events, before)
	if len(page.keys) == 0 {
		return nil, nil
	}
	return p.merge(ctx, db, page)
}

// pageCounters are a page's counters by webhook and hour, in the order of the log.
// Hours only go up, as the log's times do: were one to go back, what happened in it
// would belong to the latest before it, however the log is cut into pages.
type pageCounters struct {
	keys  []statsKey
	byKey map[statsKey]*counters
	hour  int32 // the latest
}

// countPage counts the events; before is what retriedStates returned of them.
func countPage(events []eventstore.Event, before map[eventstore.Position]domain.DeliveryState) *pageCounters {
	page := &pageCounters{byKey: map[statsKey]*counters{}}
	for i := range events {
		page.count(&events[i], before[events[i].Position])
	}
	return page
}

func (p *pageCounters) of(webhook domain.WebhookID, at time.Time) *counters {
	p.hour = max(p.hour, hourOf(at))
	key := statsKey{webhook, p.hour}
	c := p.byKey[key]
	if c == nil {
		c = &counters{}
		p.byKey[key] = c
		p.keys = append(p.keys, key)
	}
	return c
}

// count counts one event; before is the state that a retried delivery was in.
func (p *pageCounters) count(e *eventstore.Event, before domain.DeliveryState) {
	at := e.RecordedAt
	if call, ok := domain.CountedCall(e.Value); ok {
		p.of(call.WebhookID, at).call(&call, at)
	}
	switch c := e.Value.(type) {
	case domain.EventTriggered:
		p.of(wholeSystem, at).events++
		for _, r := range c.Recipients {
			p.of(r.WebhookID, at).pending++
		}
	case domain.EventDispatched:
		for _, d := range c.Deliveries {
			p.of(d.WebhookID, at).pending++
		}
	case domain.DeliveryBatched:
		p.of(c.WebhookID, at).pending++
	case domain.DeliveryJoinedBatch:
		p.of(c.WebhookID, at).pending--
	case domain.DeliverySucceeded:
		p.of(c.WebhookID, at).move(domain.DeliveryPending, domain.DeliveryDelivered)
	case domain.DeliveryAttemptFailed:
		if c.GaveUp != "" {
			p.of(c.WebhookID, at).move(domain.DeliveryPending, domain.DeliveryFailed)
		}
	case domain.DeliveryCancelled:
		if c.Was != domain.DeliveryJoined {
			p.of(c.WebhookID, at).move(cmp.Or(c.Was, domain.DeliveryPending), domain.DeliveryWithdrawn)
		}
	case domain.DeliveryRetryCancelled:
		p.of(c.WebhookID, at).move(domain.DeliveryPending, domain.DeliveryFailed)
	case domain.DeliveryRetryRequested:
		p.of(c.WebhookID, at).move(before, domain.DeliveryPending)
	}
}

// statsRow is a row of the table stats, or the zero value while there is none.
type statsRow struct {
	total  counters
	latest counters
	hour   int32
}

// hourRows are rows of an hour each, by column.
type hourRows struct {
	webhooks [][16]byte
	hours    []int32
	calls    []int64
	tallies  [][]byte
}

func (h *hourRows) add(webhook domain.WebhookID, r *statsRow) {
	// Alerts ask only for figures of all time.
	r.latest.figures = domain.CallFigures{}
	if webhook == wholeSystem {
		r.latest.consecutive = 0
	}
	h.webhooks, h.hours = append(h.webhooks, webhook), append(h.hours, r.hour)
	h.calls, h.tallies = append(h.calls, r.latest.calls), append(h.tallies, r.latest.encode())
}

// merge adds the page's counters to the rows they belong to: the webhook's and
// the system's.
func (p *stats) merge(ctx context.Context, db Querier, page *pageCounters) ([]eventstore.Statement, error) {
	ids := [][16]byte{wholeSystem}
	rows := map[domain.WebhookID]*statsRow{wholeSystem: {}}
	for _, key := range page.keys {
		if rows[key.webhook] == nil {
			rows[key.webhook] = &statsRow{}
			ids = append(ids, key.webhook)
		}
	}
	if err := p.loadInto(ctx, db, ids, rows); err != nil {
		return nil, fmt.Errorf("load statistics: %w", err)
	}
	var finished, latest hourRows
	began := rows[wholeSystem].hour
	for _, key := range page.keys {
		hour := max(began, key.hour)
		if key.webhook != wholeSystem {
			rows[key.webhook].add(key.webhook, hour, page.byKey[key], &finished)
		}
		rows[wholeSystem].add(wholeSystem, hour, page.byKey[key], &finished)
	}
	calls, tallies := make([]int64, len(ids)), make([][]byte, len(ids))
	for i, id := range ids {
		r := rows[id]
		if id == wholeSystem { // they are a webhook's
			r.total.figures, r.total.consecutive = domain.CallFigures{}, 0
		}
		calls[i], tallies[i] = r.total.calls, r.total.encode()
		latest.add(id, r)
	}
	statements := []eventstore.Statement{{SQL: p.save, Args: []any{ids, calls, tallies, latest.hours, latest.calls, latest.tallies}}}
	if len(finished.hours) > 0 {
		statements = append(statements, eventstore.Statement{SQL: p.finish, Args: []any{finished.webhooks, finished.hours, finished.calls, finished.tallies}})
	}
	return statements, nil
}

// add adds what was counted in the hour, which is the row's latest or a later one.
func (r *statsRow) add(webhook domain.WebhookID, hour int32, sum *counters, finished *hourRows) {
	if r.hour < hour {
		if r.hour > 0 {
			finished.add(webhook, r)
		}
		r.hour, r.latest = hour, counters{}
	}
	r.total.add(sum)
	r.latest.add(sum)
}

func (p *stats) loadInto(ctx context.Context, db Querier, ids [][16]byte, into map[domain.WebhookID]*statsRow) error {
	rows, _ := db.Query(ctx, p.load, ids)
	var id [16]byte
	var hour int32
	var total, latest pgtype.DriverBytes
	_, err := pgx.ForEachRow(rows, []any{&id, &total, &hour, &latest}, func() error {
		row := into[id]
		row.hour = hour
		return errors.Join(row.total.ScanBytes(total), row.latest.ScanBytes(latest))
	})
	return err
}

// retriedSQL reads streams, each up to a version, by their key. A plan made on an empty log
// must not go by anything else, see docs/decisions/0009.
const retriedSQL = `
	SELECT s.stream, e.position, e.version, e.type, e.data FROM unnest($1::text[], $2::bigint[]) AS s (stream, last)
	CROSS JOIN LATERAL (
		SELECT position, version, type, data FROM medilab.events WHERE stream = s.stream AND version <= s.last ORDER BY version OFFSET 0
	) AS e`

// retries are the requests of a page for retries, by where it stands what their deliveries
// were before.
type retries struct {
	last      map[string]int64 // of each stream, the version up to which it matters
	after     map[streamVersion]eventstore.Position
	beginning map[string]eventstore.Position // by the stream of a delivery that the request begins
}

// streamVersion names an event.
type streamVersion struct {
	stream  string
	version int64
}

func retriesIn(events []eventstore.Event) retries {
	r := retries{map[string]int64{}, map[streamVersion]eventstore.Position{}, map[string]eventstore.Position{}}
	for i := range events {
		e := &events[i]
		c, ok := e.Value.(domain.DeliveryRetryRequested)
		switch {
		case !ok:
		case e.Version == 1: // pending if the event was dispatched to it
			r.last[c.EventID.Stream()], r.beginning[e.Stream] = math.MaxInt64, e.Position
		default:
			before := streamVersion{e.Stream, e.Version - 1}
			r.last[e.Stream], r.after[before] = max(r.last[e.Stream], before.version), e.Position
		}
	}
	return r
}

// retriedStates returns the state of each delivery of which the page requests a
// retry, by the request's position; none for one that begins its delivery, as when a
// replay sends what was not meant for the webhook. Such requests are few but for replays.
func retriedStates(ctx context.Context, db Querier, events []eventstore.Event) (map[eventstore.Position]domain.DeliveryState, error) {
	requests := retriesIn(events)
	if len(requests.last) == 0 {
		return nil, nil
	}
	streams := slices.Collect(maps.Keys(requests.last))
	lasts := mapped(streams, func(stream string) int64 { return requests.last[stream] })
	rows, _ := db.Query(ctx, retriedSQL, streams, lasts)
	states := map[eventstore.Position]domain.DeliveryState{}
	var row eventstore.Event
	var last string
	var delivery domain.Delivery
	_, err := pgx.ForEachRow(rows, []any{&row.Stream, &row.Position, &row.Version, &row.Type, &row.Data}, func() error {
		if row.Stream != last {
			delivery, last = domain.Delivery{}, row.Stream
		}
		change, err := domain.Decode(row.Type, row.Data)
		if err == nil {
			delivery = delivery.Evolve(change, time.Time{})
		}
		if at, ok := requests.after[streamVersion{row.Stream, row.Version}]; ok {
			states[at] = delivery.State
		}
		requests.dispatched(&row, change, states)
		return nil
	})
	return states, doing("read retried deliveries", err)
}

// dispatched notes the deliveries that were pending, as the change dispatched them, when
// the retry was requested.
func (r *retries) dispatched(row *eventstore.Event, change domain.Change, states map[eventstore.Position]domain.DeliveryState) {
	kind, id, err := domain.ParseStream(row.Stream)
	if len(r.beginning) == 0 || err != nil || kind != "event" {
		return
	}
	dispatched, _ := domain.DispatchOf(domain.EventID(id), change)
	for _, d := range dispatched.Deliveries {
		if at, ok := r.beginning[d.DeliveryID.Stream()]; ok && row.Position < at {
			states[at] = domain.DeliveryPending
		}
	}
}

// pendingDeliveries returns how many deliveries are pending by the statistics and
// what the log holds beyond them.
func pendingDeliveries(ctx context.Context, tx pgx.Tx) (int64, error) {
	position, err := positionIn(ctx, tx)
	if err != nil {
		return 0, err
	}
	var sum counters
	err = tx.QueryRow(ctx, `SELECT tally FROM medilab.stats WHERE webhook = $1`, uuid.UUID(wholeSystem)).Scan(&sum)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return 0, err
	}
	err = eventstore.ReadPages(ctx, tx, position, func(events []eventstore.Event) error {
		good, _ := splitDecoded(events)
		before, err := retriedStates(ctx, tx, good)
		if err != nil {
			return err
		}
		for _, c := range countPage(good, before).byKey {
			sum.pending += c.pending
		}
		return nil
	})
	return sum.pending, err
}
