package projections

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// Bucket is the width of a series' parts.
type Bucket string

// The widths of a series' parts; days are UTC's.
const (
	BucketHour Bucket = "hour"
	BucketDay  Bucket = "day"
)

// StatsFilter narrows statistics to a range. Zero times are no bound. An hour
// that the range only touches is counted again from the log, to the event, if
// not too much happened in it; else all of the hour is in the range.
type StatsFilter struct {
	From, To time.Time
	Bucket   Bucket // "": no series
}

func (f StatsFilter) all() bool { return f.From.IsZero() && f.To.IsZero() }

// hours gives the first and the last hour of the range; last before first: none.
func (f StatsFilter) hours() (first, last int32) {
	last = math.MaxInt32
	if !f.From.IsZero() {
		first = max(0, hourOf(f.From))
	}
	if !f.To.IsZero() {
		last = hourOf(f.To.Add(-time.Nanosecond))
	}
	return first, last
}

// Stats are the figures of contract section 5. Durations are milliseconds;
// what has no calls to be told from is null. The figures up to cancelled are of
// the range asked for; pending, the run of failures and the last times are of now.
type Stats struct {
	TotalCalls      int64    `json:"total_calls"`
	SuccessfulCalls int64    `json:"successful_calls"`
	FailedCalls     int64    `json:"failed_calls"`
	SuccessRate     *float64 `json:"success_rate"` // percent
	AverageMS       *float64 `json:"average_response_time_ms"`
	P50MS           *float64 `json:"p50_ms"`
	P95MS           *float64 `json:"p95_ms"`
	P99MS           *float64 `json:"p99_ms"`
	Timeouts        int64    `json:"timeouts"`
	Retries         int64    `json:"retries"`
	Delivered       int64    `json:"delivered"`
	Exhausted       int64    `json:"exhausted"`
	Cancelled       int64    `json:"cancelled"`

	ConsecutiveFailures int64      `json:"consecutive_failures"`
	PendingDeliveries   int64      `json:"pending_deliveries"`
	LastCallAt          *time.Time `json:"last_call_at"`
	LastSuccessAt       *time.Time `json:"last_success_at"`
	LastFailureAt       *time.Time `json:"last_failure_at"`

	ByEventType map[string]int64 `json:"by_event_type"` // calls
	ByStatus    map[string]int64 `json:"by_status"`     // calls, by the receiver's status or, without one, the outcome

	Series []StatsPart `json:"series,omitzero"` // with a bucket: the parts with any calls, oldest first
}

// StatsPart is one part of a series.
type StatsPart struct {
	At              time.Time `json:"at"` // its start
	TotalCalls      int64     `json:"total_calls"`
	SuccessfulCalls int64     `json:"successful_calls"`
	FailedCalls     int64     `json:"failed_calls"`
	SuccessRate     *float64  `json:"success_rate"`
	AverageMS       *float64  `json:"average_response_time_ms"`
	P95MS           *float64  `json:"p95_ms"`
	Delivered       int64     `json:"delivered"`
	Exhausted       int64     `json:"exhausted"`
}

// SystemStats are the figures of all webhooks together, and of the system.
type SystemStats struct {
	Stats
	WebhooksTotal  int64          `json:"webhooks_total"`
	WebhooksActive int64          `json:"webhooks_active"`
	EventsTotal    int64          `json:"events_total"`
	ByWebhook      []WebhookShare `json:"by_webhook"` // the busiest 20
	Projections    Lag            `json:"projections"`
}

// WebhookShare is one webhook's part of the system's calls.
type WebhookShare struct {
	WebhookID       domain.WebhookID `json:"webhook_id"`
	Number          int64            `json:"number"`
	Name            string           `json:"name"`
	TotalCalls      int64            `json:"total_calls"`
	SuccessfulCalls int64            `json:"successful_calls"`
	FailedCalls     int64            `json:"failed_calls"`
	SuccessRate     *float64         `json:"success_rate"`
	AverageMS       *float64         `json:"average_response_time_ms"`
	Pending         int64            `json:"pending_deliveries"`
}

