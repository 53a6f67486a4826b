package saga

import (
	"context"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// backlogSQL lists what has not been tried, the newest event first: what is free to claim,
// what some node has, which is little, what waits for its turn, what waits for a batch, and
// the members of batches, webhook by webhook. A row that was not tried is due since its event
// was appended, so the claims' indexes have the order of events, and so do the batches of
// one webhook. The event is looked up in that order, until there are enough.
const backlogSQL = `
WITH RECURSIVE free AS (
	SELECT q.event_id, q.webhook_id, q.due_at, e.position FROM (
		SELECT event_id, webhook_id, due_at FROM medilab.queue WHERE node IS NULL AND version = 0 AND {due} DESC
	) AS q CROSS JOIN LATERAL (
		SELECT position FROM medilab.events WHERE stream = 'event-' || q.event_id::text AND version = 1 LIMIT 1
	) AS e WHERE e.position < $2 LIMIT $4
), claimed AS (
	SELECT q.event_id, q.webhook_id, q.due_at, e.position FROM medilab.pending AS q CROSS JOIN LATERAL (
		SELECT position FROM medilab.events WHERE stream = 'event-' || q.event_id::text AND version = 1 LIMIT 1
	) AS e WHERE q.node > 0 AND q.version = 0 AND ($1::uuid IS NULL OR q.webhook_id = $1) AND e.position < $2
), held AS (
	SELECT event_id, webhook_id, due_at, position FROM medilab.queue
	WHERE line IS NOT NULL AND node = 0 AND version = 0 AND ($1::uuid IS NULL OR webhook_id = $1) AND position < $2
	ORDER BY position DESC LIMIT $4
), line (webhook_id) AS (
	(SELECT webhook_id FROM medilab.batch_members WHERE $1::uuid IS NULL OR webhook_id = $1 ORDER BY webhook_id LIMIT 1)
	UNION ALL
	SELECT (SELECT webhook_id FROM medilab.batch_members WHERE webhook_id > line.webhook_id ORDER BY webhook_id LIMIT 1)
	FROM line WHERE line.webhook_id IS NOT NULL AND $1::uuid IS NULL
), waiting AS (
	SELECT m.* FROM line CROSS JOIN LATERAL (
		SELECT event_id, webhook_id, due_at, position FROM medilab.batch_members
		WHERE webhook_id = line.webhook_id AND position < $2 ORDER BY position DESC LIMIT $4
	) AS m
), sender (webhook_id) AS (
	(SELECT webhook_id FROM medilab.queue WHERE batch AND version = 1 AND ($1::uuid IS NULL OR webhook_id = $1) ORDER BY webhook_id LIMIT 1)
	UNION ALL
	SELECT (SELECT webhook_id FROM medilab.queue WHERE batch AND version = 1 AND webhook_id > sender.webhook_id ORDER BY webhook_id LIMIT 1)
	FROM sender WHERE sender.webhook_id IS NOT NULL AND $1::uuid IS NULL
), batched AS (
	SELECT b.* FROM sender CROSS JOIN LATERAL (
		SELECT m.event_id, q.webhook_id, q.due_at, e.position FROM (
			SELECT delivery_id, event_id, webhook_id, due_at FROM medilab.queue
			WHERE batch AND version = 1 AND webhook_id = sender.webhook_id ORDER BY webhook_id DESC, due_at DESC
		) AS q CROSS JOIN LATERAL (
			SELECT position FROM medilab.events WHERE stream = 'event-' || q.event_id::text AND version = 1 LIMIT 1
		) AS first CROSS JOIN LATERAL (
			SELECT (member->>'event_id')::uuid AS event_id FROM medilab.events AS made,
				json_array_elements(convert_from(made.data, 'UTF8')::json->'members') WITH ORDINALITY AS m (member, n)
			WHERE made.stream = 'delivery-' || q.delivery_id::text AND made.version = 1 ORDER BY n DESC
		) AS m CROSS JOIN LATERAL (
			SELECT position FROM medilab.events WHERE stream = 'event-' || m.event_id::text AND version = 1 LIMIT 1
		) AS e WHERE first.position < $2 AND e.position < $2 LIMIT $4
	) AS b
)
SELECT event_id, webhook_id, due_at FROM (
	SELECT * FROM free UNION ALL SELECT * FROM claimed UNION ALL SELECT * FROM held UNION ALL SELECT * FROM waiting UNION ALL SELECT * FROM batched
) AS untried ORDER BY position DESC LIMIT $4`

// Backlog implements projections.Backlog.
func (q Queue) Backlog(ctx context.Context, webhook domain.WebhookID, below eventstore.Position, due time.Time, limit int) ([]domain.Delivery, error) {
	// See claimSQL for why one lane is a range of pairs.
	lane, of := "due_at <= $3 ORDER BY due_at", &webhook
	if webhook == (domain.WebhookID{}) {
		of = nil
	} else {
		lane = "(webhook_id, due_at) >= ($1::uuid, '-infinity') AND (webhook_id, due_at) <= ($1::uuid, $3) ORDER BY webhook_id DESC, due_at"
	}
	rows, _ := q.Pool.Query(ctx, strings.Replace(backlogSQL, "{due}", lane, 1), of, below, due, limit)
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (d domain.Delivery, err error) {
		d.State = domain.DeliveryPending
		err = row.Scan(&d.EventID, &d.WebhookID, &d.NextAttemptAt)
		return d, err
	})
	return list, eventstore.Doing("look into the queue", err)
}
