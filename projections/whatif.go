package projections

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/medilab/webhooks/domain"
)

// maxWhatIfCalls bounds the calls that one what-if keeps in memory.
const maxWhatIfCalls = 500_000

// pastDelivery is a delivery of the range.
type pastDelivery struct {
	sample domain.WhatIfSample
	calls  domain.CallHistory
	began  bool // in the range, by its first attempt
}

// whatIf tells what the policy would have done to the webhook's deliveries that began in the
// range: see domain.CallHistory. It reads on behind the range, as far as retries go.
func (p *Projections) whatIf(ctx context.Context, spec BacktestSpec, progress func(calls int) error) (*domain.WhatIf, error) {
	const longest = 11 * 24 * time.Hour // ten retries, a day apart
	filter := CallFilter{Webhook: spec.Webhook, From: spec.From, Limit: 1000}
	if !spec.To.IsZero() {
		filter.To = spec.To.Add(longest)
	}
	now, err := p.recordedLast(ctx)
	if err != nil {
		return nil, err
	}
	all, deliveries := domain.CallHistory{}, map[domain.DeliveryID]*pastDelivery{}
	var order []domain.DeliveryID // by their last call, the newest first
	for {
		page, err := p.Calls(ctx, filter)
		if err != nil {
			return nil, err
		}
		for i := range page.Items {
			c := &page.Items[i]
			if c.Test || c.Late {
				continue
			}
			d := deliveries[c.DeliveryID]
			if d == nil {
				d = &pastDelivery{sample: domain.WhatIfSample{DeliveryID: c.DeliveryID, EventID: c.EventID, EventType: c.EventType}}
				deliveries[c.DeliveryID], order = d, append(order, c.DeliveryID)
			}
			d.began = d.began || c.Attempt == 1 && (spec.To.IsZero() || c.CreatedAt.Before(spec.To))
			if c.Outcome != domain.OutcomeInterrupted { // what the receiver would have said is not known
				past := pastCall(c)
				all, d.calls = append(all, past), append(d.calls, past)
			}
		}
		if len(all) > maxWhatIfCalls {
			return nil, domain.Invalid("from", fmt.Sprintf("makes a range with more than %d calls; narrow it", maxWhatIfCalls))
		}
		if err := progress(len(all)); err != nil {
			return nil, err
		}
		if filter.Cursor = page.NextCursor; filter.Cursor == 0 {
			break
		}
	}
	all.Sort()
	return p.compareRetries(ctx, *spec.Retries, now, all, deliveries, order)
}

// compareRetries compares, the oldest delivery first.
func (p *Projections) compareRetries(ctx context.Context, policy domain.RetryPolicy, now time.Time, all domain.CallHistory,
	deliveries map[domain.DeliveryID]*pastDelivery, order []domain.DeliveryID,
) (*domain.WhatIf, error) {
	result := &domain.WhatIf{Samples: []domain.WhatIfSample{}}
	task := p.log.Limiter.Task()
	defer task.End()
	for i := len(order) - 1; i >= 0; i-- {
		d := deliveries[order[i]]
		if !d.began || len(d.calls) == 0 {
			continue
		}
		const perCall = 2000
		if err := task.Spend(ctx, perCall*len(d.calls)); err != nil {
			return nil, err
		}
		d.calls.Sort()
		if was := d.calls.RecordedEnd(); was.State != domain.DeliveryPending {
			result.Add(was, all.WhatIf(order[i], d.calls, policy, now), d.sample, samplesOfAKind)
		}
	}
	return result, nil
}

// pastCall is what is kept of a call.
func pastCall(c *Call) domain.PastCall {
	past := domain.PastCall{StartedAt: c.Record.StartedAt, Duration: time.Duration(c.Record.Duration) * time.Microsecond,
		Attempt: c.Attempt, Outcome: c.Outcome, Status: c.Record.Status}
	if c.NextAttemptAt != nil {
		past.Next = *c.NextAttemptAt
	}
	if past.Status == 429 || past.Status == 503 {
		for _, h := range c.Record.Header {
			if strings.EqualFold(h.Name, "Retry-After") {
				past.RetryAfter, _ = domain.ParseRetryAfter(h.Value, past.StartedAt.Add(past.Duration))
			}
		}
	}
	return past
}

// recordedLast is when the log's last event was recorded.
func (p *Projections) recordedLast(ctx context.Context) (at time.Time, err error) {
	err = p.pool.QueryRow(ctx, `SELECT recorded_at FROM medilab.events WHERE position = (SELECT position FROM medilab.log_head)`).Scan(&at)
	return at.UTC(), doing("read the log's end", err)
}
