package saga

import (
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// deliveryRow is what a change of one delivery writes into its row.
type deliveryRow struct {
	id      uuid.UUID
	webhook domain.WebhookID
	event   domain.EventID
	size    int
	node    int64 // who makes the first attempt; 0: nobody yet
	attempt int   // the next
	version int64
	due     time.Time
	replay  domain.ReplayID // that asked for it; zero: none
	most    int             // of a batch that it waits for
	seconds int             // that it waits
	line    domain.Line
	n       int   // of its event in the batch of events, from 1
	since   int64 // the version from which its webhook numbers deliveries; 0: it does not
}

// queueRows gathers what a batch of events changes, for one statement a kind.
type queueRows struct {
	queued, claimed, waiting, batched  []deliveryRow
	failed, interrupted, retried, late []deliveryRow
	joined, ended                      [][16]byte
	ordered                            orderedRows
	numbered                           []deliveryRow
	unkept                             [][16]byte    // events that may be archived, as no row keeps them
	untaken                            [][16]byte    // deliveries that no node has, as their ends say
	cut                                []deliveryRow // cancelled, while a node may have them
	leftBatches                        [][16]byte    // batches that members leave
}

func (q *queueRows) dispatch(dispatched domain.EventDispatched, n int, claims *lanes) {
	for _, d := range dispatched.Deliveries {
		row := deliveryRow{id: uuid.UUID(d.DeliveryID), webhook: d.WebhookID, event: dispatched.EventID, size: dispatched.Size, most: d.BatchMax, seconds: d.BatchWait,
			line: d.Line, n: n, since: d.NumberedSince}
		if row.since != 0 {
			q.numbered = append(q.numbered, row)
		}
		if d.BatchWait > 0 {
			q.waiting = append(q.waiting, row)
			continue
		}
		shared := false
		if claims != nil {
			row.node, shared = claims.claimNew(d, dispatched.Size)
		}
		switch {
		case shared:
			q.claimed = append(q.claimed, row)
		case d.Line != domain.NoLine:
			q.ordered.queued = append(q.ordered.queued, row)
		default:
			q.queued = append(q.queued, row)
		}
	}
}

func (q *queueRows) batch(row deliveryRow) {
	if row.line != domain.NoLine {
		q.ordered.queued = append(q.ordered.queued, row)
	} else {
		q.batched = append(q.batched, row)
	}
}

// free returns the webhooks of deliveries that are due and nobody's, or may be.
func (q *queueRows) free() (webhooks []string) {
	for _, rows := range [][]deliveryRow{q.queued, q.batched, q.retried, q.ordered.queued} {
		for i := range rows {
			if rows[i].node == 0 {
				webhooks = append(webhooks, rows[i].webhook.String())
			}
		}
	}
	for _, id := range q.ordered.opened {
		webhooks = append(webhooks, id.String())
	}
	return webhooks
}

// The columns of rows.
var (
	ids       = column(func(r *deliveryRow) [16]byte { return r.id })
	webhooks  = column(func(r *deliveryRow) [16]byte { return r.webhook })
	events    = column(func(r *deliveryRow) [16]byte { return r.event })
	replays   = column(func(r *deliveryRow) [16]byte { return r.replay })
	sizes     = column(func(r *deliveryRow) int32 { return int32(r.size) })
	attempts  = column(func(r *deliveryRow) int32 { return int32(r.attempt) })
	mosts     = column(func(r *deliveryRow) int32 { return int32(r.most) })
	waits     = column(func(r *deliveryRow) int32 { return int32(r.seconds) })
	places    = column(func(r *deliveryRow) int32 { return int32(r.n) })
	claimants = column(func(r *deliveryRow) int64 { return r.node })
	versions  = column(func(r *deliveryRow) int64 { return r.version })
	sinces    = column(func(r *deliveryRow) int64 { return r.since })
	lines     = column(func(r *deliveryRow) int64 { return int64(r.line) })
	dues      = column(func(r *deliveryRow) time.Time { return r.due })
)

func column[T any](of func(*deliveryRow) T) func([]deliveryRow) any {
	return func(rows []deliveryRow) any {
		values := make([]T, len(rows))
		for i := range rows {
			values[i] = of(&rows[i])
		}
		return values
	}
}

// claimant returns the node that all rows have, in place of a column.
func claimant(rows []deliveryRow) any { return rows[0].node }

// none returns null, in place of a column.
func none([]deliveryRow) any { return nil }

// values returns the columns of the rows.
func values(rows []deliveryRow, columns ...func([]deliveryRow) any) []any {
	args := make([]any, len(columns))
	for i, column := range columns {
		args[i] = column(rows)
	}
	return args
}

const queuedSQL = `INSERT INTO medilab.queue (delivery_id, webhook_id, event_id, size, attempt, retries, version, due_at, node)
	SELECT d, w, e, s, 1, 0, 0, clock_timestamp(), nullif(n, 0)
	FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::bigint[]) AS r (d, w, e, s, n)`

// waitingSQL lets deliveries wait for others of their batch. An event's turn is its position in the log,
// and it waits from when it was recorded.
const waitingSQL = `INSERT INTO medilab.batch_members (delivery_id, webhook_id, position, event_id, size, max_events, due_at, line)
	SELECT r.d, r.w, e.position, r.e, r.s, r.m, e.recorded_at + make_interval(secs => r.wait), nullif(r.l, 0)
	FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::int[], $6::int[], $7::bigint[]) AS r (d, w, e, s, m, wait, l)
	CROSS JOIN LATERAL (SELECT position, recorded_at FROM medilab.events WHERE stream = 'event-' || r.e::text AND version = 1 LIMIT 1) AS e`

const joinedSQL = `DELETE FROM medilab.batch_members WHERE delivery_id = ANY($1::uuid[])`

const batchedSQL = `INSERT INTO medilab.queue (delivery_id, webhook_id, event_id, size, attempt, retries, version, due_at, batch)
	SELECT d, w, e, s, 1, 0, v, clock_timestamp(), true
	FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::bigint[]) AS r (d, w, e, s, v)`

// againSQL makes deliveries free again for their next attempts: those that are due at a time are
// retries. Those that shared a row of claims get rows of their own.
const againSQL = `INSERT INTO medilab.queue AS q (delivery_id, webhook_id, event_id, size, attempt, retries, version, due_at)
	SELECT r.id, r.webhook, r.event, coalesce((SELECT octet_length(data) FROM medilab.events WHERE stream = 'event-' || r.event::text AND version = 1), 0),
		r.attempt, (r.due IS NOT NULL)::int, r.version, coalesce(r.due, clock_timestamp())
	FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::bigint[], $6::timestamptz[]) AS r (id, webhook, event, attempt, version, due)
	ON CONFLICT (delivery_id) DO UPDATE SET attempt = excluded.attempt, retries = q.retries + excluded.retries, version = excluded.version, due_at = excluded.due_at, node = NULL`

// behindMembersSQL puts batches that members leave behind these in their lines: what is left of one stands
// where the last member does.
const behindMembersSQL = `UPDATE medilab.queue AS q SET position = e.position FROM medilab.events AS b, medilab.events AS e
	WHERE q.delivery_id = ANY($1::uuid[]) AND q.line IS NOT NULL AND b.stream = 'delivery-' || q.delivery_id::text AND b.version = 1
	AND e.stream = 'event-' || (convert_from(b.data, 'UTF8')::json -> 'members' -> -1 ->> 'event_id') AND e.version = 1`

// untakenSQL undoes the append with a bucket that has no width, which is a conflict, if a node has
// claimed one of the deliveries since that was decided. No claim takes one after it. What shares a
// row of claims was never free.
const untakenSQL = `SELECT width_bucket(0, 0, CASE WHEN node > 0 THEN 0 ELSE 1 END, 1) FROM medilab.queue WHERE delivery_id = ANY($1::uuid[]) FOR UPDATE`

// cutShortSQL notes the cancelled deliveries that a node has, by its row of the queue or of claims.
const cutShortSQL = `INSERT INTO medilab.cut_short (delivery_id, node, webhook_id, event_id, attempt, batch)
	SELECT r.id, coalesce(q.node, c.node), r.webhook, r.event, coalesce(q.attempt, 1), coalesce(q.batch, false)
	FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[]) AS r (id, webhook, event, version)
	LEFT JOIN LATERAL (SELECT node, attempt, batch FROM medilab.queue WHERE delivery_id = r.id LIMIT 1) AS q ON true
	LEFT JOIN LATERAL (SELECT node FROM medilab.claims WHERE q.attempt IS NULL AND r.version = 1 AND r.id = ANY(deliveries) LIMIT 1) AS c ON true
	WHERE coalesce(q.node, c.node) > 0
	ON CONFLICT (delivery_id) DO UPDATE SET node = excluded.node, attempt = excluded.attempt`

// retriedSQL queues deliveries that somebody asked for. The stream of a batch says in its beginning what it
// is. What somebody claimed and has not tried stays his, and in no line, as it is.
const retriedSQL = `INSERT INTO medilab.queue AS q (delivery_id, webhook_id, event_id, size, attempt, retries, version, due_at, batch, replay, line, position, node)
	SELECT d, w, e, s, a, 0, v, clock_timestamp(),
		coalesce((SELECT type = 'delivery.batched' FROM medilab.events WHERE stream = 'delivery-' || d::text AND version = 1), false),
		nullif(p, '00000000-0000-0000-0000-000000000000'),
		CASE WHEN c.node IS NULL THEN nullif(l, 0) END,
		CASE WHEN c.node IS NULL AND l > 0 THEN (SELECT position FROM medilab.events WHERE stream = 'event-' || e::text AND version = 1) END,
		coalesce(c.node, CASE WHEN l > 0 THEN 0 END)
	FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::int[], $6::bigint[], $7::uuid[], $8::bigint[]) AS r (d, w, e, s, a, v, p, l)
	LEFT JOIN LATERAL (
		SELECT node FROM medilab.claims WHERE v = 1 AND p = '00000000-0000-0000-0000-000000000000' AND d = ANY(deliveries) LIMIT 1) AS c ON true
	ON CONFLICT (delivery_id) DO UPDATE SET attempt = greatest(q.attempt, excluded.attempt), retries = 0, version = excluded.version,
		due_at = clock_timestamp(), replay = excluded.replay`

const (
	lateSQL = `UPDATE medilab.queue AS q SET version = r.version FROM unnest($1::uuid[], $2::bigint[]) AS r (id, version)
		WHERE q.delivery_id = r.id AND q.delivery_id = ANY($1)`
	lateCutSQL = `DELETE FROM medilab.cut_short AS c USING unnest($1::uuid[], $2::int[]) AS r (id, attempt)
		WHERE c.delivery_id = r.id AND c.delivery_id = ANY($1) AND c.attempt = r.attempt`
)

const endedSQL = `DELETE FROM medilab.queue WHERE delivery_id = ANY($1::uuid[])`

// statements are in an order in which several changes of one delivery in one batch end
// as the last of them says: no batch holds two appends to a stream, so at most an insert
// comes before another change.
//
// A change names its rows twice, by the join and by ANY: the array alone makes the
// planner go by the key, whatever it knows of the table's size.
func (q *queueRows) statements() (out []eventstore.Statement) {
	of := func(ids [][16]byte, sql string) {
		if len(ids) > 0 {
			out = append(out, eventstore.Statement{SQL: sql, Args: []any{ids}})
		}
	}
	add := func(rows []deliveryRow, sql string, columns ...func([]deliveryRow) any) {
		if len(rows) > 0 {
			out = append(out, eventstore.Statement{SQL: sql, Args: values(rows, columns...)})
		}
	}
	of(q.unkept, `SELECT medilab.refuse_archived($1)`)
	of(q.untaken, untakenSQL)
	add(q.cut, cutShortSQL, ids, webhooks, events, versions)
	add(q.queued, queuedSQL, ids, webhooks, events, sizes, claimants)
	add(q.claimed, claimedSQL, claimant, ids, webhooks, events, sizes)
	add(q.waiting, waitingSQL, ids, webhooks, events, sizes, mosts, waits, lines)
	out = append(append(out, q.ordered.insert()...), number(q.numbered, q.ordered.events, q.ordered.lanes)...)
	of(q.joined, joinedSQL)
	add(q.batched, batchedSQL, ids, webhooks, events, sizes, versions)
	add(q.failed, againSQL, ids, webhooks, events, attempts, versions, dues)
	add(q.interrupted, againSQL, ids, webhooks, events, attempts, versions, none)
	of(q.leftBatches, behindMembersSQL)
	add(q.retried, retriedSQL, ids, webhooks, events, sizes, attempts, versions, replays, lines)
	add(q.late, lateSQL, ids, versions)
	add(q.late, lateCutSQL, ids, attempts)
	out = append(out, q.ordered.turns(q.ended)...)
	of(q.ended, endedSQL)
	return out
}
