package projections

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
)

// Bucket is the width of a series' parts.
type Bucket string

// The widths of a series' parts; days are UTC's. Minutes are counted from the log: where
// that is too much, see mostByMinute, the parts are hours instead.
const (
	BucketMinute Bucket = "minute"
	BucketHour   Bucket = "hour"
	BucketDay    Bucket = "day"
)

// StatsFilter narrows statistics to a range; a zero time is no bound. An hour that
// is only partly in the range is counted from the log, to the event, unless too
// much happened in it: then all of the hour counts.
type StatsFilter struct {
	From, To time.Time
	Bucket   Bucket // "": no series
}

func (f StatsFilter) all() bool { return f.From.IsZero() && f.To.IsZero() }

// hours returns the first and the last hour that must be read; none are if last is
// before first.
func (f StatsFilter) hours() (first, last int32) {
	if f.all() && f.Bucket == "" {
		return 0, -1
	}
	last = math.MaxInt32
	if !f.From.IsZero() {
		first = max(0, hourOf(f.From))
	}
	if !f.To.IsZero() {
		last = hourOf(f.To.Add(-time.Nanosecond))
	}
	return first, last
}

// CallCounts are the figures shown of every set of calls. Durations are
// milliseconds; null is what no call can tell.
type CallCounts struct {
	TotalCalls      int64    `json:"total_calls"`
	SuccessfulCalls int64    `json:"successful_calls"`
	FailedCalls     int64    `json:"failed_calls"`
	SuccessRate     *float64 `json:"success_rate"` // percent
	AverageMS       *float64 `json:"average_response_time_ms"`
}

// Stats are the figures of contract section 5. Those up to Cancelled, and the
// maps, are of the range asked for; the others are as things stood at its end.
type Stats struct {
	CallCounts
	P50MS     *float64 `json:"p50_ms"`
	P95MS     *float64 `json:"p95_ms"`
	P99MS     *float64 `json:"p99_ms"`
	Timeouts  int64    `json:"timeouts"`
	Retries   int64    `json:"retries"`
	Delivered int64    `json:"delivered"`
	Exhausted int64    `json:"exhausted"`
	Cancelled int64    `json:"cancelled"`

	ConsecutiveFailures *int64     `json:"consecutive_failures"` // null of the whole system: calls of many webhooks are in no row
	FailingSince        *time.Time `json:"failing_since"`        // the first of these failures; null: there is none, or not known
	PendingDeliveries   int64      `json:"pending_deliveries"`
	LastCallAt          *time.Time `json:"last_call_at"`
	LastSuccessAt       *time.Time `json:"last_success_at"`
	LastFailureAt       *time.Time `json:"last_failure_at"`

	ByEventType map[string]int64 `json:"by_event_type"` // calls
	ByStatus    map[string]int64 `json:"by_status"`     // calls, by the receiver's status or, without one, the outcome

	// CoveredFrom is since when the database holds the calls themselves: what was recorded
	// before is archived, and only counted. Null: it holds all.
	CoveredFrom *time.Time `json:"covered_from"`

	SeriesBucket Bucket      `json:"series_bucket,omitempty"` // the width of the parts, which may be more than asked for
	Series       []StatsPart `json:"series,omitzero"`         // with a bucket: the parts with any calls, oldest first
}

// StatsPart is one part of a series.
type StatsPart struct {
	At time.Time `json:"at"` // its start
	CallCounts
	P50MS     *float64 `json:"p50_ms"`
	P95MS     *float64 `json:"p95_ms"`
	P99MS     *float64 `json:"p99_ms"`
	Delivered int64    `json:"delivered"`
	Exhausted int64    `json:"exhausted"`
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
	WebhookID domain.WebhookID `json:"webhook_id"`
	Number    int64            `json:"number"`
	Name      string           `json:"name"`
	CallCounts
	Pending int64 `json:"pending_deliveries"`
}

// Stats returns the figures of one webhook, all zero if it was never called.
func (p *Projections) Stats(ctx context.Context, webhook domain.WebhookID, f StatsFilter) (Stats, error) {
	if err := p.awaitData(ctx); err != nil {
		return Stats{}, err
	}
	stats, _, _, err := p.stats(ctx, webhook, f)
	return stats, err
}

