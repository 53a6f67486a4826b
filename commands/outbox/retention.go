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
// each on record. It may be called on any node, at any time.
func DiscardExpired(ctx context.Context, c *commands.Commands, keep time.Duration) error {
	const some = 1000
	ids := make([]int64, 1)
	for len(ids) > 0 {
		rows, _ := c.Pool.Query(ctx, `SELECT id FROM medilab.parked_events WHERE parked_at < $1 AND id > $2 ORDER BY id LIMIT $3`,
			c.Now().Add(-keep), ids[len(ids)-1], some)
		var err error
		if ids, err = pgx.CollectRows(rows, pgx.RowTo[int64]); err != nil {
			return commands.Failed("look for parked events of the past", err)
		}
		for _, id := range ids {
			err := DiscardParked(ctx, c, commands.Caller{Actor: commands.ActorRetention}, id)
			if err != nil && !errors.Is(err, domain.KindNotFound) { // else it is settled already
				return err
			}
		}
	}
	return nil
}
