package saga

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

const (
	// batchPoll is half of the shortest max_wait: whichever node appended an event, the
	// time at which it must go is known here before it comes.
	batchPoll     = 500 * time.Millisecond
	linesAPass    = 16   // of up to domain.MaxBatchMembers rows each
	dueRowsALook  = 5000 // of which the webhooks are looked at
	conflictPause = 20 * time.Millisecond

	// Nodes look a little after one another, so that they seldom race for a batch.
	batchTurn  = 15 * time.Millisecond
	batchTurns = 4
)

// batcher makes batches of the deliveries that wait for company. Every node does
// it for all webhooks: the expected versions let one of them win, and a batch is
// not late when the node that knew of it dies.
type batcher struct {
	s      *session
	due    nextDue          // when the next delivery has waited as long as it may
	wake   chan struct{}    // a token: a line is ready
	cursor domain.WebhookID // where the last look over the lines ended

	mu    sync.Mutex
	lines map[domain.WebhookID]*line
	ready map[domain.WebhookID]struct{} // whose line is to be looked at
}

// line is what waits for a webhook, as far as this node knows: what it saw in the
// table, and what it appended since. It may count one twice, so being full is only
// a reason to look.
type line struct{ members, size int }

func newBatcher(s *session) *batcher {
	b := &batcher{
		s: s, due: nextDue{changed: make(chan struct{}, 1)}, wake: make(chan struct{}, 1),
		lines: map[domain.WebhookID]*line{}, ready: map[domain.WebhookID]struct{}{},
	}
	b.due.earlier(s.clock.Now()) // look at once for what waits
	return b
}

// dispatched takes in whom one event goes to, which the log recorded at the time.
func (b *batcher) dispatched(dispatched domain.EventDispatched, at time.Time) {
	for _, d := range dispatched.Deliveries {
		if d.BatchWait == 0 {
			continue
		}
		b.due.earlier(at.Add(time.Duration(d.BatchWait) * time.Second))
		if b.joined(d.WebhookID, 1, dispatched.Size, d.BatchMax) {
			b.look(d.WebhookID)
		}
	}
}

// joined counts deliveries that wait, and reports whether the line may be full.
func (b *batcher) joined(webhook domain.WebhookID, members, size, most int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	ln := b.lines[webhook]
	if ln == nil {
		ln = &line{}
		b.lines[webhook] = ln
	}
	ln.members += members
	ln.size += size
	return domain.BatchFull(ln.members, ln.size, most)
}

// look makes the webhooks' lines be looked at.
func (b *batcher) look(webhooks ...domain.WebhookID) {
	if len(webhooks) == 0 {
		return
	}
	b.mu.Lock()
	for _, id := range webhooks {
		b.ready[id] = struct{}{}
	}
	b.mu.Unlock()
	eventstore.Signal(b.wake)
}

// take returns lines to look at, and begins to count them again.
func (b *batcher) take() [][16]byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	var webhooks [][16]byte
	for id := range b.ready {
		if len(webhooks) == linesAPass {
			break
		}
		delete(b.ready, id)
		delete(b.lines, id)
		webhooks = append(webhooks, id)
	}
	return webhooks
}

// run makes batches as they get ready, until ctx ends.
func (b *batcher) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := b.round(ctx); err != nil && ctx.Err() == nil {
			b.s.logger.Warn("making batches failed, trying again", "error", err)
			eventstore.Wait(ctx, claimErrorPause, nil)
		}
		select {
		case <-ctx.Done():
		case <-b.wake:
		case <-b.due.changed:
		case <-time.After(b.due.wait(b.s.clock.Now().Add(-b.turn()), b.s.log.Pace(batchPoll))):
			if err := b.find(ctx); err != nil && ctx.Err() == nil {
				b.s.logger.Warn("looking for batches failed, trying again", "error", err)
				eventstore.Wait(ctx, claimErrorPause, nil)
			}
		}
	}
}

