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
}

const (
	maxBatchBytes = 8 << 20 // one row is taken whatever its size
	// lookPart bounds the part of the time that goes into looks into gaps, when they pass over
	// very many dead rows, to one in lookPart.
	lookPart = 4
)

// reader reads the outbox on a connection of its own, whose plans always go by the key: one
// made while the table was small would read all of a large backlog for every batch. So there is
// one plan whatever it is asked, and it is made once: making it took longer than its work does.
type reader struct {
	pool   *pgxpool.Pool
	conn   *pgx.Conn
	unseen unseen
	oldest int64 // the oldest transaction open at the end of the reading before

	lookAt time.Time // when the next look into the gaps is due
}

// restart forgets what was seen: another node may have relayed since.
func (r *reader) restart() { r.unseen, r.oldest, r.lookAt = unseen{}, 0, time.Time{} }

// close gives up the connection.
func (r *reader) close(ctx context.Context) error {
	if r.conn == nil {
		return nil
	}
	conn := r.conn
	r.conn = nil
	return conn.Close(ctx)
}

func (r *reader) connect(ctx context.Context) error {
	if r.conn != nil && !r.conn.IsClosed() {
		return nil
	}
	pooled, err := r.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	conn := pooled.Hijack()
	if _, err := conn.Exec(ctx, `SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
		SET plan_cache_mode = force_generic_plan`); err != nil {
		return errors.Join(err, conn.Close(ctx))
	}
	r.conn = conn
	return nil
}

// A batch has up to 500 rows: a number in the statement, because with a parameter the planner
// counts on a part of the table. The sizes alone decide how many of them fit; then those are read
// whole.
const readSQL = `
	SELECT o.seq, o.event_id, o.event_type, o.event_data::text, coalesce(o.correlation_id, ''), coalesce(o.source, ''), o.emitted_by
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

// read gives the next rows, in order, if the node owns the relay. No rows: there are none now.
func (r *reader) read(ctx context.Context, node int64) (found []emission, owner bool, err error) {
	if err := r.connect(ctx); err != nil {
		return nil, false, fmt.Errorf("connect to the outbox: %w", err)
	}
	started := time.Now()
	var first, last []int64
	look := !started.Before(r.lookAt)
	if look {
		first, last = r.unseen.bounds()
	}
	var batch pgx.Batch
	batch.Queue(readSQL, first, last, r.unseen.mark, maxBatchBytes)
	// Its own statement, after: it sees at least the transactions that the rows' one saw.
	batch.Queue(`SELECT pg_snapshot_xmin(s)::text::bigint, pg_snapshot_xmax(s)::text::bigint,
		EXISTS (SELECT FROM medilab.readers WHERE name = $2 AND node = $1) FROM pg_current_snapshot() AS s`, node, leaseName)
	results := r.conn.SendBatch(ctx, &batch)
	var seqs []int64
	var oldest, next int64
	rows, err := results.Query()
	if err == nil {
		var e emission
		_, err = pgx.ForEachRow(rows, []any{&e.seq, &e.id, &e.eventType, &e.data, &e.correlationID, &e.source, &e.emittedBy}, func() error {
			seqs = append(seqs, e.seq)
			found = append(found, e)
			e.data = nil
			return nil
		})
	}
	if err == nil {
		err = results.QueryRow().Scan(&oldest, &next, &owner)
	}
	if err = errors.Join(err, results.Close()); err != nil {
		return nil, false, fmt.Errorf("read the outbox: %w", errors.Join(err, r.close(context.WithoutCancel(ctx))))
	}
	if !owner {
		return nil, false, nil
	}
	if look {
		r.unseen.saw(seqs, next, r.oldest)
		r.lookAt = started.Add(lookPart * time.Since(started))
	} else if len(seqs) > 0 {
		r.unseen.saw(seqs, next, 0)
	}
	r.oldest = oldest
	return found, true, nil
}
