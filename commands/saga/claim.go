package saga

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/eventstore/failpoint"
)

const (
	maxLanesAClaim  = 64
	maxRowsAClaim   = 500
	maxBytesAClaim  = 8 << 20 // a lane; see bytesAClaim
	lanesARound     = 64
	claimPoll       = time.Second
	busyPoll        = 100 * time.Millisecond // while other nodes have more than they can do
	claimErrorPause = 500 * time.Millisecond
	claimTimeout    = 10 * time.Second // a database that is gone without a word says none
)

// claimer fills the lanes from the queue's table.
type claimer struct {
	s      *session
	cursor domain.WebhookID // where the last look over the lanes ended
	due    nextDue
	marks  lowWaterMarks
	lookAt time.Time // when all lanes are looked over again, whatever is known to be due
	rest   time.Time // until when they are not, whatever is: looking may be slow
}

func newClaimer(s *session) *claimer {
	c := &claimer{s: s, due: nextDue{changed: make(chan struct{}, 1)}, marks: lowWaterMarks{}}
	c.due.earlier(s.clock.Now()) // look at once for what waits
	return c
}

// run claims while there is room, until ctx ends.
func (c *claimer) run(ctx context.Context) {
	for ctx.Err() == nil {
		if c.untilLook() <= 0 { // however busy the lanes are that are known
			if err := c.look(ctx); err != nil && ctx.Err() == nil {
				c.s.logger.Warn("looking for due deliveries failed, trying again", "error", err)
				eventstore.Wait(ctx, claimErrorPause, nil)
			}
		}
		again, err := c.round(ctx)
		if err != nil && ctx.Err() == nil {
			c.s.logger.Warn("claiming failed, trying again", "error", err)
			eventstore.Wait(ctx, claimErrorPause, nil)
			continue
		}
		if again {
			continue
		}
		select {
		case <-ctx.Done():
		case <-c.s.lanes.claim:
		case <-c.due.changed:
		case <-time.After(c.untilLook()):
		}
	}
}

func (c *claimer) untilLook() time.Duration {
	return max(c.due.wait(c.s.clock.Now(), time.Until(c.lookAt)), time.Until(c.rest))
}

// round claims once for the lanes that have room. It reports whether there may be
// more to claim at once.
func (c *claimer) round(ctx context.Context) (again bool, err error) {
	webhooks, rooms := c.s.lanes.wanted(maxRowsAClaim)
	if acquired, err := c.s.acquirePaced(ctx); acquired || err != nil {
		return acquired, err
	}
	more := len(webhooks) == maxLanesAClaim // want something
	webhooks, rooms = c.claimable(webhooks, rooms)
	if len(webhooks) == 0 {
		return more, nil
	}
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	c.s.owning.Lock()
	defer c.s.owning.Unlock()
	began := time.Now()
	from := c.marks.of(webhooks, began)
	claimed, configuration, end, err := claim(ctx, c.s.pool, c.s.node.ID, webhooks, rooms, from)
	if err != nil {
		eventstore.Signal(c.s.sweep) // the claim may have been made
		return false, err
	}
	c.s.log.Saw(c.s.generation, end)
	if err := c.s.catchUp(ctx, configuration); err != nil {
		eventstore.Signal(c.s.sweep) // it releases what was claimed
		return false, err
	}
	c.marks.claimed(webhooks, from, claimed, c.s.clock.Now(), began)
	failpoint.Pass(failpoint.AfterClaim)
	if err := errors.Join(c.s.openEvents(ctx, claimed), c.s.readBatches(ctx, claimed), c.s.readNumbers(ctx, claimed)); err != nil {
		eventstore.Signal(c.s.sweep) // it releases what was claimed
		return false, err
	}
	got, bytes := map[domain.WebhookID]int32{}, map[domain.WebhookID]int{}
	for _, d := range claimed {
		got[d.webhook]++
		bytes[d.webhook] += d.size
	}
	for i, id := range webhooks {
		if got[id] == rooms[i] || bytes[id] >= bytesAClaim(len(webhooks)) {
			c.s.lanes.filled(id)
		} else {
			c.s.lanes.drained(id)
		}
	}
	c.s.lanes.add(claimed)
	return more || len(claimed) > 0, nil
}

