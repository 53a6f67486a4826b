package eventstore

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Configuration is what a reading of the configuration returns.
type Configuration struct {
	Events  []Event  // of webhooks', tokens' and subjects' streams, in order
	Head    Position // up to which these are all
	Current Position // the last event of a webhook's stream; see Unit.Configuration
	// Generation is the log's; what was read in another may be gone.
	Generation int64
}

const configurationSQL = `SELECT ` + eventColumns + ` FROM medilab.events
	WHERE position > $1 AND position <= $2 AND (stream LIKE 'webhook-%' OR stream LIKE 'token-%' OR stream LIKE 'subject-%') ORDER BY position`

// ReadConfiguration reads the configuration's events after the position, which was reached
// in the generation, all as of one moment. In a new generation it reads all of them.
func (l *Log) ReadConfiguration(ctx context.Context, after Position, generation int64) (c Configuration, err error) {
	tx, err := l.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	defer tx.Rollback(ctx) //nolint:errcheck // read only: nothing to undo
	if c.Generation, err = l.knowledge.check(ctx, tx); err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	if c.Generation != generation {
		after = 0
	}
	if err := tx.QueryRow(ctx, `SELECT position, configuration FROM medilab.log_head`).Scan(&c.Head, &c.Current); err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	if c.Head > after {
		c.Events, err = collect(tx.Query(ctx, configurationSQL, after, c.Head))
		l.decode(c.Events)
	}
	return c, err
}

// Configuration returns the events of the webhooks' and tokens' streams after one
// position up to another, in order.
func (l *Log) Configuration(ctx context.Context, after, last Position) ([]Event, error) {
	return l.query(ctx, configurationSQL, after, last)
}

// configurationLock is the advisory lock of who holds the configuration.
const configurationLock = 0x6d65646961626

// HoldConfiguration makes those who await the configuration, in every process, wait until
// release is called. It ends with the connection too.
func (l *Log) HoldConfiguration(ctx context.Context) (release func(), err error) {
	conn, err := l.pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("hold the configuration: %w", err)
	}
	release = func() {
		if _, err := conn.Exec(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock($1)`, configurationLock); err != nil {
			_ = conn.Conn().Close(context.WithoutCancel(ctx)) // which unlocks
		}
		conn.Release()
	}
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1)`, configurationLock); err != nil {
		release()
		return nil, fmt.Errorf("hold the configuration: %w", err)
	}
	return release, nil
}

// AwaitConfiguration returns when nobody holds the configuration. It keeps no connection
// while it waits.
func (l *Log) AwaitConfiguration(ctx context.Context) error {
	const pause = 20 * time.Millisecond
	for {
		var isFree bool
		err := l.pool.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock_shared($1)`, configurationLock).Scan(&isFree)
		if err != nil {
			return fmt.Errorf("await the configuration: %w", err)
		}
		if isFree {
			return nil
		}
		if err := Sleep(ctx, pause); err != nil {
			return err
		}
	}
}
