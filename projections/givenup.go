package projections

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// The deliveries that ran out of retries and have not been delivered or cancelled since;
// of a batch, its members. The open alert of a webhook counts them from a position on.

type givenUp struct{ ended, lost string }

func newGivenUp(t Tables) givenUp {
	return givenUp{
		ended: t.SQL(`
			WITH batches AS (DELETE FROM {given_up} WHERE batch = ANY($1::uuid[]))
			DELETE FROM {given_up} WHERE delivery = ANY($1)`),
		lost: t.SQL(`
			INSERT INTO {given_up} (delivery, webhook, batch, position, at)
			SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::timestamptz[])
			ON CONFLICT (delivery) DO UPDATE SET batch = EXCLUDED.batch, position = EXCLUDED.position, at = EXCLUDED.at`),
	}
}

// lostDelivery is a row of the table.
type lostDelivery struct {
	webhook  domain.WebhookID
	batch    *uuid.UUID // nil: it went alone
	position eventstore.Position
	at       time.Time
}

func (p *givenUp) project(ctx context.Context, db Querier, events []eventstore.Event) ([]eventstore.Statement, error) {
	members, err := p.membersOf(ctx, db, events)
	if err != nil {
		return nil, fmt.Errorf("read the batches that were given up: %w", err)
	}
	lost := map[uuid.UUID]lostDelivery{}
	var ended [][16]byte
	for i := range events {
		e := &events[i]
		stay, err := remainingMembers(ctx, db, e)
		if err != nil {
			return nil, fmt.Errorf("read the batch that a replay ended: %w", err)
		}
		for _, m := range stay {
			ended = append(ended, deliveryIn(m.stream))
			delete(lost, deliveryIn(m.stream))
		}
		if endsAgain(e.Value) {
			id := deliveryIn(e.Stream)
			ended = append(ended, id)
			delete(lost, id)
			for _, m := range members[e.Stream] {
				if row := lost[deliveryIn(m.stream)]; row.batch != nil && *row.batch == id {
					delete(lost, deliveryIn(m.stream))
				}
			}
			continue
		}
		failed, ok := ranOut(e.Value)
		if !ok {
			continue
		}
		row, id := lostDelivery{failed.WebhookID, nil, e.Position, e.RecordedAt}, deliveryIn(e.Stream)
		if failed.EventType != string(domain.BatchEventType) {
			lost[id] = row
			continue
		}
		row.batch = &id
		for _, m := range members[e.Stream] {
			lost[deliveryIn(m.stream)] = row
		}
	}
	return p.statements(ended, lost), nil
}

func (p *givenUp) statements(ended [][16]byte, lost map[uuid.UUID]lostDelivery) (statements []eventstore.Statement) {
	if len(ended) > 0 {
		statements = append(statements, eventstore.Statement{SQL: p.ended, Args: []any{ended}})
	}
	if len(lost) == 0 {
		return statements
	}
	var ids, webhooks [][16]byte
	var batches []*uuid.UUID
	var positions []int64
	var at []time.Time
	for id, row := range lost {
		ids, webhooks, batches = append(ids, id), append(webhooks, row.webhook), append(batches, row.batch)
		positions, at = append(positions, int64(row.position)), append(at, row.at)
	}
	return append(statements, eventstore.Statement{SQL: p.lost, Args: []any{ids, webhooks, batches, positions, at}})
}

// ranOut returns the last call of a delivery of the clinic's events that ran out of retries.
func ranOut(value any) (domain.Call, bool) {
	failed, ok := value.(domain.DeliveryAttemptFailed)
	return failed.Call, ok && failed.GaveUp == domain.GaveUpRetriesExhausted && !failed.IsSystem()
}

// endsAgain reports whether the change may end a delivery that was given up.
func endsAgain(value any) bool {
	switch c := value.(type) {
	case domain.DeliverySucceeded:
		return c.Attempt > 1 || c.ReplayID != (domain.ReplayID{}) // it may have been given up with its batch
	case domain.DeliveryCancelled:
		return c.Reason != domain.CancelReplayed // of a batch, whose events go on by themselves: see remainingMembers
	}
	return false
}

// remainingMembers returns the members that had not gone on by themselves when a replay ended their batch:
// with it they are cancelled.
func remainingMembers(ctx context.Context, db Querier, e *eventstore.Event) ([]stand, error) {
	if c, ok := e.Value.(domain.DeliveryCancelled); !ok || c.Reason != domain.CancelReplayed {
		return nil, nil
	}
	batch, _ := standOf(e)
	return ofMembers(ctx, db, []stand{batch})
}

