package saga

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// Queue keeps medilab.queue, one row a delivery that has not ended, in the transaction
// that appends the event which says so: it never lags. A delivery that waits for others
// to go with has its row in medilab.batch_members instead.
//
// With a Saga, this process claims what it has room for in the append itself. Most of that
// shares a row of medilab.claims instead.
type Queue struct {
	Pool *pgxpool.Pool // for queries
	Saga *Saga
}

// announcedReplays is announced when replays are to begin, or to go on.
const announcedReplays = "replays"

// Statements implements eventstore.Inline. It announces the webhooks with deliveries
// that are free to claim, the streams of replays that stop, and that some are to begin.
func (q Queue) Statements(events []eventstore.Event) (_ []eventstore.Statement, announce []string, _ error) {
	claims := q.Saga.beginClaims()
	rows := queueRows{ordered: orderedRows{lanes: claims, events: len(events)}}
	for i := range events {
		e := &events[i]
		switch c := e.Value.(type) {
		case domain.EventTriggered:
			dispatched, _ := domain.DispatchOf(domain.EventID(streamID(e.Stream)), c)
			rows.dispatch(dispatched, i+1, claims)
		case domain.EventDispatched:
			rows.dispatch(c, i+1, nil)
		case domain.DeliverySucceeded:
			rows.ended = append(rows.ended, streamID(e.Stream))
			rows.ordered.touch(streamID(e.Stream), c.Ordered)
		case domain.DeliveryBatched:
			rows.batch(deliveryRow{id: streamID(e.Stream), webhook: c.WebhookID, event: c.Members[0].EventID, size: c.Size, version: e.Version, line: c.Line})
		case domain.DeliveryJoinedBatch:
			rows.joined = append(rows.joined, streamID(e.Stream))
		case domain.DeliveryCancelled:
			rows.ended = append(rows.ended, streamID(e.Stream))
			rows.joined = append(rows.joined, streamID(e.Stream))
			rows.unkept = append(rows.unkept, c.EventID)
			if c.Waiting {
				rows.untaken = append(rows.untaken, streamID(e.Stream))
			} else if c.Was == "" {
				rows.cut = append(rows.cut, deliveryRow{id: streamID(e.Stream), webhook: c.WebhookID, event: c.EventID, version: e.Version})
			}
			rows.ordered.touch(streamID(e.Stream), true) // whether it is, its row says
			rows.ordered.opened = append(rows.ordered.opened, c.WebhookID)
		case domain.DeliveryAttemptFailed:
			rows.ordered.touch(streamID(e.Stream), c.Ordered)
			if c.Blocks {
				rows.ordered.blocked = append(rows.ordered.blocked, deliveryRow{id: streamID(e.Stream), attempt: c.Attempt + 1, version: e.Version})
			} else if c.GaveUp != "" {
				rows.ended = append(rows.ended, streamID(e.Stream))
			} else {
				rows.failed = append(rows.failed, deliveryRow{id: streamID(e.Stream), webhook: c.WebhookID, event: c.EventID, attempt: c.Attempt + 1, version: e.Version, due: c.NextAttemptAt})
			}
		case domain.DeliveryInterrupted:
			rows.ordered.touch(streamID(e.Stream), c.Ordered)
			rows.interrupted = append(rows.interrupted, deliveryRow{id: streamID(e.Stream), webhook: c.WebhookID, event: c.EventID, attempt: c.Attempt + 1, version: e.Version})
		case domain.DeliveryRetryRequested:
			if c.BatchID != (domain.DeliveryID{}) {
				rows.leftBatches = append(rows.leftBatches, c.BatchID)
			}
			rows.unkept = append(rows.unkept, c.EventID)
			rows.retried = append(rows.retried, deliveryRow{id: streamID(e.Stream), webhook: c.WebhookID, event: c.EventID, size: c.Size, attempt: c.Attempt, version: e.Version, line: c.Line, replay: c.ReplayID})
			rows.ordered.touch(streamID(e.Stream), c.Line != domain.NoLine)
			rows.ordered.between = rows.ordered.between || c.Line != domain.NoLine
			rows.joined = append(rows.joined, streamID(e.Stream)) // it goes at once, so by itself
		case domain.DeliveryRetryCancelled:
			rows.unkept = append(rows.unkept, c.EventID)
			if c.Waiting {
				rows.untaken = append(rows.untaken, streamID(e.Stream))
			} else {
				rows.cut = append(rows.cut, deliveryRow{id: streamID(e.Stream), webhook: c.WebhookID, event: c.EventID, version: e.Version})
			}
			rows.ordered.touch(streamID(e.Stream), true)
			if c.Blocks {
				rows.ordered.blocked = append(rows.ordered.blocked, deliveryRow{id: streamID(e.Stream), version: e.Version})
			} else {
				rows.ended = append(rows.ended, streamID(e.Stream))
			}
		case domain.DeliveryOutcomeLate:
			rows.unkept = append(rows.unkept, c.EventID)
			rows.late = append(rows.late, deliveryRow{id: streamID(e.Stream), attempt: c.Attempt, version: e.Version})
		case domain.ReplayPaused, domain.ReplayCancelled:
			announce = append(announce, e.Stream)
		case domain.ReplayRequested, domain.ReplayResumed:
			announce = append(announce, announcedReplays)
		}
	}
	return rows.statements(), append(announce, rows.free()...), nil
}

