package saga

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// Deliveries of one line are sent one after another. Only the one whose turn it is can be
// claimed: the others have node 0, which no process has. Turns are given in the transactions that append
// ends, new deliveries and retries, so that they are in the order of the log, whichever
// node appends and whichever claims.

// byKeySQL makes the statements behind it go by keys, whatever was known of the tables
// when they were planned.
const byKeySQL = `SELECT set_config('enable_seqscan', 'off', true)`

// insertOrderedSQL queues deliveries at the ends of their lines, those that have the turn at once
// for their nodes, and returns the others. n is the number of the event within the batch of $9
// events; 0: it is in the log already.
const insertOrderedSQL = `
WITH queued AS (
	INSERT INTO medilab.queue (delivery_id, webhook_id, event_id, size, attempt, retries, version, due_at, batch, line, position, node)
	SELECT r.d, r.w, r.e, r.s, 1, 0, r.v, clock_timestamp(), r.v > 0, r.l, r.p,
		CASE WHEN row_number() OVER (PARTITION BY r.w, r.l ORDER BY r.p) > 1
			OR (SELECT true FROM medilab.queue WHERE webhook_id = r.w AND line = r.l AND node IS DISTINCT FROM 0 LIMIT 1) THEN 0 ELSE nullif(r.node, 0) END
	FROM (
		SELECT u.*, CASE WHEN u.n > 0 THEN h.position - $9::bigint + u.n ELSE (
			SELECT position FROM medilab.events WHERE stream = 'event-' || u.e::text AND version = 1) END AS p
		FROM medilab.log_head AS h, unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::bigint[], $6::bigint[], $7::int[], $8::bigint[])
			AS u (d, w, e, s, v, l, n, node)
	) AS r
	RETURNING delivery_id, node
) SELECT delivery_id FROM queued WHERE node = 0`

// lockTurnsSQL locks what can be claimed of the lines of the deliveries $1, so that no claim
// takes it before the end of the transaction.
const lockTurnsSQL = `
SELECT t.delivery_id FROM (SELECT DISTINCT webhook_id, line FROM medilab.queue WHERE delivery_id = ANY($1::uuid[]) AND line IS NOT NULL) AS l
CROSS JOIN LATERAL (
	SELECT delivery_id FROM medilab.queue WHERE webhook_id = l.webhook_id AND line = l.line AND node IS DISTINCT FROM 0 FOR UPDATE
) AS t`

// giveTurnsSQL lets the lines of the deliveries $1, of which $2 have ended, go on: with
// the one that is claimed, if one is, else with the first. A low-water mark may be beyond
// the time at which that one was due.
const giveTurnsSQL = `
WITH lines AS (
	SELECT DISTINCT webhook_id, line FROM medilab.queue WHERE delivery_id = ANY($1::uuid[]) AND line IS NOT NULL
), candidates AS (
	SELECT c.delivery_id, c.node, row_number() OVER (
		PARTITION BY l.webhook_id, l.line ORDER BY coalesce(c.node, 0) > 0 DESC, c.position, c.batch) = 1 AS turn
	FROM lines AS l CROSS JOIN LATERAL (
		(SELECT delivery_id, position, node, batch FROM medilab.queue
			WHERE webhook_id = l.webhook_id AND line = l.line AND node IS DISTINCT FROM 0 AND delivery_id <> ALL($2::uuid[]))
		UNION ALL
		(SELECT delivery_id, position, node, batch FROM medilab.queue
			WHERE webhook_id = l.webhook_id AND line = l.line AND node = 0 AND delivery_id <> ALL($2) ORDER BY webhook_id, line, position LIMIT 2)
	) AS c
)
UPDATE medilab.queue SET node = CASE WHEN node IS NULL THEN 0 END,
	due_at = CASE WHEN node IS NULL THEN due_at ELSE greatest(due_at, clock_timestamp()) END
WHERE delivery_id = ANY(ARRAY(SELECT delivery_id FROM candidates WHERE turn AND node = 0 OR NOT turn AND node IS NULL))
	AND (node = 0 OR node IS NULL)
RETURNING webhook_id`

// orderedRows is what a batch of events changes in lines.
type orderedRows struct {
	lanes   *lanes        // nil: this process claims nothing
	events  int           // of the batch
	queued  []deliveryRow // at the ends of lines
	blocked []deliveryRow // that gave up and hold up their lines
	touched [][16]byte    // deliveries whose lines may go on, or that come in between
	between bool          // some come in between
	opened  []domain.WebhookID
}

// touch notes a delivery that may end its turn.
func (o *orderedRows) touch(id [16]byte, ordered bool) {
	if ordered {
		o.touched = append(o.touched, id)
	}
}

// insert returns the statements that queue deliveries.
func (o *orderedRows) insert() []eventstore.Statement {
	r := o.queued
	if len(r) == 0 && len(o.touched) == 0 {
		return nil
	}
	out := []eventstore.Statement{{SQL: byKeySQL}}
	if len(r) > 0 {
		out = append(out, eventstore.Statement{SQL: insertOrderedSQL, Args: append(values(r, ids, webhooks, events, sizes, versions, lines, places, claimants), o.events), Rows: o.told((*lanes).behind)})
	}
	return out
}