// claimable leaves out the lanes whose webhooks are inactive: their rows wait.
func (c *claimer) claimable(webhooks [][16]byte, rooms []int32) ([][16]byte, []int32) {
	n := 0
	for i, id := range webhooks {
		if w, ok := c.s.directory.Webhook(id); ok && !w.Active && !w.Deleted {
			c.s.lanes.drained(id)
			delete(c.marks, id) // its rows are as old as they are when it comes back
			continue
		}
		webhooks[n], rooms[n] = id, rooms[i]
		n++
	}
	return webhooks[:n], rooms[:n]
}

// look finds lanes with due rows that this node does not know of: they were
// queued by another node, or came due. It goes round all lanes, some at a time.
func (c *claimer) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	began, poll := time.Now(), c.s.log.Pace(claimPoll)
	defer func() {
		now, took := time.Now(), time.Since(began)
		c.lookAt, c.rest = now.Add(max(poll, lookShare*took)), now.Add(lookRest*took)
	}()
	for {
		lanes, err := dueLanes(ctx, c.s.pool, c.cursor, lanesARound)
		if err != nil {
			return err
		}
		if c.s.lanes.found(lanes) && !c.s.node.Alone() {
			poll = busyPoll
		}
		if len(lanes) < lanesARound {
			c.cursor = domain.WebhookID{}
			break
		}
		c.cursor = lanes[len(lanes)-1]
	}
	next, err := c.nextDue(ctx)
	if err != nil {
		return err
	}
	c.due.reset(next)
	return nil
}

// claimSQL takes the rows that have been due longest, lane by lane. Each lane
// costs an index descent and its own rows, however long any backlog is. now(),
// unlike clock_timestamp(), is a bound that the index can use; lane.since is the
// low-water mark. Only the lanes' index gives the order of pairs: with
// webhook_id = and ORDER BY due_at the planner takes the index of due times, and
// reads every other lane's backlog, when the statistics show one large lane. And
// an array is looked up by the key, where a join would hash the whole table.
const claimSQL = `
WITH mine AS (
	SELECT due.delivery_id FROM unnest($1::uuid[], $2::int[], $5::timestamptz[]) AS lane (webhook_id, room, since)
	CROSS JOIN LATERAL (
		SELECT delivery_id, sum(size) OVER (ORDER BY due_at, delivery_id) - size AS before FROM (
			SELECT delivery_id, due_at, size FROM medilab.queue
			WHERE node IS NULL AND (webhook_id, due_at) >= (lane.webhook_id, lane.since) AND (webhook_id, due_at) <= (lane.webhook_id, now())
			ORDER BY webhook_id, due_at LIMIT lane.room FOR UPDATE SKIP LOCKED
		) AS locked
	) AS due WHERE due.before < $4
), claimed AS (
	UPDATE medilab.queue AS q SET node = $3 WHERE q.delivery_id = ANY(ARRAY(SELECT delivery_id FROM mine))
	RETURNING q.delivery_id, q.webhook_id, q.event_id, q.size, q.attempt, q.retries, q.version, q.due_at, q.batch, q.line, q.replay
)
SELECT c.delivery_id, c.webhook_id, c.event_id, c.size, c.attempt, c.retries, c.version, c.batch, coalesce(c.line, 0), coalesce(c.replay, '00000000-0000-0000-0000-000000000000'), c.due_at, e.data, e.recorded_at,
	head.configuration, head.position, head.last_seal, head.recorded_at AS head_at
FROM medilab.log_head AS head CROSS JOIN claimed AS c LEFT JOIN medilab.events AS e ON NOT c.batch AND e.stream = 'event-' || c.event_id::text AND e.version = 1
ORDER BY c.due_at, c.delivery_id`