// Lag says how far the read models are behind the log.
type Lag struct {
	Position   eventstore.Position `json:"position"`
	Head       eventstore.Position `json:"head"`
	LagEvents  int64               `json:"lag_events"`
	LagSeconds float64             `json:"lag_seconds"` // age of the oldest event that is not applied
}

// Stats gives the figures of one webhook. One that nobody called has them all zero.
func (p *Projections) Stats(ctx context.Context, webhook domain.WebhookID, f StatsFilter) (Stats, error) {
	if err := p.settle(ctx); err != nil {
		return Stats{}, err
	}
	stats, _, err := p.stats(ctx, webhook, f)
	return stats, err
}

// SystemStats gives the figures of the whole system.
func (p *Projections) SystemStats(ctx context.Context, f StatsFilter) (SystemStats, error) {
	if err := p.settle(ctx); err != nil {
		return SystemStats{}, err
	}
	stats, sum, err := p.stats(ctx, wholeSystem, f)
	if err != nil {
		return SystemStats{}, err
	}
	system := SystemStats{Stats: stats, EventsTotal: sum.events}
	err = p.pool.QueryRow(ctx, `
		SELECT count(*) FILTER (WHERE status <> 'deleted'), count(*) FILTER (WHERE status = 'active') FROM medilab.webhooks`,
	).Scan(&system.WebhooksTotal, &system.WebhooksActive)
	if err != nil {
		return SystemStats{}, fmt.Errorf("count webhooks: %w", err)
	}
	if system.ByWebhook, err = p.busiest(ctx, f); err != nil {
		return SystemStats{}, err
	}
	system.Projections, err = p.Lag(ctx)
	return system, err
}

func (p *Projections) stats(ctx context.Context, webhook domain.WebhookID, f StatsFilter) (Stats, *tally, error) {
	edges, err := p.edges(ctx, webhook, f)
	if err != nil {
		return Stats{}, nil, err
	}
	first, last := f.hours()
	if f.all() && f.Bucket == "" {
		first, last = noHours()
	}
	rows, err := p.pool.Query(ctx, `SELECT hour, tally FROM (`+tallies("$1", "$2", "$3")+`) AS t ORDER BY hour`, uuid.UUID(webhook), first, last)
	if err != nil {
		return Stats{}, nil, fmt.Errorf("read statistics: %w", err)
	}
	total, sum := &tally{}, &tally{}
	var series []hourTally
	var hour int32
	var encoded []byte
	_, err = pgx.ForEachRow(rows, []any{&hour, &encoded}, func() error {
		t, err := decodeTally(encoded)
		if err != nil {
			return err
		}
		if hour == allTime {
			total = t
			return nil
		}
		if edge := edges[hour]; edge != nil {
			t = edge
		}
		sum.add(t)
		series = addToSeries(series, f.Bucket, hour, t)
		return nil
	})
	if err != nil {
		return Stats{}, nil, fmt.Errorf("read statistics: %w", err)
	}
	if f.all() {
		sum = total
	}
	stats := figures(sum, total)
	if f.Bucket != "" {
		stats.Series = make([]StatsPart, len(series))
		for i, s := range series {
			stats.Series[i] = s.part()
		}
	}
	return stats, sum, nil
}

// allTime stands in the place of an hour for the figures of all time.
const allTime = -1

// noHours is the range that no hour is in.
func noHours() (first, last int32) { return 0, -1 }

// tallies is a query of a webhook's tallies: the one of all time, and those of the
// hours from first to last.
func tallies(webhook, first, last string) string {
	return `
		SELECT -1 AS hour, tally FROM medilab.stats WHERE webhook = ` + webhook + `
		UNION ALL
		SELECT latest, latest_tally FROM medilab.stats WHERE webhook = ` + webhook + ` AND latest BETWEEN ` + first + ` AND ` + last + `
		UNION ALL
		SELECT hour, tally FROM medilab.stats_hours WHERE webhook = ` + webhook + ` AND hour BETWEEN ` + first + ` AND ` + last
}

// mostAtEdge is how many events of the log are counted again for one hour that
// a range touches: some tens of milliseconds.
const mostAtEdge = 10_000