// SystemStats returns the figures of the whole system.
func (p *Projections) SystemStats(ctx context.Context, f StatsFilter) (SystemStats, error) {
	if err := p.awaitData(ctx); err != nil {
		return SystemStats{}, err
	}
	stats, sum, edges, err := p.stats(ctx, wholeSystem, f)
	if err != nil {
		return SystemStats{}, err
	}
	system := SystemStats{Stats: stats, EventsTotal: sum.events}
	if system.WebhooksTotal, system.WebhooksActive, err = p.webhookCounts(ctx); err != nil {
		return SystemStats{}, fmt.Errorf("count webhooks: %w", err)
	}
	if system.ByWebhook, err = p.busiest(ctx, f, edges); err != nil {
		return SystemStats{}, fmt.Errorf("find the busiest webhooks: %w", err)
	}
	system.Projections, err = p.Lag(ctx)
	return system, err
}

// stats returns the figures, the counters of the range, and its edges.
func (p *Projections) stats(ctx context.Context, webhook domain.WebhookID, f StatsFilter) (stats Stats, sum *counters, edges edges, err error) {
	if edges, err = p.edges(ctx, f); err != nil {
		return stats, nil, edges, err
	}
	first, last := f.hours()
	begin := first
	if !f.To.IsZero() {
		begin = 0 // how things stood then is the sum of all before
	}
	rows, _ := p.pool.Query(ctx, `SELECT hour, tally FROM (`+countersSQL("$1", "$2", "$3")+`) AS t ORDER BY hour`, uuid.UUID(webhook), begin, last)
	total, then, series := &counters{}, &counters{}, series{width: f.Bucket}
	sum = &counters{}
	var hour int32
	var row counters
	_, err = pgx.ForEachRow(rows, []any{&hour, &row}, func() error {
		if hour == allTime {
			total = new(row)
			return nil
		}
		then.addStanding(partOf(edges.toEnd[hour], webhook, &row))
		if hour >= first {
			c := partOf(edges.inRange[hour], webhook, &row)
			sum.add(c)
			series.add(hour, c)
		}
		return nil
	})
	if err != nil {
		return stats, nil, edges, fmt.Errorf("read statistics: %w", err)
	}
	if f.all() {
		sum = total
	}
	if f.To.IsZero() {
		then = total
	}
	stats = show(sum, then)
	if _, stats.CoveredFrom, err = p.coveredFrom(ctx); err != nil {
		return stats, nil, edges, err
	}
	if webhook == wholeSystem {
		stats.ConsecutiveFailures = nil
	}
	if f.Bucket == BucketMinute {
		minutes, err := p.minutes(ctx, webhook, f)
		if err != nil {
			return stats, nil, edges, fmt.Errorf("count minutes: %w", err)
		}
		if minutes != nil {
			series = *minutes
		} else {
			series.width = BucketHour
		}
	}
	if f.Bucket != "" {
		stats.SeriesBucket, stats.Series = series.width, series.parts()
	}
	return stats, sum, edges, nil
}

// allTime stands for an hour in counters of all time.
const allTime = -1

// countersSQL is a query of a webhook's counters: those of all time, and those of
// each hour from first to last.
func countersSQL(webhook, first, last string) string {
	return strings.NewReplacer("{webhook}", webhook, "{first}", first, "{last}", last).Replace(`
		SELECT -1 AS hour, tally FROM medilab.stats WHERE webhook = {webhook}
		UNION ALL
		SELECT latest, latest_tally FROM medilab.stats WHERE webhook = {webhook} AND latest BETWEEN {first} AND {last}
		UNION ALL
		SELECT hour, tally FROM medilab.stats_hours WHERE webhook = {webhook} AND hour BETWEEN {first} AND {last}`)
}