// bytesAClaim bounds what each of so many lanes claims: together no more than may wait in
// memory. One row is taken whatever its size.
func bytesAClaim(lanes int) int { return min(maxBytesAClaim, maxWaitingBytes/lanes) }

// claim returns what it claimed, and the configuration and the end that the log had then.
func claim(ctx context.Context, pool *pgxpool.Pool, node int64, webhooks [][16]byte, rooms []int32, since []time.Time) (_ []*delivery, configuration eventstore.Position, end eventstore.Anchor, _ error) {
	rows, _ := pool.Query(ctx, claimSQL, webhooks, rooms, node, bytesAClaim(len(webhooks)), since)
	claimed, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*delivery, error) {
		var d delivery
		var data []byte
		var recordedAt *time.Time
		err := row.Scan(&d.id, &d.webhook, &d.eventID, &d.size, &d.attempt, &d.retries, &d.version, &d.isBatch, &d.line, &d.replay, &d.due, &data, &recordedAt,
			&configuration, &end.Position, &end.Seal, &end.RecordedAt)
		if err != nil {
			return nil, err
		}
		if !d.isBatch {
			d.read(data)
		}
		if recordedAt != nil {
			d.occurredAt = d.event.Occurred(recordedAt.UTC())
		}
		return &d, nil
	})
	return claimed, configuration, end, eventstore.Doing("claim deliveries", err)
}

// catchUp folds the configuration up to the position, so that no webhook is taken for
// deleted that this node has not heard of yet.
func (s *session) catchUp(ctx context.Context, configuration eventstore.Position) error {
	if s.directory.Configuration() >= configuration {
		return nil
	}
	return s.directory.CatchUp(ctx)
}

// read takes in the stored event. One that cannot be read fails its delivery
// with the reason, and nothing else.
func (d *delivery) read(data []byte) {
	change, err := domain.Decode(domain.EventTriggered{}.ChangeType(), data)
	if err != nil {
		d.broken = "the stored event cannot be read: " + err.Error()
		return
	}
	d.event = change.(domain.EventTriggered)
}

// openEvents opens the data of what was claimed.
func (s *session) openEvents(ctx context.Context, claimed []*delivery) error {
	events := make([]eventstore.Event, len(claimed))
	for i, d := range claimed {
		events[i].Value = d.event
	}
	if err := s.log.Open(ctx, events); err != nil {
		return err
	}
	for i, d := range claimed {
		if event, ok := events[i].Value.(domain.EventTriggered); ok {
			d.event = event
		} else {
			d.broken = "the stored event cannot be read: " + events[i].Err.Error()
		}
	}
	return nil
}

// dueLanes steps from lane to lane by the index, whatever each holds. A scalar
// subquery is asked lane by lane, where EXISTS may hash all that is due.
func dueLanes(ctx context.Context, pool *pgxpool.Pool, after domain.WebhookID, most int) ([]domain.WebhookID, error) {
	rows, _ := pool.Query(ctx, `
		WITH RECURSIVE step (lane) AS (
			(SELECT webhook_id FROM medilab.queue WHERE node IS NULL AND webhook_id > $1 ORDER BY webhook_id LIMIT 1)
			UNION ALL
			SELECT (SELECT webhook_id FROM medilab.queue WHERE node IS NULL AND webhook_id > step.lane ORDER BY webhook_id LIMIT 1)
			FROM step WHERE step.lane IS NOT NULL
		)
		SELECT lane FROM step WHERE lane IS NOT NULL AND (
			SELECT true FROM medilab.queue WHERE webhook_id = step.lane AND node IS NULL AND due_at <= now() LIMIT 1)
		LIMIT $2`, [16]byte(after), most)
	lanes, err := pgx.CollectRows(rows, pgx.RowTo[domain.WebhookID])
	return lanes, eventstore.Doing("look for due deliveries", err)
}