// edges counts the hours at the ends of the range that are not wholly in it.
// One that holds too much for that is left out.
func (p *Projections) edges(ctx context.Context, webhook domain.WebhookID, f StatsFilter) (map[int32]*tally, error) {
	edges := map[int32]*tally{}
	for _, bound := range []time.Time{f.From, f.To} {
		start := bound.Truncate(time.Hour)
		if bound.IsZero() || bound.Equal(start) || edges[hourOf(bound)] != nil {
			continue
		}
		from, to := start, start.Add(time.Hour)
		if f.From.After(from) {
			from = f.From
		}
		if !f.To.IsZero() && f.To.Before(to) {
			to = f.To
		}
		t, err := p.tallyBetween(ctx, webhook, from, to)
		if err != nil {
			return nil, fmt.Errorf("count a part of an hour: %w", err)
		}
		if t != nil {
			edges[hourOf(bound)] = t
		}
	}
	return edges, nil
}

// tallyBetween counts what the log holds between the times; nil: too much.
func (p *Projections) tallyBetween(ctx context.Context, webhook domain.WebhookID, from, to time.Time) (*tally, error) {
	low, high, err := p.between(ctx, from, to, "")
	if err != nil {
		return nil, err
	}
	position, err := p.Position(ctx)
	if err != nil {
		return nil, err
	}
	last := min(eventstore.Position(high-1), position)
	t := &tally{}
	if last <= eventstore.Position(low) {
		return t, nil
	}
	if last-eventstore.Position(low) > mostAtEdge {
		return nil, nil
	}
	err = p.log.Scan(ctx, eventstore.Position(low), last, mostAtEdge, func(page []eventstore.Event) error {
		good, _ := sift(page)
		sums := sumsOf{byKey: map[statsKey]*tally{}}
		for i := range good {
			sums.count(&good[i], nil)
		}
		for _, key := range sums.keys {
			if key.webhook == webhook || webhook == wholeSystem {
				t.add(sums.byKey[key])
			}
		}
		return nil
	})
	return t, err
}

// figures shows what was counted in a range, and what is so now.
func figures(sum, now *tally) Stats {
	return Stats{
		TotalCalls: sum.calls, SuccessfulCalls: sum.successes, FailedCalls: sum.calls - sum.successes,
		SuccessRate: sum.successRate(), AverageMS: sum.average(),
		P50MS: sum.percentile(0.50), P95MS: sum.percentile(0.95), P99MS: sum.percentile(0.99),
		Timeouts: sum.timeouts, Retries: sum.retries,
		Delivered: max(0, sum.delivered), Exhausted: max(0, sum.exhausted), Cancelled: max(0, sum.cancelled),
		ConsecutiveFailures: now.consecutive, PendingDeliveries: now.pending,
		LastCallAt: micros(now.lastCall), LastSuccessAt: micros(now.lastSuccess), LastFailureAt: micros(now.lastFailure),
		ByEventType: byName(sum.byType), ByStatus: byName(sum.byStatus),
	}
}

type hourTally struct {
	at time.Time
	*tally
}

func addToSeries(series []hourTally, width Bucket, hour int32, t *tally) []hourTally {
	at := time.Unix(int64(hour)*3600, 0).UTC()
	switch width {
	case "":
		return series
	case BucketDay:
		at = at.Truncate(24 * time.Hour)
	}
	if n := len(series); n == 0 || !series[n-1].at.Equal(at) {
		series = append(series, hourTally{at, &tally{}})
	}
	series[len(series)-1].add(t)
	return series
}

func (t hourTally) part() StatsPart {
	return StatsPart{
		At: t.at, TotalCalls: t.calls, SuccessfulCalls: t.successes, FailedCalls: t.calls - t.successes,
		SuccessRate: t.successRate(), AverageMS: t.average(), P95MS: t.percentile(0.95),
		Delivered: max(0, t.delivered), Exhausted: max(0, t.exhausted),
	}
}