// deliveryIn returns the delivery whose stream it is.
func deliveryIn(stream string) uuid.UUID {
	_, id, err := domain.ParseStream(stream)
	if err != nil {
		return uuid.Nil // only a damaged log has such a one
	}
	return id
}

// membersOf returns the members that are given up with the batches of the events, by the
// streams of these, without those that deliver the service's own events.
func (p *givenUp) membersOf(ctx context.Context, db Querier, events []eventstore.Event) (map[string][]stand, error) {
	members := map[string][]stand{}
	var streams []string
	for i := range events {
		failed, ok := ranOut(events[i].Value)
		if !ok || failed.EventType != string(domain.BatchEventType) {
			continue
		}
		batch, _ := standOf(&events[i])
		all, err := ofMembers(ctx, db, []stand{batch})
		if err != nil {
			return nil, err
		}
		for _, m := range all {
			if m.state == domain.DeliveryFailed { // else it was left out
				members[events[i].Stream] = append(members[events[i].Stream], m)
				streams = append(streams, m.event.Stream())
			}
		}
	}
	if len(streams) == 0 {
		return nil, nil
	}
	triggered, err := firstOf[domain.EventTriggered](ctx, db, streams)
	for stream, all := range members {
		members[stream] = slices.DeleteFunc(all, func(m stand) bool {
			return domain.EventType(triggered[m.event.Stream()].EventType).IsSystem()
		})
	}
	return members, err
}

// firstOf returns what the streams begin with, of those that begin with a C.
func firstOf[C domain.Change](ctx context.Context, db Querier, streams []string) (map[string]C, error) {
	rows, _ := db.Query(ctx, `
		SELECT s.stream, e.type, e.data FROM unnest($1::text[]) AS s (stream)
		CROSS JOIN LATERAL (SELECT type, data FROM medilab.events WHERE stream = s.stream AND version = 1 OFFSET 0) AS e`, streams)
	first := map[string]C{}
	var stream, name string
	var data []byte
	_, err := pgx.ForEachRow(rows, []any{&stream, &name, &data}, func() error {
		change, _ := domain.Decode(name, bytes.Clone(data))
		if c, ok := change.(C); ok {
			first[stream] = c
		}
		return nil
	})
	return first, err
}

// givenUpColumns are how many deliveries the alert a counts, and the first of them; null of
// other alerts.
const givenUpColumns = `
	CASE WHEN a.since IS NOT NULL THEN (SELECT count(*) FROM medilab.given_up AS g
		WHERE g.webhook = a.webhook AND g.position BETWEEN a.since AND coalesce(a.through, 9223372036854775807)) END,
	CASE WHEN a.since IS NOT NULL THEN ARRAY(SELECT g.delivery FROM medilab.given_up AS g
		WHERE g.webhook = a.webhook AND g.position BETWEEN a.since AND coalesce(a.through, 9223372036854775807)
		ORDER BY g.position, g.delivery LIMIT 100) END`

// GivenUp returns, at one position of the log, the webhooks whose alert of the kind given_up
// is open, and when the last of its deliveries was given up; zero: each has ended since.
func (p *Projections) GivenUp(ctx context.Context) (at eventstore.Position, last map[domain.WebhookID]time.Time, err error) {
	last = map[domain.WebhookID]time.Time{}
	err = p.snapshot(ctx, func(tx pgx.Tx) error {
		if at, err = positionIn(ctx, tx); err != nil {
			return err
		}
		rows, _ := tx.Query(ctx, `
			SELECT a.webhook, (SELECT at FROM medilab.given_up AS g WHERE g.webhook = a.webhook AND g.position >= a.since ORDER BY g.position DESC LIMIT 1)
			FROM medilab.alerts AS a WHERE a.resolved_at IS NULL AND a.kind = $1`, string(domain.AlertGivenUp))
		var webhook uuid.UUID
		var when *time.Time
		_, err := pgx.ForEachRow(rows, []any{&webhook, &when}, func() error {
			var givenUp time.Time
			if when != nil {
				givenUp = *when
			}
			last[domain.WebhookID(webhook)] = givenUp
			return nil
		})
		return err
	})
	return at, last, doing("read what was given up", err)
}
