package projections

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// AlertState tells alerts that hold from those that did.
type AlertState string

// The states of an alert.
const (
	AlertOpen     AlertState = "open"
	AlertResolved AlertState = "resolved"
)

// Alert is one alert about a webhook (contract section 5).
type Alert struct {
	ID         uuid.UUID           `json:"alert_id"`
	WebhookID  domain.WebhookID    `json:"webhook_id"`
	Kind       string              `json:"kind"`
	State      AlertState          `json:"state"`
	Message    string              `json:"message"` // in words
	Details    json.RawMessage     `json:"details"` // observed and limit, in percent, calls or seconds by the kind
	RaisedAt   time.Time           `json:"raised_at"`
	ResolvedAt *time.Time          `json:"resolved_at"` // null: it is open
	Position   eventstore.Position `json:"position"`    // where the log has it
}

// AlertFilter says which alerts to list.
type AlertFilter struct {
	State  AlertState // "" is any
	Limit  int
	Cursor string
}

// AlertPage is one page of alerts, newest first.
type AlertPage struct {
	Items      []Alert
	NextCursor string // "": there is no more
}

// Alerts lists alerts, the newest first. An unreadable cursor is refused.
func (p *Projections) Alerts(ctx context.Context, f AlertFilter) (AlertPage, error) {
	if err := p.settle(ctx); err != nil {
		return AlertPage{}, err
	}
	before, err := parseCursor(f.Cursor)
	if err != nil {
		return AlertPage{}, err
	}
	rows, err := p.pool.Query(ctx, `
		SELECT position, id, webhook, kind, details, raised_at, resolved_at FROM medilab.alerts
		WHERE position < $1 AND ($2 = '' OR (resolved_at IS NULL) = ($2 = 'open'))
		ORDER BY position DESC LIMIT $3`, before, string(f.State), f.Limit+1)
	if err != nil {
		return AlertPage{}, fmt.Errorf("list alerts: %w", err)
	}
	var page AlertPage
	page.Items, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (a Alert, err error) {
		err = row.Scan(&a.Position, &a.ID, (*uuid.UUID)(&a.WebhookID), &a.Kind, (*[]byte)(&a.Details), &a.RaisedAt, &a.ResolvedAt)
		if err == nil {
			var details alertDetails
			err = json.Unmarshal(a.Details, &details)
			a.Message = details.Message
		}
		a.State, a.RaisedAt = AlertOpen, a.RaisedAt.UTC()
		if a.ResolvedAt != nil {
			at := a.ResolvedAt.UTC()
			a.State, a.ResolvedAt = AlertResolved, &at
		}
		return a, err
	})
	if err != nil {
		return AlertPage{}, fmt.Errorf("list alerts: %w", err)
	}
	if len(page.Items) > f.Limit {
		page.Items = page.Items[:f.Limit]
		page.NextCursor = cursorAt(int64(page.Items[f.Limit-1].Position))
	}
	return page, nil
}
