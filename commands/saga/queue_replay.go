package saga

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// What a paused replay has asked for stays in the queue, due later than anything can be: by
// so much, which is taken off when it is resumed. What is in a line goes on: live events
// wait behind it.
const (
	held    = "interval '1000 years'"
	longest = 100 * 365 * 24 * time.Hour
)

// OfReplay implements commands.Queue.
func (q Queue) OfReplay(ctx context.Context, id domain.ReplayID) ([]commands.Replayed, error) {
	rows, _ := q.Pool.Query(ctx, `SELECT delivery_id, event_id, webhook_id, version, coalesce(node, 0) = 0, line IS NOT NULL,
			coalesce(node > 0, due_at <= clock_timestamp()), due_at > clock_timestamp() + $2
		FROM medilab.queue WHERE replay = $1 AND due_at < 'infinity'`, id, longest) // what blocks its line has failed
	waiting, err := pgx.CollectRows(rows, pgx.RowToStructByPos[commands.Replayed])
	return waiting, eventstore.Doing("look into the queue", err)
}

// Hold implements commands.Queue.
func (q Queue) Hold(ctx context.Context, id domain.ReplayID) error {
	_, err := q.Pool.Exec(ctx, `UPDATE medilab.queue SET due_at = due_at + `+held+`
		WHERE replay = $1 AND node IS NULL AND line IS NULL AND due_at < clock_timestamp() + $2`, id, longest)
	return eventstore.Doing("hold what a replay has queued", err)
}

// Release implements commands.Queue.
func (q Queue) Release(ctx context.Context, id domain.ReplayID) error {
	_, err := q.Pool.Exec(ctx, `UPDATE medilab.queue SET due_at = greatest(due_at - `+held+`, clock_timestamp())
		WHERE replay = $1 AND due_at > clock_timestamp() + $2 AND due_at < 'infinity'`, id, longest)
	return eventstore.Doing("release what a replay has queued", err)
}

// hold takes out of memory what waits in the lane of d of the same replay, and makes the table hold it
// from when it is released. Should that fail, it comes back here.
func (s *session) hold(d *delivery) []*delivery {
	deliveries := s.lanes.takeOut(d, func(other *delivery) bool { return other.replay == d.replay && other.line == domain.NoLine })
	ids := make([][16]byte, len(deliveries))
	for i, d := range deliveries {
		ids[i] = d.id
	}
	ctx, cancel := context.WithTimeout(context.Background(), putBackTimeout)
	defer cancel()
	_, err := s.pool.Exec(ctx, `UPDATE medilab.queue SET due_at = due_at + `+held+`
		WHERE node = $1 AND delivery_id = ANY($2::uuid[]) AND line IS NULL AND due_at < clock_timestamp() + $3`, s.node.ID, ids, longest)
	if err != nil {
		s.logger.Debug("what a replay has queued is not held", "replay", d.replay.String(), "error", err)
	}
	return deliveries
}
