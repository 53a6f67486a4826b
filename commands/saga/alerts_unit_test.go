package saga

import (
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations/testdb"
)

// A call that counts for nothing deactivates no webhook, however long ago others failed.
func TestOnlyFailuresDeactivate(t *testing.T) {
	t.Parallel()
	pool, err := eventstore.OpenPool(t.Context(), testdb.New(t), 4)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	directory := commands.NewDirectory(slog.New(slog.DiscardHandler))
	log := eventstore.Open(eventstore.Config{Pool: pool, Observers: []eventstore.Observer{directory.Observe},
		Codec: func(name string, data []byte) (any, error) { return domain.Decode(name, data) }})
	defer log.Close()
	if err := directory.Open(t.Context(), log); err != nil {
		t.Fatal(err)
	}
	id := domain.WebhookID(uuid.New())
	registered := domain.WebhookRegistered{ID: id, Number: 1, Name: "n", URL: "http://127.0.0.1:1/", Active: true, Events: []string{"*"}, AutoDeactivateAfter: 60}
	appended, err := directory.Append(t.Context(), eventstore.Unit{Writes: []eventstore.Write{commands.Write(id.Stream(), 0, eventstore.Metadata{}, registered)}})
	if err != nil {
		t.Fatal(err)
	}

	a := &Alerts{Log: log, Directory: directory, Rules: domain.DefaultAlertRules, Logger: slog.New(slog.DiscardHandler),
		state: &alertState{figures: map[domain.WebhookID]*domain.CallFigures{}, open: map[domain.AlertKey]bool{}}}
	at := appended.RecordedAt
	active := func(call domain.Call) bool {
		t.Helper()
		call.WebhookID = id
		if err := a.count(t.Context(), &call, at, map[domain.WebhookID]bool{}); err != nil {
			t.Fatal(err)
		}
		w, _ := directory.Webhook(id)
		return w.Active
	}
	for range 10 {
		active(domain.Call{Outcome: "http_error"})
	}
	at = at.Add(time.Hour)
	if !active(domain.Call{Outcome: domain.OutcomeInterrupted}) || !active(domain.Call{Outcome: "http_error", System: true}) {
		t.Error("a call that counts for nothing deactivated it")
	}
	if active(domain.Call{Outcome: "http_error"}) {
		t.Error("an hour of failures did not deactivate it")
	}
}
