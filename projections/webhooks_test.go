package projections

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"

	"github.com/medilab/webhooks/domain"
)

func TestWebhooksKeepNumberStatusAndName(t *testing.T) {
	b := newBench(t)
	b.serve()
	for n := range 4 {
		b.register(n + 1)
	}
	name := "Лаборатория №3"
	b.append(webhookID(1).Stream(), domain.WebhookDeactivated{})
	b.append(webhookID(2).Stream(), domain.WebhookDeactivated{}, domain.WebhookActivated{})
	b.append(webhookID(3).Stream(), domain.WebhookChanged{Name: &name})
	b.append(webhookID(4).Stream(), domain.WebhookDeleted{}, domain.WebhookActivated{})
	b.settle()
	got := column[string](b, `SELECT concat_ws(' ', number, status, name) FROM medilab.webhooks ORDER BY number`)
	want := []string{"1 inactive Webhook 1", "2 active Webhook 2", "3 active Лаборатория №3", "4 deleted Webhook 4"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	system, err := b.SystemStats(b.ctx, StatsFilter{})
	if err != nil || system.WebhooksTotal != 3 || system.WebhooksActive != 2 {
		t.Errorf("%d webhooks, %d active, %v", system.WebhooksTotal, system.WebhooksActive, err)
	}
}

// TestWebhooksOfAnOlderVersionAreConverted: what the migration makes of the former
// table is what a rebuild makes of the log.
func TestWebhooksOfAnOlderVersionAreConverted(t *testing.T) {
	b := newBench(t)
	names := []string{"plain", `"quoted" \u0000 \\u0000 \`, "Имя <&>\n\t\u2028", "\",\"Name\":\"other"}
	for n, name := range names {
		b.register(n + 1)
		b.append(webhookID(n+1).Stream(), domain.WebhookChanged{Name: &name})
	}
	b.append(webhookID(1).Stream(), domain.WebhookDeleted{})
	b.fill()
	want := b.dump()

	// The table as it was, by migration 0004, and the names of indexes as they were.
	_, err := b.pool.Exec(b.ctx, `
		ALTER TABLE medilab.webhooks RENAME TO kept;
		CREATE TABLE medilab.webhooks (
			id uuid PRIMARY KEY, number bigint NOT NULL, status text NOT NULL,
			events text[] NOT NULL, search text NOT NULL, state bytea NOT NULL
		) WITH (toast_tuple_target = 256);
		DROP INDEX medilab.webhooks_number_idx;
		CREATE UNIQUE INDEX webhooks_number ON medilab.webhooks (number);
		CREATE INDEX events_recorded_at ON medilab.events USING brin (recorded_at);
		ALTER INDEX medilab.alerts_id_idx RENAME TO alerts_id;
		ALTER INDEX medilab.alerts_position_idx RENAME TO alerts_open;
		ALTER INDEX medilab.stats_hours_hour_webhook_idx RENAME TO stats_hours_hour;
		UPDATE medilab.read_models SET shape = 1 WHERE name = 'webhooks'`)
	if err != nil {
		t.Fatal(err)
	}
	for n := range names {
		events, err := b.log.Load(b.ctx, webhookID(n+1).Stream())
		if err != nil {
			t.Fatal(err)
		}
		var w domain.Webhook
		for _, e := range events {
			w = w.Evolve(e.Value.(domain.Change), e.RecordedAt)
		}
		former := struct {
			ID                     domain.WebhookID
			Number                 int64
			Name, Description, URL string
			Filters                json.RawMessage
		}{w.ID, w.Number, w.Name, w.Description, w.URL, json.RawMessage(`{"a":"\u0000"}`)} // which Postgres could not read as JSON
		var state bytes.Buffer
		encoder := json.NewEncoder(&state)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(former); err != nil {
			t.Fatal(err)
		}
		_, err = b.pool.Exec(b.ctx, `INSERT INTO medilab.webhooks SELECT id, number, status, '{}', '', $2 FROM medilab.kept WHERE id = $1`, w.ID, bytes.TrimSpace(state.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.pool.Exec(b.ctx, `DROP TABLE medilab.kept`); err != nil {
		t.Fatal(err)
	}
	b.migrate("0015_dead_columns.sql")
	equalDumps(t, b.dump(), want)
	if found := b.verify(); found != "" {
		t.Errorf("found %s", found)
	}
	if outdated, err := b.Outdated(b.ctx); err != nil || len(outdated) > 0 {
		t.Errorf("outdated: %v, %v", outdated, err)
	}
	if err := b.Rebuild(b.ctx, nil, nil); err != nil {
		t.Fatal(err)
	}
	equalDumps(t, b.dump(), want)
}