// turn is how long this node lets others go first.
func (b *batcher) turn() time.Duration {
	if b.s.node.Alone() {
		return 0
	}
	return time.Duration(b.s.node.ID%batchTurns) * batchTurn
}

// round makes all batches of the lines that are to be looked at.
func (b *batcher) round(ctx context.Context) error {
	for webhooks := b.take(); len(webhooks) > 0 && ctx.Err() == nil; webhooks = b.take() {
		if err := b.pass(ctx, webhooks); err != nil {
			return err
		}
	}
	return nil
}

// pass makes what batches it finds in the lines. A line in which it found one is
// looked at again.
func (b *batcher) pass(ctx context.Context, webhooks [][16]byte) error {
	lines, err := b.read(ctx, webhooks)
	if err == nil {
		err = b.s.numberMembers(ctx, lines)
	}
	if err != nil {
		return err
	}
	now := b.s.clock.Now()
	var units []eventstore.Unit
	var of []domain.WebhookID
	for webhook, waiting := range lines {
		if w, known := b.s.directory.Webhook(webhook); known && w.Deleted {
			eventstore.Signal(b.s.deleted)
			continue
		}
		decided := b.batches(webhook, waiting, now)
		units = append(units, decided...)
		for range decided {
			of = append(of, webhook)
		}
	}
	conflict := false
	for i := range units {
		units[i].Generation = b.s.generation
	}
	for i, err := range b.s.log.AppendEach(ctx, units) {
		switch {
		case err == nil:
		case eventstore.IsConflict(err): // another node made it, or somebody took a member out
			conflict = true
		case errors.Is(err, eventstore.ErrClosed):
			return nil
		default:
			return fmt.Errorf("make a batch: %w", err)
		}
		b.look(of[i])
	}
	if conflict {
		eventstore.Wait(ctx, conflictPause, nil)
	}
	return nil
}

// batches decides on a line. What it leaves is counted.
func (b *batcher) batches(webhook domain.WebhookID, waiting []domain.Waiting, now time.Time) []eventstore.Unit {
	// The end of a reading that was cut short may yet go with what follows.
	cut := len(waiting) == domain.MaxBatchMembers
	var units []eventstore.Unit
	for len(waiting) > 0 {
		n := domain.DecideBatch(waiting, now)
		if n == 0 || cut && n == len(waiting) && len(units) > 0 {
			break
		}
		units = append(units, formBatch(webhook, waiting[:n]))
		waiting = waiting[n:]
	}
	size := 0
	for _, w := range waiting {
		size += w.Size
	}
	b.joined(webhook, len(waiting), size, domain.MaxBatchMembers)
	return units
}

func formBatch(webhook domain.WebhookID, together []domain.Waiting) eventstore.Unit {
	id, batched, joined := domain.FormBatch(webhook, together)
	writes := make([]eventstore.Write, 0, 1+len(joined))
	writes = append(writes, commands.Write(id.Stream(), 0, eventstore.Metadata{Actor: commands.ActorDelivery}, batched))
	for i, j := range joined {
		metadata := eventstore.Metadata{Actor: commands.ActorDelivery, CausationID: j.EventID.String()}
		writes = append(writes, commands.Write(together[i].DeliveryID.Stream(), 0, metadata, j))
	}
	return eventstore.Unit{Writes: writes}
}

