package projections

import (
	"context"
	"fmt"
	"time"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// A webhook's history is its stream, so it has no table.

// HistoryEntry is one change of a webhook: who made it, when, and what the
// webhook was before and after. Secrets are sealed in both.
type HistoryEntry struct {
	Position  eventstore.Position
	Version   int64 // of the webhook after it
	Type      string
	At        time.Time
	Actor     string
	RequestID string
	Before    domain.Webhook
	After     domain.Webhook
}

// History returns every change of a webhook, which may be deleted, the oldest first.
// It reads the log itself, so it never lags.
func (p *Projections) History(ctx context.Context, id domain.WebhookID) ([]HistoryEntry, error) {
	events, err := p.log.Load(ctx, id.Stream())
	if err != nil {
		return nil, fmt.Errorf("read a webhook's history: %w", err)
	}
	return historyOf(events)
}

// historyOf returns the changes that a webhook's stream has.
func historyOf(events []eventstore.Event) ([]HistoryEntry, error) {
	history := make([]HistoryEntry, 0, len(events))
	var w domain.Webhook
	for i := range events {
		e := &events[i]
		change, ok := e.Value.(domain.Change)
		if !ok {
			return nil, fmt.Errorf("read a webhook's history: %w", e.Err)
		}
		by, err := e.ReadMetadata()
		if err != nil {
			return nil, fmt.Errorf("read a webhook's history: %w", err)
		}
		before := w
		w = w.Evolve(change, e.RecordedAt)
		history = append(history, HistoryEntry{
			Position: e.Position, Version: e.Version, Type: e.Type, At: e.RecordedAt,
			Actor: by.Actor, RequestID: by.RequestID, Before: before, After: w,
		})
	}
	return history, nil
}

// WebhookAt returns the webhook as it was at the time, which may be before it was
// registered or after it was deleted: see Webhook.Exists.
func (p *Projections) WebhookAt(ctx context.Context, id domain.WebhookID, at time.Time) (domain.Webhook, error) {
	return p.webhookWhile(ctx, id, func(e HistoryEntry) bool { return !e.At.After(at) })
}

// WebhookAsOf is WebhookAt for a position of the log.
func (p *Projections) WebhookAsOf(ctx context.Context, id domain.WebhookID, position eventstore.Position) (domain.Webhook, error) {
	return p.webhookWhile(ctx, id, func(e HistoryEntry) bool { return e.Position <= position })
}

// WebhookVersion returns the webhook as it was at the version.
func (p *Projections) WebhookVersion(ctx context.Context, id domain.WebhookID, version int64) (domain.Webhook, error) {
	return p.webhookWhile(ctx, id, func(e HistoryEntry) bool { return e.Version <= version })
}

func (p *Projections) webhookWhile(ctx context.Context, id domain.WebhookID, before func(HistoryEntry) bool) (domain.Webhook, error) {
	history, err := p.History(ctx, id)
	return lastOf(history, before), err
}

// lastOf returns the webhook after the changes for which before returns true.
func lastOf(history []HistoryEntry, before func(HistoryEntry) bool) (w domain.Webhook) {
	for _, e := range history {
		if !before(e) {
			break
		}
		w = e.After
	}
	return w
}
