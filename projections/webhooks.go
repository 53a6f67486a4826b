package projections

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// The webhooks as queries of other read models need them: number, name and
// status. Deleted ones stay, so that their calls keep a name.

var webhooksModel = Model{
	Name: "webhooks", SchemaVersion: 2, Tables: []string{"webhooks"},
	New: func(t Tables) Projection {
		return &webhooks{
			load: t.SQL(`SELECT id, number, status, name FROM {webhooks} WHERE id = ANY($1)`),
			save: t.SQL(`
				INSERT INTO {webhooks} (id, number, status, name)
				SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[])
				ON CONFLICT (id) DO UPDATE SET number = EXCLUDED.number, status = EXCLUDED.status, name = EXCLUDED.name`),
		}
	},
}

// The values of the column status.
const (
	webhookActive   = "active"
	webhookInactive = "inactive"
	webhookDeleted  = "deleted"
)

type webhooks struct{ load, save string }

func (p *webhooks) Project(ctx context.Context, db Querier, events []eventstore.Event) ([]eventstore.Statement, error) {
	var ids []uuid.UUID
	states := map[uuid.UUID]domain.Webhook{}
	for i := range events {
		if id, ok := webhookOf(&events[i]); ok {
			if _, seen := states[id]; !seen {
				states[id] = domain.Webhook{}
				ids = append(ids, id)
			}
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	if err := p.loadInto(ctx, db, ids, states); err != nil {
		return nil, fmt.Errorf("load webhooks: %w", err)
	}
	for i := range events {
		if id, ok := webhookOf(&events[i]); ok {
			states[id] = states[id].Evolve(events[i].Value.(domain.Change), events[i].RecordedAt)
		}
	}
	numbers, statuses, names := make([]int64, len(ids)), make([]string, len(ids)), make([]string, len(ids))
	for i, id := range ids {
		w := states[id]
		numbers[i], statuses[i], names[i] = w.Number, statusOf(w), domain.Storable(w.Name)
	}
	return []eventstore.Statement{{SQL: p.save, Args: []any{ids, numbers, statuses, names}}}, nil
}

// loadInto reads as much of each webhook's state as its row keeps.
func (p *webhooks) loadInto(ctx context.Context, db Querier, ids []uuid.UUID, states map[uuid.UUID]domain.Webhook) error {
	rows, _ := db.Query(ctx, p.load, ids)
	var id uuid.UUID
	var number int64
	var status, name string
	_, err := pgx.ForEachRow(rows, []any{&id, &number, &status, &name}, func() error {
		states[id] = domain.Webhook{WebhookSettings: domain.WebhookSettings{Number: number, Name: name, Active: status == webhookActive},
			Deleted: status == webhookDeleted, Version: 1}
		return nil
	})
	return err
}

func statusOf(w domain.Webhook) string {
	switch {
	case !w.Exists():
		return webhookDeleted
	case w.Active:
		return webhookActive
	}
	return webhookInactive
}

// webhookOf returns the webhook whose stream the event is in.
func webhookOf(e *eventstore.Event) (uuid.UUID, bool) {
	kind, id, err := domain.ParseStream(e.Stream)
	return id, err == nil && kind == "webhook"
}

// webhookNumber is a query of the short number of the webhook $1.
const webhookNumber = `SELECT number::integer FROM medilab.webhooks WHERE id = $1`

// webhookNames is a query of what lists show of webhooks.
const webhookNames = `SELECT id, number, name FROM medilab.webhooks`

// webhookCounts returns how many webhooks there are, and how many of them are active.
func (p *Projections) webhookCounts(ctx context.Context) (total, active int64, err error) {
	err = p.pool.QueryRow(ctx, `
		SELECT count(*) FILTER (WHERE status <> 'deleted'), count(*) FILTER (WHERE status = 'active') FROM medilab.webhooks`,
	).Scan(&total, &active)
	return total, active, err
}

// numbers caches the short number of every webhook: a quarter of the size of its
// id in each row of the call log. A number never changes and stands in the first
// event of the webhook's stream.
type numbers map[uuid.UUID]int32

// load reads the numbers of the webhooks that are not known yet. One whose first
// event is missing or does not decode gets 0, which no webhook has.
func (n numbers) load(ctx context.Context, db Querier, webhooks map[uuid.UUID]bool) error {
	var missing []string
	for id := range webhooks {
		if _, known := n[id]; !known {
			missing = append(missing, domain.WebhookID(id).Stream())
		}
	}
	if len(missing) == 0 {
		return nil
	}
	first, err := firstOf[domain.WebhookRegistered](ctx, db, missing)
	if err != nil {
		return err
	}
	for id := range webhooks {
		if _, known := n[id]; !known {
			n[id] = int32(first[domain.WebhookID(id).Stream()].Number)
		}
	}
	return nil
}