// busiest gives the 20 webhooks with the most calls in the range.
func (p *Projections) busiest(ctx context.Context, f StatsFilter) ([]WebhookShare, error) {
	first, last := f.hours()
	if f.all() {
		first, last = noHours()
	}
	rows, err := p.pool.Query(ctx, `
		WITH busiest AS (
			SELECT webhook, sum(calls) AS calls FROM (
				SELECT webhook, calls FROM medilab.stats WHERE $3
				UNION ALL
				SELECT webhook, latest_calls FROM medilab.stats WHERE latest BETWEEN $1 AND $2
				UNION ALL
				SELECT webhook, calls FROM medilab.stats_hours WHERE hour BETWEEN $1 AND $2
			) AS c
			WHERE webhook <> '00000000-0000-0000-0000-000000000000'
			GROUP BY webhook HAVING sum(calls) > 0 ORDER BY sum(calls) DESC, webhook LIMIT 20
		)
		SELECT w.id, w.number, w.name, t.tally, t.hour FROM busiest AS b
		JOIN medilab.webhooks AS w ON w.id = b.webhook
		CROSS JOIN LATERAL (`+tallies("b.webhook", "$1", "$2")+`) AS t
		ORDER BY b.calls DESC, b.webhook, t.hour`, first, last, f.all())
	if err != nil {
		return nil, fmt.Errorf("find the busiest webhooks: %w", err)
	}
	shares := []WebhookShare{}
	sums := []*tally{}
	var id uuid.UUID
	var number int64
	var name string
	var encoded []byte
	var hour int32
	_, err = pgx.ForEachRow(rows, []any{&id, &number, &name, &encoded, &hour}, func() error {
		t, err := decodeTally(encoded)
		if err != nil {
			return err
		}
		if n := len(shares); n == 0 || shares[n-1].WebhookID != domain.WebhookID(id) {
			shares = append(shares, WebhookShare{WebhookID: domain.WebhookID(id), Number: number, Name: name})
			sums = append(sums, &tally{})
		}
		if hour == allTime {
			shares[len(shares)-1].Pending = t.pending
		}
		if (hour == allTime) == f.all() {
			sums[len(sums)-1].add(t)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("find the busiest webhooks: %w", err)
	}
	for i, sum := range sums {
		s := &shares[i]
		s.TotalCalls, s.SuccessfulCalls, s.FailedCalls = sum.calls, sum.successes, sum.calls-sum.successes
		s.SuccessRate, s.AverageMS = sum.successRate(), sum.average()
	}
	return shares, nil
}

// Lag says how far the read models are behind the log.
func (p *Projections) Lag(ctx context.Context) (Lag, error) {
	var lag Lag
	err := p.pool.QueryRow(ctx, `
		SELECT r.position, h.position, h.position - r.position,
			coalesce(greatest(extract(epoch FROM clock_timestamp() -
				(SELECT e.recorded_at FROM medilab.events AS e WHERE e.position = r.position + 1)), 0), 0)::float8
		FROM medilab.log_head AS h
		CROSS JOIN (SELECT coalesce((SELECT position FROM medilab.readers WHERE name = $1), 0) AS position) AS r`, readerName,
	).Scan(&lag.Position, &lag.Head, &lag.LagEvents, &lag.LagSeconds)
	if err != nil {
		return Lag{}, fmt.Errorf("read the projections' lag: %w", err)
	}
	return lag, nil
}

func (t *tally) successRate() *float64 {
	if t.calls == 0 {
		return nil
	}
	rate := math.Round(float64(t.successes)/float64(t.calls)*1e4) / 1e2
	return &rate
}

func (t *tally) average() *float64 {
	if t.timed == 0 {
		return nil
	}
	return milliseconds(float64(t.duration) / float64(t.timed))
}

func (t *tally) percentile(share float64) *float64 {
	if t.timed == 0 {
		return nil
	}
	return milliseconds(float64(percentile(t.histogram, share)))
}

func milliseconds(microseconds float64) *float64 {
	ms := math.Round(microseconds) / 1000
	return &ms
}

func micros(at int64) *time.Time {
	if at == 0 {
		return nil
	}
	t := time.UnixMicro(at).UTC()
	return &t
}