// nextDue returns when the next waiting row comes due; the zero time when none does.
func (c *claimer) nextDue(ctx context.Context) (time.Time, error) {
	var due time.Time
	err := c.s.pool.QueryRow(ctx, `SELECT due_at FROM medilab.queue WHERE node IS NULL AND due_at > now() AND due_at < 'infinity' ORDER BY due_at LIMIT 1`).Scan(&due)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return time.Time{}, fmt.Errorf("look for the next due delivery: %w", err)
	}
	return due, nil
}

// release makes claimed rows free: they are due as they were, for any node.
func (s *session) release(ctx context.Context, deliveries []*delivery) error {
	if len(deliveries) == 0 {
		return nil
	}
	if claims := s.lanes.unshare(deliveries); len(claims) > 0 {
		if err := s.separate(ctx, []int64{s.node.ID}, claims); err != nil {
			return err
		}
	}
	ids := make([][16]byte, len(deliveries))
	for i, d := range deliveries {
		ids[i] = d.id
	}
	if _, err := s.pool.Exec(ctx, `UPDATE medilab.queue SET node = NULL WHERE node = $1 AND delivery_id = ANY($2::uuid[])`, s.node.ID, ids); err != nil {
		return fmt.Errorf("release deliveries: %w", err)
	}
	return giveTurns(ctx, s.pool, deliveries)
}

// releaseOrphans releases what the table says is this node's and its memory does not
// have: the answer to the append that queued it was lost.
func (s *session) releaseOrphans(ctx context.Context) error {
	// No append is under way meanwhile, so a connection that hangs must not keep it long.
	ctx, cancel := context.WithTimeout(ctx, putBackTimeout)
	defer cancel()
	s.owning.Lock()
	defer s.owning.Unlock()
	var err error
	paused := s.log.Between(ctx, func() { err = s.releaseUnknown(ctx) })
	return errors.Join(paused, err)
}

func (s *session) releaseUnknown(ctx context.Context) error {
	if err := s.separateOrphans(ctx); err != nil {
		return err
	}
	rows, _ := s.pool.Query(ctx, `SELECT delivery_id, coalesce(line, 0) FROM medilab.queue WHERE node = $1`, s.node.ID)
	mine, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*delivery, error) {
		var d delivery
		return &d, row.Scan(&d.id, &d.line)
	})
	if err != nil {
		return err
	}
	orphans := slices.DeleteFunc(mine, func(d *delivery) bool { return s.lanes.has(d.id) })
	if err = s.release(ctx, orphans); err == nil && len(orphans) > 0 {
		s.logger.Info("released deliveries whose append went unanswered", "count", len(orphans))
	}
	return errors.Join(err, s.forgetUncalled(ctx))
}

// forgetUncalled deletes the notes of what was cancelled and is not in memory: no call is under way.
func (s *session) forgetUncalled(ctx context.Context) error {
	rows, _ := s.pool.Query(ctx, `SELECT delivery_id FROM medilab.cut_short WHERE node = $1`, s.node.ID)
	cut, err := pgx.CollectRows(rows, pgx.RowTo[domain.DeliveryID])
	if cut = slices.DeleteFunc(cut, s.lanes.has); err == nil && len(cut) > 0 {
		_, err = s.pool.Exec(ctx, `DELETE FROM medilab.cut_short WHERE delivery_id = ANY($1)`, cut)
	}
	return eventstore.Doing("forget what was cancelled", err)
}

// nextDue holds when the next retry comes due.
type nextDue struct {
	mu      sync.Mutex
	at      time.Time // zero: not known
	changed chan struct{}
}

// earlier takes in that a retry is due at the time.
func (n *nextDue) earlier(at time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.at.IsZero() || at.Before(n.at) {
		n.at = at
		eventstore.Signal(n.changed)
	}
}

func (n *nextDue) reset(at time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.at = at
}

// wait returns how long to sleep, at most most.
func (n *nextDue) wait(now time.Time, most time.Duration) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.at.IsZero() {
		return most
	}
	return min(most, max(0, n.at.Sub(now)))
}
