package projections

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// The alerts, open and resolved.

var alertsModel = Model{
	Name: "alerts", SchemaVersion: 54, Tables: []string{"alerts", "given_up"}, Totals: true,
	New: func(t Tables) Projection {
		return &alerts{
			acknowledge: t.SQL(`
				UPDATE {alerts} SET acknowledged_at = $2, acknowledged_by = $3 WHERE id = $1`),
			givenUp: newGivenUp(t),
			raise: t.SQL(`
				INSERT INTO {alerts} (position, id, webhook, kind, details, raised_at, since)
				VALUES ($1, $2, $3, $4, $5, $6, nullif($7::bigint, 0))
				ON CONFLICT (id) DO UPDATE SET details = excluded.details`),
			resolve: t.SQL(`
				UPDATE {alerts} SET resolved_at = $2, through = nullif($3::bigint, 0) WHERE id = $1`),
		}
	},
}

type alerts struct {
	givenUp
	raise, acknowledge, resolve string
}

// alertDetails is what the column details holds.
type alertDetails struct {
	Message  string  `json:"message"`
	Observed float64 `json:"observed"`
	Limit    float64 `json:"limit"`

	Nodes            []domain.NodeLack   `json:"nodes,omitempty"`
	*domain.LostTail                     // of kind log_lost
	Count            *int64              `json:"count,omitempty"`       // of kind given_up, as it is now
	DeliveryIDs      []domain.DeliveryID `json:"delivery_ids,omitzero"` // likewise
}

func (p *alerts) Project(ctx context.Context, db Querier, events []eventstore.Event) ([]eventstore.Statement, error) {
	statements, err := p.givenUp.project(ctx, db, events)
	add := func(sql string, args ...any) {
		statements = append(statements, eventstore.Statement{SQL: sql, Args: args})
	}
	for i := range events { // alerts are few: each has a statement
		e := &events[i]
		switch c := e.Value.(type) {
		case domain.WebhookAlertRaised:
			details := domain.EncodeJSON(alertDetails{c.Message, c.Observed, c.Limit, c.Nodes, c.Lost, nil, nil})
			add(p.raise, e.Position, uuid.UUID(c.ID), uuid.UUID(c.WebhookID), string(c.Kind), details, e.RecordedAt, c.Since)
		case domain.WebhookAlertAcknowledged:
			add(p.acknowledge, uuid.UUID(c.ID), e.RecordedAt, domain.Storable(actorOf(e)))
		case domain.WebhookAlertResolved:
			add(p.resolve, uuid.UUID(c.ID), e.RecordedAt, c.Through)
		}
	}
	return statements, err
}

// actorOf returns who appended the event, "" if its metadata do not say.
func actorOf(e *eventstore.Event) string {
	by, _ := e.ReadMetadata()
	return by.Actor
}

// AlertState is whether an alert is open or resolved.
type AlertState string

// The states of an alert.
const (
	AlertOpen     AlertState = "open"
	AlertResolved AlertState = "resolved"
)

// Alert is one alert about a webhook or this service itself (contract section 5).
type Alert struct {
	ID         uuid.UUID           `json:"alert_id"`
	WebhookID  *domain.WebhookID   `json:"webhook_id"` // null: about no webhook
	Kind       string              `json:"kind"`
	State      AlertState          `json:"state"`
	Message    string              `json:"message"`                 // in words
	Details    json.RawMessage     `json:"details" schema:"object"` // observed and limit, in percent, calls or seconds by the kind; nodes, of kind node; from and to, positions, of kind log_lost; count and delivery_ids, 100 at most, of kind given_up
	RaisedAt   time.Time           `json:"raised_at"`
	ResolvedAt *time.Time          `json:"resolved_at"` // null: it is open
	Position   eventstore.Position `json:"position"`    // where the log has it

	AcknowledgedAt *time.Time `json:"acknowledged_at"` // null: nobody has
	AcknowledgedBy *string    `json:"acknowledged_by"`
	CallsURL       *string    `json:"calls_url"` // the failed calls of the webhook, by the API; null: it is about no webhook
}

// AlertFilter says which alerts to list.
type AlertFilter struct {
	State   AlertState       // "" is any
	Webhook domain.WebhookID // zero: any
	Limit   int
	Cursor  Cursor
}

// alertConditions are those of each state. They stand in the text of the query, as a generic
// plan goes by the index of open alerts only where it says that they are.
var alertConditions = map[AlertState]string{AlertOpen: ` AND resolved_at IS NULL`, AlertResolved: ` AND resolved_at IS NOT NULL`}

