package saga

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

const (
	deletedPoll  = time.Second
	deletedPage  = 500
	deletedEvery = 30 * time.Second // however little changed: an attempt may have ended since
)

// cancelDeleted cancels what waits for webhooks whose deletion is recorded, until ctx
// ends. Every node does it: the expected version lets one of them win.
func (s *session) cancelDeleted(ctx context.Context) {
	var seen eventstore.Position
	var last time.Time
	for ctx.Err() == nil {
		asked := false
		select {
		case <-ctx.Done():
			return
		case <-s.deleted:
			asked = true
		case <-time.After(s.log.Pace(deletedPoll)):
		}
		configuration := s.directory.Configuration()
		if !asked && configuration == seen && time.Since(last) < deletedEvery {
			continue
		}
		n, err := s.cancelDeletedPage(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			s.logger.Warn("cancelling what waits for deleted webhooks failed, trying again", "error", err)
		case n > 0:
			eventstore.Signal(s.deleted)
		default:
			seen, last = configuration, time.Now()
		}
	}
}

// cancellation returns a decider that ends a delivery for the reason.
func cancellation(reason domain.CancelReason) func(*delivery) domain.Change {
	return func(d *delivery) domain.Change {
		return domain.DeliveryCancelled{EventID: d.eventID, WebhookID: d.webhook, Reason: reason, Was: d.was, ReplayID: d.replay}
	}
}

// cancelDeletedPage returns how many deliveries it cancelled.
func (s *session) cancelDeletedPage(ctx context.Context) (int, error) {
	var deleted [][16]byte
	for w := range s.directory.Newest() {
		if w.Deleted {
			deleted = append(deleted, w.ID)
		}
	}
	if len(deleted) == 0 {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, takeoverTimeout)
	defer cancel()
	rows, _ := s.pool.Query(ctx, `
		SELECT delivery_id, event_id, waits.webhook_id, version, coalesce(replay, '00000000-0000-0000-0000-000000000000'), was FROM unnest($1::uuid[]) AS deleted (webhook_id) CROSS JOIN LATERAL (
			(SELECT delivery_id, event_id, webhook_id, version, replay, CASE WHEN due_at = 'infinity' THEN 'failed' ELSE '' END AS was FROM medilab.queue
				WHERE webhook_id = deleted.webhook_id AND node IS NULL ORDER BY webhook_id, due_at LIMIT $2)
			UNION ALL
			(SELECT delivery_id, event_id, webhook_id, version, replay, '' FROM medilab.queue
				WHERE webhook_id = deleted.webhook_id AND line IS NOT NULL AND node = 0 ORDER BY webhook_id, line, position LIMIT $2)
			UNION ALL
			(SELECT delivery_id, event_id, webhook_id, 0, NULL, '' FROM medilab.batch_members
				WHERE webhook_id = deleted.webhook_id ORDER BY position LIMIT $2)) AS waits
		LIMIT $2`, deleted, deletedPage)
	waiting, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (d delivery, err error) {
		err = row.Scan(&d.id, &d.eventID, &d.webhook, &d.version, &d.replay, &d.was)
		return d, err
	})
	if err != nil {
		return 0, fmt.Errorf("find what waits for deleted webhooks: %w", err)
	}
	units := make([]eventstore.Unit, len(waiting))
	for i := range waiting {
		units[i] = s.unit(&waiting[i], cancellation(domain.CancelWebhookDeleted)(&waiting[i]))
	}
	cancelled := 0
	for _, err := range s.log.AppendEach(ctx, units) {
		switch {
		case err == nil:
			cancelled++
		case !eventstore.IsConflict(err):
			return 0, fmt.Errorf("cancel what waits for deleted webhooks: %w", err)
		}
	}
	return cancelled, nil
}
