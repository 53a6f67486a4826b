package saga

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

const (
	takeoverPoll = time.Second
	takeoverPage = 500
	// takeoverTimeout is longer than an append may take.
	takeoverTimeout = time.Minute
	sweepEvery      = 30 * time.Second
	// outageGrace is how long a new session leaves alone what others did not give
	// up: when the database was away, all leases are over and all nodes live, about
	// to record how their calls ended.
	outageGrace = 3 * time.Second
	nodesKept   = 100
)

// takeOver records the attempts that dead nodes had under way as interrupted, so
// that the next ones follow at once, until ctx ends. Every node does it: the
// expected version lets one of them win. A node leaves its own alone: when its
// lease is over, it learns that by itself, and goes on under another id.
func (s *session) takeOver(ctx context.Context) {
	began := time.Now()
	for ctx.Err() == nil {
		if !s.node.Valid() { // what it would take may be its own
			eventstore.Wait(ctx, takeoverPoll, nil)
			continue
		}
		n, err := s.takeOverPage(ctx, time.Since(began) > outageGrace)
		if err != nil && ctx.Err() == nil {
			s.logger.Warn("taking over from dead nodes failed, trying again", "error", err)
		}
		switch {
		case err != nil:
			eventstore.Wait(ctx, takeoverPoll, nil)
		case n < takeoverPage:
			eventstore.Wait(ctx, s.log.Pace(takeoverPoll), nil)
		}
	}
}

// orphan is a delivery that a dead node had under way.
type orphan struct {
	delivery
	node int64
	cut  bool // it was cancelled
}

// takeOverPage takes over from nodes that left and, if all, from those whose
// lease ran out.
func (s *session) takeOverPage(ctx context.Context, all bool) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, takeoverTimeout)
	defer cancel()
	orphans, configuration, err := s.orphans(ctx, all)
	if err != nil {
		return 0, fmt.Errorf("find what dead nodes had: %w", err)
	}
	if len(orphans) == 0 {
		return 0, s.forgetNodes(ctx)
	}
	if err := s.catchUp(ctx, configuration); err != nil {
		return 0, err
	}
	units := make([]eventstore.Unit, len(orphans))
	for i := range orphans {
		units[i] = s.taking(&orphans[i])
	}
	taken := 0
	var archived []domain.DeliveryID
	for i, err := range s.log.AppendEach(ctx, units) {
		switch {
		case err == nil:
			taken++
			s.lanes.found([]domain.WebhookID{orphans[i].webhook})
		case eventstore.IsConflict(err): // another node did
		case errors.Is(err, eventstore.ErrArchived): // only what was cancelled may be
			archived = append(archived, orphans[i].id)
		default:
			return 0, fmt.Errorf("take over: %w", err)
		}
	}
	if len(archived) > 0 {
		if _, err := s.pool.Exec(ctx, `DELETE FROM medilab.cut_short WHERE delivery_id = ANY($1)`, archived); err != nil {
			return 0, eventstore.Doing("forget what was cancelled", err)
		}
	}
	eventstore.Signal(s.lanes.claim)
	s.logger.Info("took over from a node that is gone", "node", orphans[0].node, "deliveries", taken)
	return len(orphans), nil
}

// orphans returns a page of what dead nodes had under way, and the configuration then. What shares a
// row of claims gets rows of its own before.
func (s *session) orphans(ctx context.Context, all bool) (orphans []orphan, configuration eventstore.Position, err error) {
	const dead = ` n.lease_until < clock_timestamp() AND n.id <> $1 AND (n.lease_until = '-infinity' OR $2)`
	rows, _ := s.pool.Query(ctx, `SELECT n.id FROM medilab.nodes AS n WHERE`+dead+` AND EXISTS (SELECT FROM medilab.claims AS c WHERE c.node = n.id)`, s.node.ID, all)
	nodes, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err == nil && len(nodes) > 0 {
		err = s.separate(ctx, nodes, nil)
	}
	if err != nil {
		return nil, 0, err
	}
	rows, _ = s.pool.Query(ctx, `
		SELECT q.delivery_id, q.webhook_id, q.event_id, q.attempt, q.version, q.batch, q.line, q.node, q.cut, (SELECT configuration FROM medilab.log_head),
			(SELECT substr(e.data, 1, 500) FROM medilab.events AS e WHERE NOT q.batch AND e.stream = 'event-' || q.event_id::text AND e.version = 1)
		FROM medilab.nodes AS n CROSS JOIN LATERAL (
			SELECT delivery_id, webhook_id, event_id, attempt, version, batch, coalesce(line, 0) AS line, node, false AS cut FROM medilab.queue WHERE node = n.id
			UNION ALL SELECT delivery_id, webhook_id, event_id, attempt, (SELECT coalesce(max(version), 0) FROM medilab.events WHERE stream = 'delivery-' || delivery_id::text),
				batch, 0, node, true FROM medilab.cut_short WHERE node = n.id) AS q
		WHERE`+dead+` LIMIT $3`, s.node.ID, all, takeoverPage)
	orphans, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (o orphan, err error) {
		var beginning []byte
		err = row.Scan(&o.id, &o.webhook, &o.eventID, &o.attempt, &o.version, &o.isBatch, &o.line, &o.node, &o.cut, &configuration, &beginning)
		o.event.EventType, _ = domain.EventTypeIn(beginning)
		return o, err
	})
	return orphans, configuration, err
}

// taking records the end of an attempt whose node is gone.
func (s *session) taking(o *orphan) eventstore.Unit {
	w, _ := s.directory.Webhook(o.webhook)
	w.ID = o.webhook
	interrupted := interruption(&o.delivery, w, "the node that made the call is gone")
	if o.cut {
		return s.unit(&o.delivery, interrupted.Late(s.clock.Now()))
	}
	return s.unit(&o.delivery, interrupted)
}

// forgetNodes removes the nodes that left long ago and own nothing. The last ones are kept in
// any case: what a killed process was appending may be committed after it is known to be gone.
func (s *session) forgetNodes(ctx context.Context) error {
	_, err := s.pool.Exec(ctx, `
		DELETE FROM medilab.nodes AS n WHERE n.lease_until < clock_timestamp() - interval '1 day' AND n.id < $1
		AND NOT EXISTS (SELECT FROM medilab.queue AS q WHERE q.node = n.id) AND NOT EXISTS (SELECT FROM medilab.cut_short AS c WHERE c.node = n.id) AND NOT EXISTS (SELECT FROM medilab.claims AS c WHERE c.node = n.id)`, s.node.ID-nodesKept)
	return eventstore.Doing("forget old nodes", err)
}

// sweepOrphans runs now and then, and a little after an append of this node went unanswered,
// until ctx ends.
func (s *session) sweepOrphans(ctx context.Context) {
	for eventstore.Wait(ctx, sweepEvery, s.sweep) && eventstore.Wait(ctx, takeoverPoll, nil) {
		if err := s.releaseOrphans(ctx); err != nil && ctx.Err() == nil {
			s.logger.Warn("looking for orphaned claims failed, trying again later", "error", err)
		}
	}
}

// releaseStale releases what waits here for longer than patientFor while other nodes
// live, until ctx ends: they may be free for it, and this node is not.
func (s *session) releaseStale(ctx context.Context) {
	for eventstore.Wait(ctx, s.log.Pace(patientFor/4), nil) {
		if !s.node.Alone() && s.node.Valid() {
			s.putBack(func() []*delivery { return s.lanes.stale(time.Now()) })
		}
	}
}
