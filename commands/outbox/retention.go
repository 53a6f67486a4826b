package outbox

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
)

// DiscardExpired discards the dead letters that were parked longer ago than content is to be kept,
// each on record; one that cannot be discarded holds up no other. It may be called on any node, at
// any time.
func DiscardExpired(ctx context.Context, c *commands.Commands, keep time.Duration) (failed error) {
	const some = 1000
	ids := make([]int64, 1)
	for more := true; more; {
		// parked_at has no index; ids follow it, so that nothing is read beyond the first page of younger ones.
		rows, _ := c.Pool.Query(ctx, `SELECT id FROM (SELECT id, parked_at FROM medilab.parked_events WHERE id > $2 ORDER BY id LIMIT $3) AS p
			WHERE parked_at < $1 ORDER BY id`, c.Now().Add(-keep), ids[len(ids)-1], some)
		var err error
		if ids, err = pgx.CollectRows(rows, pgx.RowTo[int64]); err != nil {
			return errors.Join(failed, commands.Failed("look for parked events of the past", err))
		}
		for _, id := range ids {
			err := DiscardParked(ctx, c, commands.Caller{Actor: commands.ActorRetention}, id)
			if ctx.Err() != nil || errors.Is(err, domain.KindUnavailable) { // the next would fail too
				return errors.Join(failed, err)
			}
			if err != nil && !errors.Is(err, domain.KindNotFound) { // another node was first
				failed = errors.Join(failed, err)
			}
		}
		more = len(ids) == some
	}
	return failed
}
