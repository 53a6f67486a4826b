package commands

import (
	"context"
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

var errOtherBody = domain.Conflict("this Idempotency-Key came with another request before")

// usedKey returns the event that reserved the caller's key, nil if none did.
func (c *Commands) usedKey(ctx context.Context, caller Caller, stream string) (*eventstore.Event, domain.IdempotencyKeyUsed, error) {
	events, err := c.Log.Load(ctx, stream)
	if err != nil || len(events) == 0 || !caller.Appended(events[0]) {
		return nil, domain.IdempotencyKeyUsed{}, Failed("look up an idempotency key", err)
	}
	used, ok := events[0].Value.(domain.IdempotencyKeyUsed)
	if !ok {
		return nil, used, domain.Internal("look up an idempotency key", events[0].Err)
	}
	return &events[0], used, nil
}

// formerKeys knows whether the log has keys of versions in which callers shared them. As no
// more are added, a process asks once.
type formerKeys struct{ none, some atomic.Bool }

func (f *formerKeys) exist(ctx context.Context, pool *pgxpool.Pool) (bool, error) {
	if f.none.Load() || f.some.Load() {
		return f.some.Load(), nil
	}
	var some bool
	err := pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM medilab.events WHERE stream > $1 AND stream < $1 || '~')`, domain.FormerKeyStreams).Scan(&some)
	if err != nil {
		return false, Failed("look for former idempotency keys", err)
	}
	f.some.Store(some)
	f.none.Store(!some)
	return some, nil
}
