package projections

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// The read model of alerts: those that are open and those that were. Its list
// is in alertsquery.go.

var alertsModel = Model{
	Name: "alerts", Shape: 1, Tables: []string{"alerts"},
	New: func(t Tables) Projection {
		return &alerts{
			raise: t.SQL(`
				INSERT INTO {alerts} (position, id, webhook, kind, details, raised_at)
				SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::uuid[], $4::text[], $5::bytea[], $6::timestamptz[])`),
			resolve: t.SQL(`
				UPDATE {alerts} AS a SET resolved_at = r.at FROM unnest($1::uuid[], $2::timestamptz[]) AS r (id, at) WHERE a.id = r.id`),
		}
	},
}

type alerts struct{ raise, resolve string }

// alertDetails is what the column details holds.
type alertDetails struct {
	Message  string  `json:"message"`
	Observed float64 `json:"observed"`
	Limit    float64 `json:"limit"`
}

func (p *alerts) Project(_ context.Context, _ Querier, events []eventstore.Event) ([]eventstore.Statement, error) {
	var positions []int64
	var ids, webhooks, resolved [][16]byte
	var kinds []string
	var details [][]byte
	var raisedAt, resolvedAt []time.Time
	for i := range events {
		e := &events[i]
		switch c := e.Value.(type) {
		case domain.WebhookAlertRaised:
			encoded, err := encodeJSON(alertDetails{c.Message, c.Observed, c.Limit})
			if err != nil {
				return nil, &PoisonError{Position: e.Position, Err: err}
			}
			positions, ids, webhooks = append(positions, int64(e.Position)), append(ids, c.ID), append(webhooks, c.WebhookID)
			kinds, details, raisedAt = append(kinds, string(c.Kind)), append(details, encoded), append(raisedAt, e.RecordedAt)
		case domain.WebhookAlertResolved:
			resolved, resolvedAt = append(resolved, c.ID), append(resolvedAt, e.RecordedAt)
		}
	}
	var statements []eventstore.Statement
	if len(positions) > 0 {
		statements = append(statements, eventstore.Statement{SQL: p.raise, Args: []any{positions, ids, webhooks, kinds, details, raisedAt}})
	}
	if len(resolved) > 0 {
		statements = append(statements, eventstore.Statement{SQL: p.resolve, Args: []any{resolved, resolvedAt}})
	}
	return statements, nil
}

// AlertBasis gives what alerts are judged by, all as it was at one place in the
// log: the figures of every webhook that was called, and the open alerts.
func (p *Projections) AlertBasis(ctx context.Context) (at eventstore.Position, figures map[domain.WebhookID]domain.CallFigures, open []domain.AlertKey, err error) {
	tx, err := p.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return 0, nil, nil, fmt.Errorf("read what alerts are judged by: %w", err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // read only: nothing to undo
	err = tx.QueryRow(ctx, `SELECT coalesce((SELECT position FROM medilab.readers WHERE name = $1), 0)`, readerName).Scan(&at)
	if err != nil {
		return 0, nil, nil, fmt.Errorf("read what alerts are judged by: %w", err)
	}
	rows, err := tx.Query(ctx, `SELECT webhook, tally FROM medilab.stats`)
	if err != nil {
		return 0, nil, nil, fmt.Errorf("read what alerts are judged by: %w", err)
	}
	figures = map[domain.WebhookID]domain.CallFigures{}
	var id uuid.UUID
	var encoded []byte
	_, err = pgx.ForEachRow(rows, []any{&id, &encoded}, func() error {
		t, err := decodeTally(encoded)
		if err == nil {
			figures[domain.WebhookID(id)] = t.figures
		}
		return err
	})
	if err != nil {
		return 0, nil, nil, fmt.Errorf("read what alerts are judged by: %w", err)
	}
	delete(figures, wholeSystem)
	if rows, err = tx.Query(ctx, `SELECT webhook, kind FROM medilab.alerts WHERE resolved_at IS NULL`); err != nil {
		return 0, nil, nil, fmt.Errorf("read what alerts are judged by: %w", err)
	}
	open, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (k domain.AlertKey, err error) {
		err = row.Scan((*uuid.UUID)(&k.Webhook), (*string)(&k.Kind))
		return k, err
	})
	if err != nil {
		return 0, nil, nil, fmt.Errorf("read what alerts are judged by: %w", err)
	}
	return at, figures, open, nil
}

func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
