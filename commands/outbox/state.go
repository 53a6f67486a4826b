package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// State is what operators watch of the outbox.
type State struct {
	Waiting int64         // committed and not yet in the log; counted up to WaitingMax
	Oldest  time.Duration // since the oldest of them was emitted; zero if none waits
	Parked  int64         // dead letters
}

// WaitingMax bounds State.Waiting, so that watching stays cheap.
const WaitingMax = 100_000

// ReadState reads the state of the outbox.
func ReadState(ctx context.Context, pool *pgxpool.Pool) (State, error) {
	var s State
	var oldest float64
	err := pool.QueryRow(ctx, `
		SELECT (SELECT count(*) FROM (SELECT FROM medilab.outbox LIMIT $1) AS waiting),
			coalesce((SELECT extract(epoch FROM clock_timestamp() - coalesce(inserted_at, emitted_at)) FROM medilab.outbox ORDER BY seq LIMIT 1), 0)::float8,
			(SELECT count(*) FROM medilab.parked_events)`, WaitingMax).Scan(&s.Waiting, &oldest, &s.Parked)
	if err != nil {
		return State{}, fmt.Errorf("read the state of the outbox: %w", err)
	}
	s.Oldest = time.Duration(oldest * float64(time.Second))
	return s, nil
}
