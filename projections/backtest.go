package projections

import (
	"context"
	"slices"
	"time"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/filter"
	"github.com/medilab/webhooks/eventstore"
)

// Backtest is what other subscriptions or filters would have done to history.
type Backtest struct {
	Considered int              `json:"considered"` // events in the range, without erased ones that concern the webhook
	Matched    int              `json:"matched"`    // by the proposal
	Gained     int              `json:"gained"`     // matched by the proposal, and not sent to the webhook then
	Lost       int              `json:"lost"`       // the reverse
	Samples    []BacktestSample `json:"samples"`    // of what is gained and lost, and if that is little, of what matched

	Retries *domain.WhatIf `json:"retries,omitempty"` // what the proposed retries would have changed
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

// BacktestSpec is what to try on which part of history.
type BacktestSpec struct {
	Webhook  domain.WebhookID
	Events   domain.Matcher
	Retries  *domain.RetryPolicy // nil: none is proposed
	From, To time.Time           // accepted at or after, before; zero is no bound

	// Progress is called now and then, if it is not nil; its error ends the backtest.
	Progress func(BacktestProgress) error
}

// BacktestProgress is how far a backtest is.
type BacktestProgress struct {
	Progress   float64 `json:"progress"`   // through the log, from 0 to 1
	Considered int     `json:"considered"` // events so far
	Calls      int     `json:"calls"`      // read so far, when retries are proposed
}

// Backtest matches every event of the range by the proposal, and compares with whom the log
// recorded it was sent to. It sends nothing, and reads the log itself in constant memory.
func (p *Projections) Backtest(ctx context.Context, spec BacktestSpec) (Backtest, error) {
	b := backtesting{Projections: p, spec: spec, result: Backtest{Samples: []BacktestSample{}}, taken: map[BacktestChange]int{}}
	err := b.compareEvents(ctx)
	if err == nil && spec.Retries != nil {
		b.result.Retries, err = p.whatIf(ctx, spec, func(calls int) error {
			return b.report(BacktestProgress{1, b.result.Considered, calls})
		})
	}
	return b.result, doing("backtest", err)
}

// backtesting is a backtest under way.
type backtesting struct {
	*Projections
	spec     BacktestSpec
	result   Backtest
	taken    map[BacktestChange]int // samples
	page     []backtested
	reported time.Time
}

// backtested is an event that was matched and is not counted yet.
type backtested struct {
	id       domain.EventID
	kind     string
	at       time.Time
	was      bool // sent to the webhook
	becomes  bool // matched by the proposal
	unstated bool // the event does not say whom it went to: an older version wrote it
}

func (b *backtesting) compareEvents(ctx context.Context) error {
	low, high, err := b.between(ctx, b.spec.From, b.spec.To, 0)
	if err != nil {
		return err
	}
	head, err := b.log.Head(ctx)
	if err != nil {
		return err
	}
	first, last := float64(low), float64(min(high, int64(head)))
	triggered := eventstore.Filter{Type: domain.EventTriggered{}.ChangeType(), To: b.spec.To, Opens: b.concerns}
	return b.log.Compute(ctx, eventstore.Position(low), triggered, b.match, func(at eventstore.Position) error {
		if err := b.count(ctx); err != nil {
			return err
		}
		return b.report(BacktestProgress{(float64(at) - first) / max(1, last-first), b.result.Considered, 0})
	})
}

// concerns reports whether it matters what the event holds: it was sent to the webhook, or may
// be by the proposal.
func (b *backtesting) concerns(e *eventstore.Event) bool {
	event, ok := e.Value.(domain.EventTriggered)
	return ok && (b.wasSent(event) || event.Recipients == nil || b.spec.Events.Subscribes(domain.EventType(event.EventType)))
}

func (b *backtesting) wasSent(event domain.EventTriggered) bool {
	return slices.ContainsFunc(event.Recipients, func(r domain.Recipient) bool { return r.WebhookID == b.spec.Webhook })
}

// match matches an event by the proposal. It holds a turn, so it asks nobody.
func (b *backtesting) match(e eventstore.Event) error {
	event, ok := newEvent(&e)
	if !ok || event.IsGone() {
		return nil // it could not be sent either
	}
	triggered := e.Value.(domain.EventTriggered)
	b.page = append(b.page, backtested{
		id: event.ID, kind: event.Type, at: event.AcceptedAt, unstated: triggered.Recipients == nil, was: b.wasSent(triggered),
		becomes: b.concerns(&e) && b.spec.Events.Match(domain.EventType(event.Type), filter.Parse(event.Data)),
	})
	return nil
}

// count counts the events of a page.
func (b *backtesting) count(ctx context.Context) error {
	if err := b.lookUp(ctx); err != nil {
		return err
	}
	r := &b.result
	for _, e := range b.page {
		r.Considered++
		change := BacktestUnchanged
		switch {
		case e.becomes && !e.was:
			change = BacktestGained
			r.Gained++
		case e.was && !e.becomes:
			change = BacktestLost
			r.Lost++
		case !e.was:
			continue
		}
		if e.becomes {
			r.Matched++
		}
		if b.taken[change] < samplesOfAKind {
			b.taken[change]++
			r.Samples = append(r.Samples, BacktestSample{e.id, e.kind, e.at, change})
		}
	}
	b.page = b.page[:0]
	return nil
}

// lookUp completes events of older versions, whose streams say where they went.
func (b *backtesting) lookUp(ctx context.Context) error {
	var unstated []string
	for _, e := range b.page {
		if e.unstated {
			unstated = append(unstated, e.id.Stream())
		}
	}
	decided, err := b.decidedLater(ctx, unstated)
	for i := range b.page {
		if sent, ok := decided[b.page[i].id.Stream()]; ok {
			b.page[i].was = slices.ContainsFunc(sent.Deliveries, func(d domain.Dispatch) bool { return d.WebhookID == b.spec.Webhook })
		}
	}
	return err
}

// report tells how far it is, a few times a second.
func (b *backtesting) report(at BacktestProgress) error {
	const pause = 200 * time.Millisecond
	if b.spec.Progress == nil || time.Since(b.reported) < pause {
		return nil
	}
	b.reported = time.Now()
	return b.spec.Progress(at)
}
