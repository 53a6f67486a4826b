package eventstore

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Configuration is what a reading of the configuration returns.
type Configuration struct {
	Events  []Event  // of webhooks' and tokens' streams, in order
	Head    Position // up to which these are all
	Current Position // the last event of a webhook's stream; see Unit.Configuration
}

const configurationSQL = `SELECT ` + eventColumns + ` FROM medilab.events
	WHERE position > $1 AND position <= $2 AND (stream LIKE 'webhook-%' OR stream LIKE 'token-%') ORDER BY position`

// ReadConfiguration reads the configuration's events after the position, all as of one
// moment.
func (l *Log) ReadConfiguration(ctx context.Context, after Position) (c Configuration, err error) {
	tx, err := l.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	defer tx.Rollback(ctx) //nolint:errcheck // read only: nothing to undo
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
