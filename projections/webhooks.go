package projections

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// The read model of webhooks: each as it is, to be listed and searched. Deleted
// ones stay in it, so that their history has a name.

var webhooksModel = Model{
	Name: "webhooks", Shape: 1, Tables: []string{"webhooks"},
	New: func(t Tables) Projection {
		return &webhooks{
			load: t.SQL(`SELECT id, state FROM {webhooks} WHERE id = ANY($1)`),
			save: t.SQL(`
				INSERT INTO {webhooks} (id, number, status, events, search, state)
				SELECT w.id, w.number, w.status, ARRAY(SELECT jsonb_array_elements_text(w.events)), w.search, w.state
				FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::jsonb[], $5::text[], $6::bytea[])
					AS w (id, number, status, events, search, state)
				ON CONFLICT (id) DO UPDATE SET number = EXCLUDED.number, status = EXCLUDED.status,
					events = EXCLUDED.events, search = EXCLUDED.search, state = EXCLUDED.state`),
		}
	},
}

// WebhookStatus narrows a list of webhooks.
type WebhookStatus string

// What a list of webhooks can be narrowed to. Deleted ones are in none.
const (
	WebhooksAll      WebhookStatus = "all"
	WebhooksActive   WebhookStatus = "active"
	WebhooksInactive WebhookStatus = "inactive"

	webhooksDeleted = "deleted"
)

type webhooks struct{ load, save string }

func (p *webhooks) Project(ctx context.Context, db Querier, events []eventstore.Event) ([]eventstore.Statement, error) {
	var touched []uuid.UUID
	states := map[domain.WebhookID]domain.Webhook{}
	for i := range events {
		if id, ok := webhookOf(&events[i]); ok {
			if _, known := states[id]; !known {
				states[id] = domain.Webhook{ID: id}
				touched = append(touched, uuid.UUID(id))
			}
		}
	}
	if len(touched) == 0 {
		return nil, nil
	}
	if err := p.loadInto(ctx, db, touched, states); err != nil {
		return nil, err
	}
	for i := range events {
		if id, ok := webhookOf(&events[i]); ok {
			states[id] = states[id].Evolve(events[i].Value.(domain.Change), events[i].RecordedAt)
		}
	}
	return p.saved(touched, states, events)
}

func (p *webhooks) loadInto(ctx context.Context, db Querier, ids []uuid.UUID, states map[domain.WebhookID]domain.Webhook) error {
	rows, err := db.Query(ctx, p.load, ids)
	if err != nil {
		return fmt.Errorf("load webhooks: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var id uuid.UUID
		var state []byte
		if err := rows.Scan(&id, &state); err != nil {
			return fmt.Errorf("load webhooks: %w", err)
		}
		if states[domain.WebhookID(id)], err = decodeWebhook(state); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("load webhooks: %w", err)
	}
	return nil
}

func (p *webhooks) saved(ids []uuid.UUID, states map[domain.WebhookID]domain.Webhook, events []eventstore.Event) ([]eventstore.Statement, error) {
	n := len(ids)
	numbers, status, subscribed := make([]int64, n), make([]string, n), make([]string, n)
	search, state := make([]string, n), make([][]byte, n)
	for i, id := range ids {
		w := states[domain.WebhookID(id)]
		encoded, err := encodeJSON(w)
		if err != nil {
			return nil, &PoisonError{Position: events[0].Position, Err: err}
		}
		list, err := encodeJSON(w.Events)
		if err != nil || w.Events == nil {
			list = []byte(`[]`)
		}
		numbers[i], status[i], subscribed[i], state[i] = w.Number, string(statusOf(w)), string(list), encoded
		search[i] = text(strings.ToLower(w.Name + "\n" + w.Description + "\n" + w.URL))
	}
	return []eventstore.Statement{{SQL: p.save, Args: []any{ids, numbers, status, subscribed, search, state}}}, nil
}

func statusOf(w domain.Webhook) WebhookStatus {
	switch {
	case !w.Exists():
		return webhooksDeleted
	case w.Active:
		return WebhooksActive
	}
	return WebhooksInactive
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

func decodeWebhook(state []byte) (domain.Webhook, error) {
	var w domain.Webhook
	if err := json.Unmarshal(state, &w); err != nil {
		return w, fmt.Errorf("decode a webhook's state: %w", err)
	}
	if string(w.Filters) == "null" {
		w.Filters = nil
	}
	return w, nil
}

// WebhookFilter says which webhooks to list.
type WebhookFilter struct {
	Status    WebhookStatus    // "" is all
	EventType domain.EventType // subscribed to it, by name, group or *; "" is any
	Search    string           // in name, description or url, whatever the letter case
	Limit     int
	Cursor    string
}

// WebhookPage is one page of a list, newest first.
type WebhookPage struct {
	Items      []domain.Webhook
	NextCursor string // "": there is no more
}

// Webhooks lists webhooks, the newest first. An unreadable cursor is refused.
func (p *Projections) Webhooks(ctx context.Context, f WebhookFilter) (WebhookPage, error) {
	before, err := parseCursor(f.Cursor)
	if err != nil {
		return WebhookPage{}, err
	}
	statuses := []string{string(f.Status)}
	if f.Status == "" || f.Status == WebhooksAll {
		statuses = []string{string(WebhooksActive), string(WebhooksInactive)}
	}
	rows, err := p.pool.Query(ctx, `
		SELECT state FROM medilab.webhooks
		WHERE number < $1 AND status = ANY($2) AND ($3::text[] IS NULL OR events && $3) AND ($4 = '' OR strpos(search, $4) > 0)
		ORDER BY number DESC LIMIT $5`,
		before, statuses, subscriptionsTo(f.EventType), text(strings.ToLower(f.Search)), f.Limit+1)
	if err != nil {
		return WebhookPage{}, fmt.Errorf("list webhooks: %w", err)
	}
	defer rows.Close()
	var page WebhookPage
	for rows.Next() {
		var state []byte
		if err := rows.Scan(&state); err != nil {
			return WebhookPage{}, fmt.Errorf("list webhooks: %w", err)
		}
		w, err := decodeWebhook(state)
		if err != nil {
			return WebhookPage{}, err
		}
		page.Items = append(page.Items, w)
	}
	if err := rows.Err(); err != nil {
		return WebhookPage{}, fmt.Errorf("list webhooks: %w", err)
	}
	if len(page.Items) > f.Limit {
		page.Items = page.Items[:f.Limit]
		page.NextCursor = cursorAt(page.Items[f.Limit-1].Number)
	}
	return page, nil
}

// subscriptionsTo lists every subscription that asks for the type; nil: any does.
func subscriptionsTo(t domain.EventType) []string {
	if t == "" {
		return nil
	}
	list := []string{string(t), t.Group() + ".*"}
	if domain.AllEvents.Matches(t) {
		list = append(list, string(domain.AllEvents))
	}
	return list
}
