package saga

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
)

// Verify implements projections.Queue: it reports rows that contradict the streams of
// their deliveries, and returns how many deliveries have rows.
func (q Queue) Verify(ctx context.Context, tx pgx.Tx, report func(stream, text string)) (int64, error) {
	queued, err := verifyQueued(ctx, tx, report)
	if err == nil {
		err = tx.QueryRow(ctx, `SELECT $1 + count(*) FROM medilab.claimed`, queued).Scan(&queued)
	}
	if err == nil {
		err = verifyLines(ctx, tx, report)
	}
	if err != nil {
		return 0, err
	}
	waiting, err := verifyWaiting(ctx, tx, report)
	return queued + waiting, err
}

// verifyQueued checks the rows of the queue and returns how many are pending.
func verifyQueued(ctx context.Context, tx pgx.Tx, report func(stream, text string)) (total int64, err error) {
	const page = 1000
	after := uuid.Nil
	for {
		rows, _ := tx.Query(ctx, `
			SELECT q.delivery_id, q.version, coalesce(e.version, 0), coalesce(e.type, ''),
				coalesce(position(convert_to('"gave_up":"', 'UTF8') IN e.data) > 0, false),
				coalesce(position(convert_to('"blocks":true', 'UTF8') IN e.data) > 0, false)
			FROM (SELECT * FROM medilab.queue WHERE delivery_id > $1 ORDER BY delivery_id LIMIT $2) AS q
			LEFT JOIN LATERAL (SELECT version, type, CASE WHEN type IN ('delivery.attempt_failed', 'delivery.retry_cancelled') THEN data END AS data FROM medilab.events
				WHERE stream = 'delivery-' || q.delivery_id ORDER BY version DESC LIMIT 1) AS e ON true
			ORDER BY q.delivery_id`, after, page)
		n := 0
		var queuedVersion, version int64
		var last string
		var gaveUp, blocks bool
		_, err := pgx.ForEachRow(rows, []any{&after, &queuedVersion, &version, &last, &gaveUp, &blocks}, func() error {
			n++
			if !blocks {
				total++
			}
			stream := domain.DeliveryID(after).Stream()
			switch {
			case queuedVersion != version:
				report(stream, fmt.Sprintf("the queue has version %d of %s, and the log version %d", queuedVersion, stream, version))
			case last == domain.DeliverySucceeded{}.ChangeType(), last == domain.DeliveryCancelled{}.ChangeType(),
				!blocks && (gaveUp || last == domain.DeliveryRetryCancelled{}.ChangeType()):
				report(stream, "the queue has "+stream+", which ended")
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
		if n < page {
			return total, nil
		}
	}
}

// verifyWaiting checks what waits for batches and returns how many rows there are.
func verifyWaiting(ctx context.Context, tx pgx.Tx, report func(stream, text string)) (total int64, err error) {
	rows, _ := tx.Query(ctx, `
		SELECT m.delivery_id, coalesce(e.version, 0) FROM medilab.batch_members AS m
		LEFT JOIN LATERAL (SELECT version FROM medilab.events WHERE stream = 'delivery-' || m.delivery_id LIMIT 1) AS e ON true
		ORDER BY m.delivery_id`)
	var id uuid.UUID
	var version int64
	_, err = pgx.ForEachRow(rows, []any{&id, &version}, func() error {
		total++
		if stream := domain.DeliveryID(id).Stream(); version > 0 {
			report(stream, stream+" waits for a batch, and by the log it does no more")
		}
		return nil
	})
	return total, err
}
