package saga

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// Deliveries of a webhook with sequence are numbered by the append that dispatches them,
// under the lock of the log's head: that is where the order of the log is known. Each
// number follows from the log: how many deliveries it has dispatched to the webhook since
// the webhook's version named in them.

// numberSQL numbers the deliveries of a batch of $5 events. n is the number of the event
// within it.
const numberSQL = `
INSERT INTO medilab.sequence (delivery_id, webhook_id, since, number, position)
SELECT r.d, r.w, r.s, row_number() OVER (PARTITION BY r.w, r.s ORDER BY r.n) + coalesce((
	SELECT number FROM medilab.sequence WHERE webhook_id = r.w AND since = r.s ORDER BY webhook_id DESC, since DESC, number DESC LIMIT 1), 0),
	h.position - $5::bigint + r.n
FROM medilab.log_head AS h, unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::int[]) AS r (d, w, s, n)
RETURNING delivery_id, number`

func number(rows []deliveryRow, batch int, lanes *lanes) []eventstore.Statement {
	if len(rows) == 0 {
		return nil
	}
	statement := eventstore.Statement{SQL: numberSQL, Args: append(values(rows, ids, webhooks, sinces, places), batch)}
	if lanes != nil {
		statement.Rows = lanes.numbered
	}
	return []eventstore.Statement{{SQL: byKeySQL}, statement}
}

// numbers returns the numbers of those of the deliveries that have one which counts since
// the webhook's version now.
func (s *session) numbers(ctx context.Context, deliveries []domain.DeliveryID) (map[domain.DeliveryID]int64, error) {
	numbers := map[domain.DeliveryID]int64{}
	if len(deliveries) == 0 {
		return numbers, nil
	}
	rows, _ := s.pool.Query(ctx, `SELECT delivery_id, webhook_id, since, number FROM medilab.sequence WHERE delivery_id = ANY($1)`, deliveries)
	var id domain.DeliveryID
	var webhook domain.WebhookID
	var since, number int64
	_, err := pgx.ForEachRow(rows, []any{&id, &webhook, &since, &number}, func() error {
		if w, _ := s.directory.Webhook(webhook); w.SequenceSince == since {
			numbers[id] = number
		}
		return nil
	})
	return numbers, eventstore.Doing("read the numbers of deliveries", err)
}

// isNumbered reports whether deliveries of the webhook are numbered now.
func (s *session) isNumbered(id domain.WebhookID) bool {
	w, _ := s.directory.Webhook(id)
	return w.SequenceSince > 0
}

// readNumbers reads the numbers of what was claimed.
func (s *session) readNumbers(ctx context.Context, claimed []*delivery) error {
	var wanted []domain.DeliveryID
	for _, d := range claimed {
		if s.isNumbered(d.webhook) && !d.isBatch {
			wanted = append(wanted, d.id)
		}
	}
	numbers, err := s.numbers(ctx, wanted)
	for _, d := range claimed {
		d.sequence = numbers[d.id]
	}
	return err
}

// numberMembers reads the numbers of what waits for batches.
func (s *session) numberMembers(ctx context.Context, waiting map[domain.WebhookID][]domain.Waiting) error {
	var wanted []domain.DeliveryID
	for webhook, line := range waiting {
		if !s.isNumbered(webhook) {
			continue
		}
		for i := range line {
			wanted = append(wanted, line[i].DeliveryID)
		}
	}
	numbers, err := s.numbers(ctx, wanted)
	for _, line := range waiting {
		for i := range line {
			line[i].Sequence = numbers[line[i].DeliveryID]
		}
	}
	return err
}