// read returns what waits for the webhooks, the oldest first.
func (b *batcher) read(ctx context.Context, webhooks [][16]byte) (map[domain.WebhookID][]domain.Waiting, error) {
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	rows, _ := b.s.pool.Query(ctx, `
		SELECT m.webhook_id, m.event_id, m.delivery_id, m.size, m.max_events, m.due_at, coalesce(m.line, 0)
		FROM unnest($1::uuid[]) AS line (webhook_id) CROSS JOIN LATERAL (
			SELECT * FROM medilab.batch_members WHERE webhook_id = line.webhook_id ORDER BY position LIMIT $2) AS m
		ORDER BY m.webhook_id, m.position`, webhooks, domain.MaxBatchMembers)
	lines := make(map[domain.WebhookID][]domain.Waiting, len(webhooks))
	var id domain.WebhookID
	var w domain.Waiting
	_, err := pgx.ForEachRow(rows, []any{&id, &w.EventID, &w.DeliveryID, &w.Size, &w.MaxEvents, &w.DueAt, &w.Line}, func() error {
		lines[id] = append(lines[id], w)
		return nil
	})
	return lines, eventstore.Doing("read what waits for a batch", err)
}

// find looks in the table for lines that are ready, and for when the next is.
func (b *batcher) find(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	// By the clock that set the timer, which may be ahead of the database's.
	now := b.s.clock.Now()
	rows, _ := b.s.pool.Query(ctx, `SELECT DISTINCT webhook_id FROM (
		SELECT webhook_id FROM medilab.batch_members WHERE due_at <= $1 ORDER BY due_at LIMIT $2) AS due`, now, dueRowsALook)
	due, err := pgx.CollectRows(rows, pgx.RowTo[domain.WebhookID])
	if err != nil {
		return fmt.Errorf("look for due batches: %w", err)
	}
	b.look(due...)
	if err := b.findFull(ctx); err != nil {
		return err
	}
	var next time.Time
	err = b.s.pool.QueryRow(ctx, `SELECT due_at FROM medilab.batch_members WHERE due_at > $1 ORDER BY due_at LIMIT 1`, now).Scan(&next)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("look for the next batch: %w", err)
	}
	b.due.reset(next)
	return nil
}

// findFull finds lines that other processes filled. It goes round all lines, some
// at a time.
func (b *batcher) findFull(ctx context.Context) error {
	rows, _ := b.s.pool.Query(ctx, `
		WITH RECURSIVE step (webhook) AS (
			(SELECT webhook_id FROM medilab.batch_members WHERE webhook_id > $1 ORDER BY webhook_id LIMIT 1)
			UNION ALL
			SELECT (SELECT webhook_id FROM medilab.batch_members WHERE webhook_id > step.webhook ORDER BY webhook_id LIMIT 1)
			FROM step WHERE step.webhook IS NOT NULL
		), lines AS (
			SELECT webhook FROM step WHERE webhook IS NOT NULL LIMIT $2
		)
		SELECT webhook, waits.members, waits.size, waits.most FROM lines CROSS JOIN LATERAL (
			SELECT count(*) AS members, sum(size) AS size, min(max_events) AS most FROM (
				SELECT size, max_events FROM medilab.batch_members WHERE webhook_id = webhook ORDER BY position LIMIT $3) AS first
		) AS waits ORDER BY webhook`, [16]byte(b.cursor), linesAPass, domain.MaxBatchMembers)
	var full []domain.WebhookID
	var last domain.WebhookID
	var members, size, most, n int
	_, err := pgx.ForEachRow(rows, []any{&last, &members, &size, &most}, func() error {
		n++
		if domain.BatchFull(members, size, most) {
			full = append(full, last)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("look for full batches: %w", err)
	}
	b.cursor = last
	if n < linesAPass {
		b.cursor = domain.WebhookID{}
	}
	b.look(full...)
	return nil
}

// readBatches reads the events of the batches among what was claimed. One that
// cannot be read fails its batch with the reason, and nothing else.
func (s *session) readBatches(ctx context.Context, claimed []*delivery) error {
	for _, d := range claimed {
		if !d.isBatch {
			continue
		}
		var err error
		d.batch, d.left, err = commands.BatchEvents(ctx, s.log, d.id, d.version > 1)
		if errors.Is(err, commands.ErrUnreadable) {
			d.broken = err.Error()
		} else if err != nil {
			return err
		}
	}
	return nil
}
