package projections

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/filter"
	"github.com/medilab/webhooks/eventstore"
)

// Backtest is what other subscriptions or filters would have done to history.
type Backtest struct {
	Considered int              `json:"considered"` // events in the range
	Matched    int              `json:"matched"`    // by the proposal
	Gained     int              `json:"gained"`     // matched by the proposal, and not sent to the webhook then
	Lost       int              `json:"lost"`       // the reverse
	Samples    []BacktestSample `json:"samples"`    // of what is gained and lost, and if that is little, of what matched
}

// BacktestSample is one event of a backtest.
type BacktestSample struct {
	EventID    domain.EventID `json:"event_id"`
	EventType  string         `json:"event_type"`
	AcceptedAt time.Time      `json:"accepted_at"`
	Change     BacktestChange `json:"change"`
}

// BacktestChange says what a proposal does to an event.
type BacktestChange string

// What a proposal does to an event that it matches or that was sent to the webhook.
const (
	BacktestGained    BacktestChange = "gained"
	BacktestLost      BacktestChange = "lost"
	BacktestUnchanged BacktestChange = "unchanged"
)

// samplesOfAKind bounds the samples; the first ones stand for all.
const samplesOfAKind = 10

// Backtest matches every event of the range (accepted at or after from, before to; a
// zero time is no bound) by the proposal, and compares with whom the log recorded it was
// sent to. It sends nothing, and reads the log itself in constant memory.
func (p *Projections) Backtest(ctx context.Context, webhook domain.WebhookID, proposed domain.Matcher, from, to time.Time) (Backtest, error) {
	result := Backtest{Samples: []BacktestSample{}}
	taken := map[BacktestChange]int{}
	triggered := eventstore.Filter{Type: domain.EventTriggered{}.ChangeType(), From: from, To: to}
	err := p.log.Compute(ctx, 0, triggered, func(e eventstore.Event) error {
		decode(&e)
		event, ok := newEvent(&e)
		if !ok {
			return nil // it could not be sent either
		}
		was, err := p.recordedFor(ctx, webhook, event.ID, e.Value.(domain.EventTriggered))
		if err != nil {
			return err
		}
		result.Considered++
		becomes := proposed.Match(domain.EventType(event.Type), filter.Parse(event.Data))
		if becomes {
			result.Matched++
		}
		change := BacktestUnchanged
		switch {
		case becomes && !was:
			change = BacktestGained
			result.Gained++
		case was && !becomes:
			change = BacktestLost
			result.Lost++
		case !was:
			return nil
		}
		if taken[change] < samplesOfAKind {
			taken[change]++
			result.Samples = append(result.Samples, BacktestSample{event.ID, event.Type, event.AcceptedAt, change})
		}
		return nil
	})
	if err != nil {
		return Backtest{}, fmt.Errorf("backtest: %w", err)
	}
	return result, nil
}

// recordedFor reports whether the log recorded the event for the webhook. In logs of older
// versions the event's stream says so, and not the event.
func (p *Projections) recordedFor(ctx context.Context, webhook domain.WebhookID, id domain.EventID, triggered domain.EventTriggered) (bool, error) {
	if triggered.Recipients == nil {
		_, dispatched, err := p.event(ctx, id)
		return slices.ContainsFunc(dispatched, func(d domain.Dispatch) bool { return d.WebhookID == webhook }), err
	}
	return slices.ContainsFunc(triggered.Recipients, func(r domain.Recipient) bool { return r.WebhookID == webhook }), nil
}