// Untried implements commands.Queue.
func (q Queue) Untried(ctx context.Context, ids []domain.DeliveryID) (map[domain.DeliveryID]domain.Delivery, error) {
	rows, _ := q.Pool.Query(ctx, `
		SELECT delivery_id, event_id, webhook_id FROM medilab.pending WHERE delivery_id = ANY($1) AND version = 0
		UNION ALL SELECT delivery_id, event_id, webhook_id FROM medilab.batch_members WHERE delivery_id = ANY($1)`, ids)
	untried := map[domain.DeliveryID]domain.Delivery{}
	var id domain.DeliveryID
	d := domain.Delivery{State: domain.DeliveryPending}
	_, err := pgx.ForEachRow(rows, []any{&id, &d.EventID, &d.WebhookID}, func() error {
		untried[id] = d
		return nil
	})
	return untried, eventstore.Doing("look into the queue", err)
}

// Waits implements commands.Queue. What is in medilab.claims is with a node, and what blocks its line has failed.
func (q Queue) Waits(ctx context.Context, id domain.DeliveryID) (waits bool, err error) {
	err = q.Pool.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM medilab.queue WHERE delivery_id = $1 AND coalesce(node, 0) = 0 AND due_at < 'infinity')
			OR EXISTS (SELECT FROM medilab.batch_members WHERE delivery_id = $1)`, id).Scan(&waits)
	return waits, eventstore.Doing("look into the queue", err)
}

// Age returns how long the delivery that is due for longest has waited, of all nodes. What
// waits for a webhook to be activated does not count.
func (q Queue) Age(ctx context.Context, directory *commands.Directory) (time.Duration, error) {
	rows, _ := q.Pool.Query(ctx, `
		WITH RECURSIVE step (lane, due) AS (
			(SELECT webhook_id, due_at FROM medilab.queue WHERE node IS NULL ORDER BY webhook_id, due_at LIMIT 1)
			UNION ALL
			SELECT later.webhook_id, later.due_at FROM step, LATERAL (
				SELECT webhook_id, due_at FROM medilab.queue
				WHERE node IS NULL AND webhook_id > step.lane ORDER BY webhook_id, due_at LIMIT 1) later
		)
		SELECT lane, extract(epoch FROM now() - due)::float8 FROM step WHERE due < now()`)
	var oldest, age float64
	var id domain.WebhookID
	_, err := pgx.ForEachRow(rows, []any{&id, &age}, func() error {
		if w, known := directory.Webhook(id); !known || w.Active {
			oldest = max(oldest, age)
		}
		return nil
	})
	return time.Duration(oldest * float64(time.Second)), eventstore.Doing("read the queue's age", err)
}

// WaitingOf implements commands.Queue.
func (q Queue) WaitingOf(ctx context.Context, events []domain.EventID, dispatched []domain.DeliveryID) ([]domain.DeliveryID, error) {
	streams := make([]string, len(dispatched))
	for i, id := range dispatched {
		streams[i] = id.Stream()
	}
	rows, _ := q.Pool.Query(ctx, `
		SELECT delivery_id FROM medilab.pending WHERE event_id = ANY($1) AND NOT batch
		UNION ALL SELECT delivery_id FROM medilab.batch_members WHERE event_id = ANY($1)
		UNION ALL SELECT right(stream, 36)::uuid FROM medilab.events AS e WHERE stream = ANY($2) AND version = 1 AND type = $3
			AND NOT EXISTS (SELECT FROM medilab.events AS later WHERE later.stream = e.stream AND later.version = 2)`,
		events, streams, domain.DeliveryJoinedBatch{}.ChangeType())
	waiting, err := pgx.CollectRows(rows, pgx.RowTo[domain.DeliveryID])
	return waiting, eventstore.Doing("look into the queue", err)
}

// streamID returns the id at the end of the name of a stream of ours.
func streamID(stream string) uuid.UUID {
	_, id, err := domain.ParseStream(stream)
	if err != nil {
		panic("saga: " + err.Error())
	}
	return id
}
