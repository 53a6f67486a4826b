package projections

import (
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// queueChanges gathers what a batch changes in the queue, for a statement a kind.
type queueChanges struct {
	inserted insertedRows // dispatched as their event was appended
	later    insertedRows // dispatched after it, by the reader
	waiting  struct {
		delivery, webhook, event [][16]byte
		size, most, seconds      []int32
	}
	left        [][16]byte // no longer waiting for others
	batched     []batchedRow
	ended       [][16]byte
	failed      []failedRow
	interrupted []interruptedRow
	retried     []retriedRow
	late        []lateRow
}

type batchedRow struct {
	id      uuid.UUID
	batch   domain.DeliveryBatched
	version int64
}

type insertedRows struct {
	delivery, webhook, event [][16]byte
	size                     []int32
	node                     []int64
}

type failedRow struct {
	id      uuid.UUID
	attempt int // the next
	version int64
	due     time.Time
}

type interruptedRow struct {
	id      uuid.UUID
	attempt int // the next
	version int64
}

type retriedRow struct {
	id      uuid.UUID
	request domain.DeliveryRetryRequested
	version int64
}

type lateRow struct {
	id      uuid.UUID
	version int64
}

func (in *insertedRows) add(event domain.EventID, d domain.Dispatch, size int, node int64) {
	in.delivery = append(in.delivery, d.DeliveryID)
	in.webhook = append(in.webhook, d.WebhookID)
	in.event = append(in.event, event)
	in.size = append(in.size, int32(size))
	in.node = append(in.node, node)
}

// insertSQL queues what an append dispatched; its end may narrow which of it.
const insertSQL = `INSERT INTO medilab.queue (delivery_id, webhook_id, event_id, size, attempt, retries, version, due_at, node)
	SELECT d, w, e, s, 1, 0, 0, clock_timestamp(), nullif(n, 0)
	FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::bigint[]) AS r (d, w, e, s, n)`

func (q *queueChanges) wait(event domain.EventID, d domain.Dispatch, size int) {
	in := &q.waiting
	in.delivery = append(in.delivery, d.DeliveryID)
	in.webhook = append(in.webhook, d.WebhookID)
	in.event = append(in.event, event)
	in.size = append(in.size, int32(size))
	in.most = append(in.most, int32(d.BatchMax))
	in.seconds = append(in.seconds, int32(d.BatchWait))
}

func (q *queueChanges) leave(stream string) { q.left = append(q.left, streamID(stream)) }

func (q *queueChanges) end(stream string) { q.ended = append(q.ended, streamID(stream)) }

// A change names its rows twice, by the join and by ANY: the array alone makes the
// planner go by the key, whatever it thinks of the table's size.
//
// statements are in an order in which several changes of one delivery in one
// batch end as the last of them says: no batch holds two appends to a stream, so
// at most an insert comes before another change.
func (q *queueChanges) statements() []eventstore.Statement {
	var out []eventstore.Statement
	add := func(sql string, args ...any) { out = append(out, eventstore.Statement{SQL: sql, Args: args}) }
	if in := &q.inserted; len(in.delivery) > 0 {
		add(insertSQL, in.delivery, in.webhook, in.event, in.size, in.node)
	}
	if in := &q.later; len(in.delivery) > 0 {
		// A replay may have asked for the event before it was dispatched: that
		// delivery is on its way, or made.
		add(insertSQL+` WHERE NOT EXISTS (SELECT FROM medilab.events WHERE stream = 'delivery-' || r.d::text AND version = 1)`,
			in.delivery, in.webhook, in.event, in.size, in.node)
	}
	if in := &q.waiting; len(in.delivery) > 0 {
		// An event's turn is its place in the log, so it waits from when it was
		// recorded, however late it was dispatched. One that a replay asked for
		// before it was dispatched waits no more.
		add(`INSERT INTO medilab.batch_members (delivery_id, webhook_id, position, event_id, size, max_events, due_at)
			SELECT r.d, r.w, e.position, r.e, r.s, r.m, e.recorded_at + make_interval(secs => r.wait)
			FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::int[], $6::int[]) AS r (d, w, e, s, m, wait)
			CROSS JOIN LATERAL (SELECT position, recorded_at FROM medilab.events
				WHERE stream = 'event-' || r.e::text AND version = 1 LIMIT 1) AS e
			WHERE (SELECT version FROM medilab.events WHERE stream = 'delivery-' || r.d::text AND version = 1) IS NULL`,
			in.delivery, in.webhook, in.event, in.size, in.most, in.seconds)
	}
	if len(q.left) > 0 {
		add(`DELETE FROM medilab.batch_members WHERE delivery_id = ANY($1::uuid[])`, q.left)
	}
	for _, r := range q.batched {
		add(`INSERT INTO medilab.queue (delivery_id, webhook_id, event_id, size, attempt, retries, version, due_at, batch)
			VALUES ($1, $2, $3, $4, 1, 0, $5, clock_timestamp(), true)`,
			r.id, uuid.UUID(r.batch.WebhookID), uuid.UUID(r.batch.Members[0].EventID), r.batch.Size, r.version)
	}
	if len(q.ended) > 0 {
		add(`DELETE FROM medilab.queue WHERE delivery_id = ANY($1::uuid[])`, q.ended)
	}
	if len(q.failed) > 0 {
		ids, attempts, versions := columnsOf(q.failed, func(r failedRow) (uuid.UUID, int, int64) { return r.id, r.attempt, r.version })
		due := make([]time.Time, len(q.failed))
		for i, r := range q.failed {
			due[i] = r.due
		}
		add(`UPDATE medilab.queue AS q SET attempt = r.attempt, retries = q.retries + 1, version = r.version, due_at = r.due, node = NULL
			FROM unnest($1::uuid[], $2::int[], $3::bigint[], $4::timestamptz[]) AS r (id, attempt, version, due)
			WHERE q.delivery_id = r.id AND q.delivery_id = ANY($1)`, ids, attempts, versions, due)
	}
	if len(q.interrupted) > 0 {
		ids, attempts, versions := columnsOf(q.interrupted, func(r interruptedRow) (uuid.UUID, int, int64) { return r.id, r.attempt, r.version })
		add(`UPDATE medilab.queue AS q SET attempt = r.attempt, version = r.version, due_at = clock_timestamp(), node = NULL
			FROM unnest($1::uuid[], $2::int[], $3::bigint[]) AS r (id, attempt, version)
			WHERE q.delivery_id = r.id AND q.delivery_id = ANY($1)`, ids, attempts, versions)
	}
	if len(q.retried) > 0 {
		ids, attempts, versions := columnsOf(q.retried, func(r retriedRow) (uuid.UUID, int, int64) { return r.id, r.request.Attempt, r.version })
		webhooks, events, sizes := make([][16]byte, len(ids)), make([][16]byte, len(ids)), make([]int32, len(ids))
		for i, r := range q.retried {
			webhooks[i], events[i], sizes[i] = r.request.WebhookID, r.request.EventID, int32(r.request.Size)
		}
		// The stream of a batch says in its beginning what it is.
		add(`INSERT INTO medilab.queue AS q (delivery_id, webhook_id, event_id, size, attempt, retries, version, due_at, batch)
			SELECT d, w, e, s, a, 0, v, clock_timestamp(), coalesce((SELECT type = 'delivery.batched'
				FROM medilab.events WHERE stream = 'delivery-' || d::text AND version = 1), false)
			FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::int[], $6::bigint[]) AS r (d, w, e, s, a, v)
			ON CONFLICT (delivery_id) DO UPDATE SET retries = 0, version = excluded.version, due_at = clock_timestamp()`,
			ids, webhooks, events, sizes, attempts, versions)
	}
	for _, r := range q.late {
		add(`UPDATE medilab.queue SET version = $2 WHERE delivery_id = $1`, r.id, r.version)
	}
	return out
}

func columnsOf[R any](rows []R, of func(R) (uuid.UUID, int, int64)) (ids [][16]byte, attempts []int32, versions []int64) {
	for _, r := range rows {
		id, attempt, version := of(r)
		ids = append(ids, id)
		attempts = append(attempts, int32(attempt))
		versions = append(versions, version)
	}
	return ids, attempts, versions
}