// query returns the query of the filter and its arguments.
func (f AlertFilter) query() (string, []any) {
	where, args := `WHERE position < $1`, []any{f.Cursor.Below(), f.Limit + 1}
	if f.Webhook != (domain.WebhookID{}) {
		where, args = `WHERE webhook = $3 AND position < $1`, append(args, uuid.UUID(f.Webhook))
	}
	return alertColumns + where + alertConditions[f.State] + ` ORDER BY position DESC LIMIT $2`, args
}

const alertColumns = `SELECT position, id, webhook, kind, details, raised_at, resolved_at, acknowledged_at, acknowledged_by, ` +
	givenUpColumns + ` FROM medilab.alerts AS a `

// Alert returns one alert, or a *domain.Error of KindNotFound.
func (p *Projections) Alert(ctx context.Context, id domain.AlertID) (a Alert, err error) {
	if err := p.awaitData(ctx); err != nil {
		return a, err
	}
	rows, _ := p.pool.Query(ctx, alertColumns+`WHERE id = $1`, uuid.UUID(id))
	a, err = pgx.CollectExactlyOneRow(rows, scanAlert)
	if errors.Is(err, pgx.ErrNoRows) {
		return a, domain.NotFound("alert")
	}
	return a, doing("read an alert", err)
}

// Key names what the alert is about.
func (a Alert) Key() domain.AlertKey {
	key := domain.AlertKey{Kind: domain.AlertKind(a.Kind)}
	if a.WebhookID != nil {
		key.Webhook = *a.WebhookID
	}
	return key
}

// Alerts lists alerts, the newest first.
func (p *Projections) Alerts(ctx context.Context, f AlertFilter) (page Page[Alert], err error) {
	if err := p.awaitData(ctx); err != nil {
		return page, err
	}
	sql, args := f.query()
	rows, _ := p.pool.Query(ctx, sql, args...)
	page.Items, err = pgx.CollectRows(rows, scanAlert)
	if err != nil {
		return page, fmt.Errorf("list alerts: %w", err)
	}
	if len(page.Items) > f.Limit {
		page.Items = page.Items[:f.Limit]
		page.NextCursor = Cursor(page.Items[f.Limit-1].Position)
	}
	return page, nil
}

func scanAlert(row pgx.CollectableRow) (a Alert, err error) {
	var webhook domain.WebhookID
	var count *int64
	var lost []domain.DeliveryID
	err = row.Scan(&a.Position, &a.ID, (*uuid.UUID)(&webhook), &a.Kind, (*[]byte)(&a.Details), &a.RaisedAt, &a.ResolvedAt, &a.AcknowledgedAt, &a.AcknowledgedBy, &count, &lost)
	if err != nil {
		return a, err
	}
	if webhook != (domain.WebhookID{}) {
		calls := "/api/v1/webhooks/" + webhook.String() + "/calls?status=failed"
		a.WebhookID, a.CallsURL = &webhook, &calls
	}
	var details alertDetails
	err = json.Unmarshal(a.Details, &details)
	if count != nil && err == nil {
		details.Count, details.DeliveryIDs = count, lost
		a.Details = domain.EncodeJSON(details)
	}
	a.Message = details.Message
	a.State, a.RaisedAt, a.AcknowledgedAt, a.ResolvedAt = AlertOpen, a.RaisedAt.UTC(), inUTC(a.AcknowledgedAt), inUTC(a.ResolvedAt)
	if a.ResolvedAt != nil {
		a.State = AlertResolved
	}
	return a, err
}

// AlertBasis returns what alerts are judged by, all of it at one position of the
// log: the figures of every webhook that was called, and the open alerts.
func (p *Projections) AlertBasis(ctx context.Context) (at eventstore.Position, figures map[domain.WebhookID]domain.CallFigures, open []domain.AlertKey, err error) {
	err = p.snapshot(ctx, func(tx pgx.Tx) error {
		if at, err = positionIn(ctx, tx); err != nil {
			return err
		}
		if figures, err = callFigures(ctx, tx); err != nil {
			return err
		}
		open, err = openAlerts(ctx, tx)
		return err
	})
	return at, figures, open, doing("read what alerts are judged by", err)
}

func openAlerts(ctx context.Context, db Querier) ([]domain.AlertKey, error) {
	rows, _ := db.Query(ctx, `SELECT webhook, kind FROM medilab.alerts WHERE resolved_at IS NULL`)
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (k domain.AlertKey, err error) {
		err = row.Scan((*uuid.UUID)(&k.Webhook), (*string)(&k.Kind))
		return k, err
	})
}
