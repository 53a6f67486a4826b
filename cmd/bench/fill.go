package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// fill appends n events of delivered history to a log, through the log's own
// appender: numbered, sealed and verifiable as if they had been served. It is
// quick as nothing is sent and no commit is waited for.
func fill(ctx context.Context, databaseURL string, webhooks []domain.WebhookID, n int) error {
	config, err := pgxpool.ParseConfig(databaseURL)
	if err != nil {
		return err
	}
	config.ConnConfig.RuntimeParams["synchronous_commit"] = "off"
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	defer pool.Close()
	log := eventstore.Open(eventstore.Config{Pool: pool})
	defer log.Close()

	const chunk = 3000 // deliveries that wait for the appender at once
	for done := 0; done < n; done += each * chunk {
		units := make([]eventstore.Unit, min(chunk, (n-done+each-1)/each))
		for i := range units {
			units[i] = delivered(webhooks[(done/each+i)%len(webhooks)])
		}
		if err := errors.Join(log.AppendEach(ctx, units)...); err != nil {
			return fmt.Errorf("fill the log: %w", err)
		}
	}
	// What the database does about new rows by and by is not what is measured next.
	if _, err := pool.Exec(ctx, `VACUUM (ANALYZE) medilab.events`); err != nil {
		return fmt.Errorf("fill the log: %w", err)
	}
	if _, err := pool.Exec(ctx, `CHECKPOINT`); err != nil {
		return fmt.Errorf("fill the log: %w", err)
	}
	return nil
}

// each is how many events of the log delivered makes.
const each = 2

// delivered is the history of one event that one webhook got at once.
func delivered(webhook domain.WebhookID) eventstore.Unit {
	event := domain.EventID(uuid.Must(uuid.NewV7()))
	var trigger struct {
		Data json.RawMessage `json:"event_data"`
	}
	if err := json.Unmarshal(one(), &trigger); err != nil {
		panic(err) // our own text
	}
	delivery := domain.DeliveryOf(event, webhook)
	changes := func(list ...domain.Change) (out []eventstore.NewEvent) {
		for _, c := range list {
			out = append(out, eventstore.NewEvent{Type: c.ChangeType(), Data: domain.AppendJSON(nil, c)})
		}
		return out
	}
	call := domain.Call{
		EventID: event, EventType: eventType, WebhookID: webhook, WebhookVersion: 1, PayloadVersion: "1", Attempt: 1,
		URL: "http://127.0.0.1:9000/filled", StartedAt: time.Now(), Duration: 1000 + int64(event[15])*20, Outcome: domain.OutcomeSuccess, Status: 200,
		Header: []domain.HeaderField{{Name: "Date", Value: "Mon, 01 Jan 2024 00:00:00 GMT"}, {Name: "Content-Length", Value: "0"}},
	}
	return eventstore.Unit{Writes: []eventstore.Write{
		{Stream: event.Stream(), Metadata: eventstore.Metadata{Actor: "bench"}, Events: changes(
			domain.EventTriggered{EventType: eventType, EventData: trigger.Data,
				Recipients: []domain.Recipient{{WebhookID: webhook, WebhookVersion: 1}}},
		)},
		{Stream: delivery.Stream(), Metadata: eventstore.Metadata{Actor: "bench", CausationID: event.String()},
			Events: changes(domain.DeliverySucceeded{Call: call})},
	}}
}