// show returns the figures counted in a range, and how things stood at its end.
func show(sum, now *counters) Stats {
	return Stats{
		CallCounts: sum.callCounts(),
		P50MS:      sum.percentile(0.50), P95MS: sum.percentile(0.95), P99MS: sum.percentile(0.99),
		Timeouts: sum.timeouts, Retries: sum.retries,
		Delivered: max(0, sum.delivered), Exhausted: max(0, sum.exhausted), Cancelled: max(0, sum.cancelled),
		ConsecutiveFailures: &now.consecutive, FailingSince: now.failingSince(), PendingDeliveries: now.pending,
		LastCallAt: micros(now.lastCall), LastSuccessAt: micros(now.lastSuccess), LastFailureAt: micros(now.lastFailure),
		ByEventType: byKey(sum.byType), ByStatus: byKey(sum.byStatus),
	}
}

// busiest returns the 20 webhooks with the most calls in the hours that the range touches.
func (p *Projections) busiest(ctx context.Context, f StatsFilter, edges edges) ([]WebhookShare, error) {
	f.Bucket = ""
	first, last := f.hours()
	end := last
	if !f.To.IsZero() {
		end = math.MaxInt32 // what became pending since is taken off
	}
	rows, _ := p.pool.Query(ctx, `
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
		SELECT w.id, w.number, w.name, t.hour, t.tally FROM busiest AS b
		JOIN (`+webhookNames+`) AS w ON w.id = b.webhook
		CROSS JOIN LATERAL (`+countersSQL("b.webhook", "$1", "$4")+`) AS t
		ORDER BY b.calls DESC, b.webhook, t.hour`, first, last, f.all(), end)
	shares := []WebhookShare{}
	var sums []*counters
	var next WebhookShare
	var hour int32
	var c counters
	_, err := pgx.ForEachRow(rows, []any{(*uuid.UUID)(&next.WebhookID), &next.Number, &next.Name, &hour, &c}, func() error {
		if n := len(shares); n == 0 || shares[n-1].WebhookID != next.WebhookID {
			shares, sums = append(shares, next), append(sums, &counters{})
		}
		share, sum := &shares[len(shares)-1], sums[len(sums)-1]
		switch {
		case hour == allTime:
			share.Pending += c.pending
			if f.all() {
				sum.add(&c)
			}
		case hour > last:
			share.Pending -= c.pending
		default:
			if hour == last && !f.To.IsZero() {
				share.Pending -= c.pending - partOf(edges.toEnd[hour], next.WebhookID, &c).pending
			}
			sum.add(partOf(edges.inRange[hour], next.WebhookID, &c))
		}
		return nil
	})
	for i, sum := range sums {
		shares[i].CallCounts = sum.callCounts()
	}
	return shares, err
}

// callFigures returns the figures for alerts of every webhook that was called.
func callFigures(ctx context.Context, db Querier) (map[domain.WebhookID]domain.CallFigures, error) {
	rows, _ := db.Query(ctx, `SELECT webhook, tally FROM medilab.stats WHERE webhook <> $1`, uuid.UUID(wholeSystem))
	figures := map[domain.WebhookID]domain.CallFigures{}
	var id uuid.UUID
	var c counters
	_, err := pgx.ForEachRow(rows, []any{&id, &c}, func() error {
		figures[domain.WebhookID(id)] = c.figures
		return nil
	})
	return figures, err
}

func (c *counters) callCounts() CallCounts {
	counts := CallCounts{TotalCalls: c.calls, SuccessfulCalls: c.successes, FailedCalls: c.calls - c.successes}
	if c.calls > 0 {
		counts.SuccessRate = new(math.Round(float64(c.successes)/float64(c.calls)*1e4) / 1e2)
	}
	if c.timed > 0 {
		counts.AverageMS = milliseconds(float64(c.duration) / float64(c.timed))
	}
	return counts
}

func (c *counters) percentile(share float64) *float64 {
	if c.timed == 0 {
		return nil
	}
	return milliseconds(float64(percentile(c.histogram, share)))
}

func milliseconds(microseconds float64) *float64 {
	return new(math.Round(microseconds) / 1000)
}

func micros(at int64) *time.Time {
	if at == 0 {
		return nil
	}
	return new(time.UnixMicro(at).UTC())
}
