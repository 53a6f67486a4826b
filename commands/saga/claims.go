package saga

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// What a node claims in the append that queues it usually ends within moments. Such
// deliveries have no rows in the queue's table: all of an append share one in
// medilab.claims, which goes when each of them has ended, or has got a row of its own, as
// its first attempt failed. What is to be released, or taken over, gets rows first.
//
// The row is the truth of what nodes had when they died. That a delivery has ended, its
// stream says, so that nothing has to be changed in the row, and all that ends deliveries
// deletes rows of the queue whether they exist or not.

// together is one row of medilab.claims in this node's memory.
type together struct {
	first domain.DeliveryID // which names it
	open  int               // deliveries whose end is not on record
}

// claimedSQL claims deliveries for their node.
const claimedSQL = `INSERT INTO medilab.claims (node, first, deliveries, webhooks, events, sizes)
	VALUES ($1, ($2::uuid[])[1], $2, $3::uuid[], $4::uuid[], $5::int[])`

// settle notes that the outcome of the delivery's first attempt is recorded.
func (l *lanes) settle(d *delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settled(d)
}

// settled is settle for callers that hold the lock.
func (l *lanes) settled(d *delivery) {
	t := d.together
	if t == nil {
		return
	}
	d.together = nil
	if t.open--; t.open == 0 {
		delete(l.shared, t.first)
		l.done = append(l.done, t.first)
		eventstore.Signal(l.over)
	}
}

// unshare returns the claims that hold any of the deliveries, and forgets them: all of their
// deliveries get rows of their own.
func (l *lanes) unshare(deliveries []*delivery) (claims []domain.DeliveryID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range deliveries {
		if t := d.together; t != nil && l.shared[t.first] == t {
			delete(l.shared, t.first)
			claims = append(claims, t.first)
		}
	}
	return claims
}

// lacks reports whether something of the claim is open that is not in memory, and forgets
// the claim then.
func (l *lanes) lacks(first domain.DeliveryID, deliveries []domain.DeliveryID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.shared[first]
	if t == nil {
		return true
	}
	open := t.open
	for _, id := range deliveries {
		if d := l.claimed[id]; d != nil && d.together == t {
			open--
		}
	}
	if open > 0 {
		delete(l.shared, first)
	}
	return open > 0
}

// takeDone returns the claims of which nothing is open.
func (l *lanes) takeDone() (done []domain.DeliveryID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	done, l.done = l.done, nil
	return done
}

const dropClaimsEvery = 200 * time.Millisecond

// dropClaims deletes the rows of claims that are done, some at a time, until ctx ends.
func (s *session) dropClaims(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-s.lanes.over:
			eventstore.Wait(ctx, dropClaimsEvery, nil)
		}
		s.dropDone()
	}
}

// dropDone deletes the rows of the claims that are done now.
func (s *session) dropDone() {
	done := s.lanes.takeDone()
	if len(done) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), putBackTimeout)
	defer cancel()
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		// A row that comes back after a crash claims nothing.
		if _, err := tx.Exec(ctx, `SET LOCAL synchronous_commit = off`); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `DELETE FROM medilab.claims WHERE node = $1 AND first = ANY($2::uuid[])`, s.node.ID, done)
		return err
	})
	if err != nil {
		s.logger.Warn("claims that are done are not deleted, trying again later", "error", err)
		eventstore.Signal(s.sweep)
	}
}

// separateSQL deletes some claims, and inserts a row of the queue for each delivery of theirs that has
// not ended, as claimed by the same node. It returns how many claims it deleted.
const separateSQL = `
WITH page AS (
	SELECT node, first FROM medilab.claims WHERE node = ANY($1::bigint[]) AND ($2::uuid[] IS NULL OR first = ANY($2)) LIMIT 20
), gone AS (
	DELETE FROM medilab.claims WHERE (node, first) IN (SELECT node, first FROM page) RETURNING *
), separated AS (
	INSERT INTO medilab.queue (delivery_id, webhook_id, event_id, size, attempt, retries, version, due_at, node)
	SELECT d.delivery_id, d.webhook_id, d.event_id, d.size, 1, 0, 0, gone.queued_at, gone.node FROM gone
	CROSS JOIN LATERAL unnest(gone.deliveries, gone.webhooks, gone.events, gone.sizes) AS d (delivery_id, webhook_id, event_id, size)
	WHERE (SELECT true FROM medilab.events AS e WHERE e.stream = 'delivery-' || d.delivery_id::text LIMIT 1) IS NULL
)
SELECT count(*) FROM gone`

// separate replaces claims of the nodes by rows of the queue, one for each delivery that has not ended:
// the claims named by their first deliveries, or, if claims is nil, all. It locks the log's head, so that
// no delivery ends meanwhile: an earlier append has put its end into the log, and a later one deletes its row.
func (s *session) separate(ctx context.Context, nodes []int64, claims []domain.DeliveryID) error {
	for more := true; more; {
		err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `SELECT FROM medilab.log_head FOR UPDATE`); err != nil {
				return err
			}
			var n int
			err := tx.QueryRow(ctx, separateSQL, nodes, claims).Scan(&n)
			more = n > 0
			return err
		})
		if err != nil {
			return fmt.Errorf("separate claims: %w", err)
		}
	}
	return nil
}

// separateOrphans separates the claims of this node that hold what its memory does not have.
func (s *session) separateOrphans(ctx context.Context) error {
	rows, _ := s.pool.Query(ctx, `SELECT first, deliveries FROM medilab.claims WHERE node = $1`, s.node.ID)
	var first domain.DeliveryID
	var deliveries, orphans []domain.DeliveryID
	_, err := pgx.ForEachRow(rows, []any{&first, &deliveries}, func() error {
		if s.lanes.lacks(first, deliveries) {
			orphans = append(orphans, first)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("look through the claims: %w", err)
	}
	if len(orphans) == 0 {
		return nil
	}
	return s.separate(ctx, []int64{s.node.ID}, orphans)
}
