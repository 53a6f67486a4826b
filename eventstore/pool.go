package eventstore

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// OpenPool connects to the database as the log needs it. The pool is the
// caller's to close.
func OpenPool(ctx context.Context, url string, maxConns int) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("the database's URL cannot be read (its text is not shown: it may hold a password)")
	}
	config.MaxConns = int32(maxConns)
	config.MaxConnIdleTime = 5 * time.Minute
	params := config.ConnConfig.RuntimeParams
	params["application_name"] = "medilab-webhooks"
	params["timezone"] = "UTC"
	// A node that freezes in a transaction must not hold its locks.
	params["idle_in_transaction_session_timeout"] = "10s"
	// An append that was answered survives a crash, whatever the server's default.
	params["synchronous_commit"] = "on"
	params["jit"] = "off"
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect to the database: %w", err)
	}
	return pool, nil
}
