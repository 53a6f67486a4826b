package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// emission is a row of the outbox.
type emission struct {
	seq           int64
	id            uuid.UUID
	eventType     string
	data          []byte
	correlationID string
	source        string
	emittedBy     string
	fromSource    bool   // emittedBy is the actor of a source, not a role
	imported      bool   // only recorded
	traceparent   string // as it was set: perhaps malformed
	tracestate    string // likewise
	emittedAt     time.Time
}

const (
	maxBatchBytes = 8 << 20 // one row is taken whatever its size
	// lookPart bounds the time spent on gaps, which may hold very many dead rows, to one part in
	// lookPart, unless a read is quick. One that leaves them out may find the last event of a
	// transaction before the first.
	lookPart  = 4
	quickRead = 10 * time.Millisecond
)

// reader reads the outbox on a connection of its own, whose plans always use the key: a plan made
// while the table was small would scan a large backlog for every batch. The plan is generic and
// made once: planning takes longer than execution.
type reader struct {
	pool   *pgxpool.Pool
	conn   *pgxpool.Conn
	gaps   gapTracker
	oldest int64 // the oldest transaction open at the end of the last read

	lookAt time.Time // when the gaps are to be looked into again
	idle   idleness
}

// idleness knows when nothing can show up in the outbox before the next number is taken.
type idleness struct {
	number  int64 // the last that was taken, as an earlier read found it
	until   int64 // the next transaction id after that
	settled bool  // every transaction that took a number up to that has ended, and its rows are read
}

// observe notes the result of a read that found no rows, or some. See gapTracker.observe.
func (i *idleness) observe(empty bool, number, next, oldest int64) {
	if !empty || number != i.number || i.until == 0 {
		*i = idleness{number: number, until: next}
	}
	i.settled = empty && i.until <= oldest
}

const numberSQL = `SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM medilab.outbox_seq_seq`

// isIdle reports whether nothing was emitted since all was read. It costs a fraction of a
// read.
func (r *reader) isIdle(ctx context.Context) bool {
	if !r.idle.settled || r.conn == nil {
		return false
	}
	var number int64
	err := r.conn.QueryRow(ctx, numberSQL).Scan(&number)
	return err == nil && number == r.idle.number // else a read says what is wrong
}

// restart forgets what was seen: another node may have relayed since, or the database is another.
func (r *reader) restart() {
	r.gaps, r.oldest, r.lookAt, r.idle = gapTracker{}, 0, time.Time{}, idleness{}
}

// close closes the connection.
func (r *reader) close(ctx context.Context) error {
	if r.conn == nil {
		return nil
	}
	conn := r.conn
	r.conn, r.idle = nil, idleness{}
	defer conn.Release()
	return conn.Conn().Close(ctx) // its settings are not for others
}

func (r *reader) connect(ctx context.Context) error {
	if r.conn != nil && !r.conn.Conn().IsClosed() {
		return nil
	}
	err := r.close(ctx)
	if err != nil {
		return err
	}
	if r.conn, err = r.pool.Acquire(ctx); err != nil {
		return err
	}
	r.restart() // another server may have other rows under the numbers that were seen
	if _, err := r.conn.Exec(ctx, `SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
		SET plan_cache_mode = force_generic_plan`); err != nil {
		return errors.Join(err, r.close(ctx))
	}
	return nil
}

// A batch has up to 500 rows: a literal, because with a parameter the planner expects a fraction of
// the table. Sizes alone decide how many rows fit; only those are read whole.
const readSQL = `
	SELECT o.seq, o.event_id, o.event_type, o.event_data::text, coalesce(o.correlation_id, ''), coalesce(o.source, ''), o.emitted_by, coalesce(o.traceparent, ''), coalesce(o.tracestate, ''),
		o.emitted_at
	FROM (
		SELECT seq, sum(size) OVER (ORDER BY seq) - size AS before
		FROM (
			(SELECT late.seq, late.size
				FROM unnest($1::bigint[], $2::bigint[]) AS gap (first, last)
				CROSS JOIN LATERAL (SELECT seq, size FROM medilab.outbox WHERE seq BETWEEN gap.first AND gap.last ORDER BY seq LIMIT 500) AS late
				ORDER BY late.seq LIMIT 500)
			UNION ALL
			(SELECT seq, size FROM medilab.outbox WHERE seq > $3 ORDER BY seq LIMIT 500)
			ORDER BY seq LIMIT 500
		) AS lowest
	) AS sized JOIN medilab.outbox AS o USING (seq)
	WHERE sized.before < $4 ORDER BY o.seq`

// read returns the next rows, in order, if the node owns the relay; no rows if there are none now.
func (r *reader) read(ctx context.Context, node int64) (found []emission, owner bool, err error) {
	if err := r.connect(ctx); err != nil {
		return nil, false, fmt.Errorf("connect to the outbox: %w", err)
	}
	started := time.Now()
	var first, last []int64
	look := !started.Before(r.lookAt)
	if look {
		first, last = r.gaps.bounds()
	}
	var batch pgx.Batch
	var seqs []int64
	batch.Queue(readSQL, first, last, r.gaps.highWater, maxBatchBytes).Query(func(rows pgx.Rows) error {
		var e emission
		_, err := pgx.ForEachRow(rows, []any{&e.seq, &e.id, &e.eventType, &e.data, &e.correlationID, &e.source, &e.emittedBy, &e.traceparent, &e.tracestate, &e.emittedAt}, func() error {
			seqs = append(seqs, e.seq)
			found = append(found, e)
			e.data = nil
			return nil
		})
		return err
	})
	var number, oldest, next int64
	batch.Queue(numberSQL).QueryRow(func(row pgx.Row) error { return row.Scan(&number) })
	// A statement of its own, afterwards: it sees at least the transactions that the first one saw.
	// A snapshot ends behind the last transaction that has ended; age counts up to the next one.
	batch.Queue(`SELECT pg_snapshot_xmin(s)::text::bigint, pg_snapshot_xmax(s)::text::bigint + age(pg_snapshot_xmax(s)::xid),
		EXISTS (SELECT FROM medilab.readers WHERE name = $2 AND node = $1) FROM pg_current_snapshot() AS s`, node, leaseName).QueryRow(func(row pgx.Row) error {
		return row.Scan(&oldest, &next, &owner)
	})
	if err := r.conn.SendBatch(ctx, &batch).Close(); err != nil {
		return nil, false, fmt.Errorf("read the outbox: %w", errors.Join(err, r.close(context.WithoutCancel(ctx))))
	}
	if !owner {
		return nil, false, nil
	}
	if look {
		r.gaps.observe(seqs, next, r.oldest)
		r.idle.observe(len(seqs) == 0, number, next, r.oldest)
		if took := time.Since(started); took > quickRead {
			r.lookAt = started.Add(lookPart * took)
		}
	} else if len(seqs) > 0 {
		r.gaps.observe(seqs, next, 0)
		r.idle = idleness{}
	}
	r.oldest = oldest
	return found, true, nil
}
