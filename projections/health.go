package projections

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
)

// HealthHours is how many hours, the current one being the last, Health counts.
const HealthHours = 24

// Standing is how a webhook stands now.
type Standing struct {
	ConsecutiveFailures int64      `json:"consecutive_failures"`
	FailingSince        *time.Time `json:"failing_since"` // the first of these failures; null: there is none, or not known
	Pending             int64      `json:"pending_deliveries"`
	OpenAlerts          int64      `json:"open_alerts"` // that nobody has acknowledged
	LastCallAt          *time.Time `json:"last_call_at"`
	LastSuccessAt       *time.Time `json:"last_success_at"`
	LastFailureAt       *time.Time `json:"last_failure_at"`
}

// Health is what a webhook's calls of the last 24 hours came to.
type Health struct {
	CallCounts
	P95MS     *float64 `json:"p95_ms"`
	Exhausted int64    `json:"exhausted"`
	Calls     []int64  `json:"calls_by_hour"`    // the oldest hour first
	Failures  []int64  `json:"failures_by_hour"` // likewise
}

// Standings returns how each webhook stands that was ever called or waits, or has an open
// alert. It reads one row a webhook, and none of its hours.
func (p *Projections) Standings(ctx context.Context) (map[domain.WebhookID]*Standing, error) {
	if err := p.awaitData(ctx); err != nil {
		return nil, err
	}
	rows, _ := p.pool.Query(ctx, `
		SELECT webhook, tally, 0::bigint FROM medilab.stats WHERE webhook <> $1
		UNION ALL
		SELECT webhook, NULL, count(*) FROM medilab.alerts WHERE resolved_at IS NULL AND acknowledged_at IS NULL AND webhook <> $1 GROUP BY webhook`,
		uuid.UUID(wholeSystem))
	all := map[domain.WebhookID]*Standing{}
	var id uuid.UUID
	var c *counters
	var alerts int64
	_, err := pgx.ForEachRow(rows, []any{&id, &c, &alerts}, func() error {
		s := all[domain.WebhookID(id)]
		if s == nil {
			s = &Standing{}
			all[domain.WebhookID(id)] = s
		}
		if s.OpenAlerts += alerts; c != nil {
			s.ConsecutiveFailures, s.FailingSince, s.Pending = c.consecutive, c.failingSince(), c.pending
			s.LastCallAt, s.LastSuccessAt, s.LastFailureAt = micros(c.lastCall), micros(c.lastSuccess), micros(c.lastFailure)
		}
		return nil
	})
	return all, doing("read how webhooks stand", err)
}

// HealthOf returns the health of some webhooks, by their keys; now is in the last hour.
func (p *Projections) HealthOf(ctx context.Context, webhooks []domain.WebhookID, now time.Time) (map[domain.WebhookID]*Health, error) {
	last := hourOf(now)
	first := last - HealthHours + 1
	rows, _ := p.pool.Query(ctx, `
		SELECT k.webhook, t.hour, t.tally FROM unnest($1::uuid[]) AS k (webhook)
		CROSS JOIN LATERAL (`+countersSQL("k.webhook", "$2", "$3")+` OFFSET 0) AS t WHERE t.hour <> $4`, webhooks, first, last, allTime)
	sums, all := map[domain.WebhookID]*counters{}, map[domain.WebhookID]*Health{}
	for _, w := range webhooks {
		sums[w], all[w] = &counters{}, &Health{Calls: make([]int64, HealthHours), Failures: make([]int64, HealthHours)}
	}
	var id uuid.UUID
	var hour int32
	var c counters
	_, err := pgx.ForEachRow(rows, []any{&id, &hour, &c}, func() error {
		sums[domain.WebhookID(id)].add(&c)
		h := all[domain.WebhookID(id)]
		h.Calls[hour-first], h.Failures[hour-first] = c.calls, c.calls-c.successes
		return nil
	})
	for w, sum := range sums {
		all[w].CallCounts, all[w].P95MS, all[w].Exhausted = sum.callCounts(), sum.percentile(0.95), max(0, sum.exhausted)
	}
	return all, doing("read the health of webhooks", err)
}