// turns returns the statements that let lines go on, before the ended deliveries leave.
func (o *orderedRows) turns(ended [][16]byte) (out []eventstore.Statement) {
	if r := o.blocked; len(r) > 0 {
		out = append(out, eventstore.Statement{SQL: `UPDATE medilab.queue AS q SET version = r.version, attempt = greatest(r.attempt, q.attempt), due_at = 'infinity', node = NULL
			FROM unnest($1::uuid[], $2::bigint[], $3::int[]) AS r (id, version, attempt) WHERE q.delivery_id = r.id AND q.delivery_id = ANY($1)`,
			Args: values(r, ids, versions, attempts)})
	}
	if len(o.touched) == 0 {
		return out
	}
	if o.between {
		out = append(out, eventstore.Statement{SQL: lockTurnsSQL, Args: []any{o.touched}})
	}
	if ended == nil {
		ended = [][16]byte{} // not null, which nothing differs from
	}
	return append(out, eventstore.Statement{SQL: giveTurnsSQL, Args: []any{o.touched, ended}, Rows: o.told((*lanes).turned)})
}

// told returns a function that passes the ids a statement returns to the lanes.
func (o *orderedRows) told(lanes func(*lanes, [][16]byte)) func(pgx.Rows) error {
	if o.lanes == nil {
		return nil
	}
	return func(rows pgx.Rows) error {
		ids, err := pgx.CollectRows(rows, pgx.RowTo[[16]byte])
		lanes(o.lanes, ids)
		return err
	}
}

// giveTurns lets the lines of released deliveries go on with their first, which may be
// another that was asked for since.
func giveTurns(ctx context.Context, pool *pgxpool.Pool, released []*delivery) error {
	o := orderedRows{between: true}
	for _, d := range released {
		o.touch(d.id, d.line != domain.NoLine)
	}
	if len(o.touched) == 0 {
		return nil
	}
	var batch pgx.Batch
	// An append that ends a delivery passes on the turn of its line, too. The lock keeps the two apart,
	// as both lock several rows of a line.
	batch.Queue(`SELECT FROM medilab.log_head FOR UPDATE`)
	for _, s := range append(o.insert(), o.turns(nil)...) {
		batch.Queue(s.SQL, s.Args...)
	}
	return eventstore.Doing("give the turns of released deliveries", pool.SendBatch(ctx, &batch).Close())
}

// WaitingBehind implements commands.Queue.
func (q Queue) WaitingBehind(ctx context.Context, deliveries []domain.DeliveryID) (map[domain.DeliveryID]domain.DeliveryID, error) {
	rows, _ := q.Pool.Query(ctx, `
		SELECT q.delivery_id, before.delivery_id FROM medilab.queue AS q CROSS JOIN LATERAL (
			(SELECT delivery_id, false AS turn FROM medilab.queue WHERE webhook_id = q.webhook_id AND line = q.line AND node = 0 AND position < q.position
				ORDER BY webhook_id DESC, line DESC, position DESC LIMIT 1)
			UNION ALL -- the one that has the turn, wherever it stands
			(SELECT delivery_id, true FROM medilab.queue WHERE webhook_id = q.webhook_id AND line = q.line AND node IS DISTINCT FROM 0)
			ORDER BY turn LIMIT 1) AS before
		WHERE q.delivery_id = ANY($1) AND q.line IS NOT NULL AND q.node = 0`, deliveries)
	behind, err := eventstore.CollectMap[domain.DeliveryID, domain.DeliveryID](rows)
	return behind, eventstore.Doing("look for what deliveries wait behind", err)
}

// HashLines hashes the lines of what waits, which older versions kept as they decided them.
// It is done once, before anything else is queued.
func HashLines(ctx context.Context, tx pgx.Tx, hash func([]byte) []byte) error {
	for _, table := range []string{"queue", "batch_members"} {
		rows, _ := tx.Query(ctx, `SELECT DISTINCT line FROM medilab.`+table+` WHERE line IS NOT NULL`)
		were, err := pgx.CollectRows(rows, pgx.RowTo[domain.Line])
		if err != nil {
			return err
		}
		are := make([]domain.Line, len(were))
		for i, line := range were {
			are[i] = line.Hashed(hash)
		}
		if _, err := tx.Exec(ctx, `UPDATE medilab.`+table+` AS t SET line = h.hashed
			FROM unnest($1::bigint[], $2::bigint[]) AS h (was, hashed) WHERE t.line = h.was`, were, are); err != nil {
			return err
		}
	}
	return nil
}

// verifyLines reports lines in which not exactly one delivery has the turn, deliveries that
// do not stand where the log has them, and numbers with gaps or in another order.
func verifyLines(ctx context.Context, tx pgx.Tx, report func(stream, text string)) error {
	for _, check := range []struct{ sql, text string }{
		{`SELECT min(delivery_id::text)::uuid FROM medilab.queue WHERE line IS NOT NULL GROUP BY webhook_id, line
			HAVING count(*) FILTER (WHERE node IS DISTINCT FROM 0) <> 1`, "is in a line in which not exactly one delivery has the turn"},
		{`SELECT q.delivery_id FROM medilab.queue AS q CROSS JOIN LATERAL (
				SELECT position, data FROM medilab.events WHERE stream = 'event-' || q.event_id::text AND version = 1 LIMIT 1) AS e
			WHERE q.line IS NOT NULL AND (CASE WHEN q.batch THEN q.position < e.position ELSE q.position <> e.position END OR q.version = 0
				AND e.position > (SELECT coalesce(max(position), 0) FROM medilab.unencrypted) -- whose lines were hashed since
				AND position(convert_to('"line":' || q.line::text, 'UTF8') IN e.data) = 0)`, "is in another line or place than the log says"},
		{`SELECT delivery_id FROM (SELECT delivery_id, number, row_number() OVER (PARTITION BY webhook_id, since ORDER BY position) AS n
			FROM medilab.sequence) AS s WHERE number <> n`, "has another number than the log gives it"},
	} {
		rows, _ := tx.Query(ctx, check.sql)
		var id domain.DeliveryID
		if _, err := pgx.ForEachRow(rows, []any{&id}, func() error {
			report(id.Stream(), id.Stream()+" "+check.text)
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}
