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
			if c.Was == domain.DeliveryFailed {
				rows.revived = append(rows.revived, c.EventID)
			}
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
			rows.revived = append(rows.revived, c.EventID)
			rows.retried = append(rows.retried, deliveryRow{id: streamID(e.Stream), webhook: c.WebhookID, event: c.EventID, size: c.Size, attempt: c.Attempt, version: e.Version, line: c.Line, replay: c.ReplayID})
			rows.ordered.touch(streamID(e.Stream), c.Line != domain.NoLine)
			rows.ordered.between = rows.ordered.between || c.Line != domain.NoLine
			rows.joined = append(rows.joined, streamID(e.Stream)) // it goes at once, so by itself
		case domain.DeliveryRetryCancelled:
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
			rows.revived = append(rows.revived, c.EventID)
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
	revived                            [][16]byte    // events with deliveries that may have ended
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

func column[T any](of func(*deliveryRow) T) func([]deliveryRow) []T {
	return func(rows []deliveryRow) []T {
		values := make([]T, len(rows))
		for i := range rows {
			values[i] = of(&rows[i])
		}
		return values
	}
}

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

// statements are in an order in which several changes of one delivery in one batch end
// as the last of them says: no batch holds two appends to a stream, so at most an insert
// comes before another change.
//
// A change names its rows twice, by the join and by ANY: the array alone makes the
// planner go by the key, whatever it knows of the table's size.
func (q *queueRows) statements() []eventstore.Statement {
	var out []eventstore.Statement
	add := func(sql string, args ...any) { out = append(out, eventstore.Statement{SQL: sql, Args: args}) }
	if len(q.revived) > 0 {
		add(`SELECT medilab.refuse_archived($1)`, q.revived)
	}
	if len(q.untaken) > 0 {
		add(untakenSQL, q.untaken)
	}
	if r := q.cut; len(r) > 0 {
		add(cutShortSQL, ids(r), webhooks(r), events(r), versions(r))
	}
	if r := q.queued; len(r) > 0 {
		add(`INSERT INTO medilab.queue (delivery_id, webhook_id, event_id, size, attempt, retries, version, due_at, node)
			SELECT d, w, e, s, 1, 0, 0, clock_timestamp(), nullif(n, 0)
			FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::bigint[]) AS r (d, w, e, s, n)`,
			ids(r), webhooks(r), events(r), sizes(r), claimants(r))
	}
	if r := q.claimed; len(r) > 0 {
		out = append(out, insertClaims(r))
	}
	if r := q.waiting; len(r) > 0 {
		// An event's turn is its position in the log, and it waits from when it was recorded.
		add(`INSERT INTO medilab.batch_members (delivery_id, webhook_id, position, event_id, size, max_events, due_at, line)
			SELECT r.d, r.w, e.position, r.e, r.s, r.m, e.recorded_at + make_interval(secs => r.wait), nullif(r.l, 0)
			FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::int[], $6::int[], $7::bigint[]) AS r (d, w, e, s, m, wait, l)
			CROSS JOIN LATERAL (SELECT position, recorded_at FROM medilab.events
				WHERE stream = 'event-' || r.e::text AND version = 1 LIMIT 1) AS e`,
			ids(r), webhooks(r), events(r), sizes(r), mosts(r), waits(r), lines(r))
	}
	out = append(append(out, q.ordered.insert()...), number(q.numbered, q.ordered.events, q.ordered.lanes)...)
	if len(q.joined) > 0 {
		add(`DELETE FROM medilab.batch_members WHERE delivery_id = ANY($1::uuid[])`, q.joined)
	}
	if r := q.batched; len(r) > 0 {
		add(`INSERT INTO medilab.queue (delivery_id, webhook_id, event_id, size, attempt, retries, version, due_at, batch)
			SELECT d, w, e, s, 1, 0, v, clock_timestamp(), true
			FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::bigint[]) AS r (d, w, e, s, v)`,
			ids(r), webhooks(r), events(r), sizes(r), versions(r))
	}
	if r := q.failed; len(r) > 0 {
		add(againSQL, ids(r), webhooks(r), events(r), attempts(r), versions(r), dues(r))
	}
	if r := q.interrupted; len(r) > 0 {
		add(againSQL, ids(r), webhooks(r), events(r), attempts(r), versions(r), nil)
	}
	if len(q.leftBatches) > 0 {
		add(behindMembersSQL, q.leftBatches)
	}
	if r := q.retried; len(r) > 0 {
		// The stream of a batch says in its beginning what it is. What somebody claimed and has not
		// tried stays his, and in no line, as it is.
		add(`INSERT INTO medilab.queue AS q (delivery_id, webhook_id, event_id, size, attempt, retries, version, due_at, batch, replay, line, position, node)
			SELECT d, w, e, s, a, 0, v, clock_timestamp(), coalesce((SELECT type = 'delivery.batched'
				FROM medilab.events WHERE stream = 'delivery-' || d::text AND version = 1), false), nullif(p, '00000000-0000-0000-0000-000000000000'),
				CASE WHEN c.node IS NULL THEN nullif(l, 0) END,
				CASE WHEN c.node IS NULL AND l > 0 THEN (SELECT position FROM medilab.events WHERE stream = 'event-' || e::text AND version = 1) END,
				coalesce(c.node, CASE WHEN l > 0 THEN 0 END)
			FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::int[], $6::bigint[], $7::uuid[], $8::bigint[]) AS r (d, w, e, s, a, v, p, l)
			LEFT JOIN LATERAL (
				SELECT node FROM medilab.claims WHERE v = 1 AND p = '00000000-0000-0000-0000-000000000000' AND d = ANY(deliveries) LIMIT 1) AS c ON true
			ON CONFLICT (delivery_id) DO UPDATE SET attempt = greatest(q.attempt, excluded.attempt), retries = 0, version = excluded.version, due_at = clock_timestamp(), replay = excluded.replay`,
			ids(r), webhooks(r), events(r), sizes(r), attempts(r), versions(r), replays(r), lines(r))
	}
	if r := q.late; len(r) > 0 {
		add(`UPDATE medilab.queue AS q SET version = r.version FROM unnest($1::uuid[], $2::bigint[]) AS r (id, version)
			WHERE q.delivery_id = r.id AND q.delivery_id = ANY($1)`, ids(r), versions(r))
		add(`DELETE FROM medilab.cut_short AS c USING unnest($1::uuid[], $2::int[]) AS r (id, attempt)
			WHERE c.delivery_id = r.id AND c.delivery_id = ANY($1) AND c.attempt = r.attempt`, ids(r), attempts(r))
	}
	out = append(out, q.ordered.turns(q.ended)...)
	if len(q.ended) > 0 {
		add(`DELETE FROM medilab.queue WHERE delivery_id = ANY($1::uuid[])`, q.ended)
	}
	return out
}
