package eventstore

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
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
	config.PrepareConn = replan
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect to the database: %w", err)
	}
	return pool, nil
}

// replanEvery is how long a connection keeps its plans.
const replanEvery = 2 * time.Second

// replan makes the connection plan its statements again now and then. Postgres
// keeps the plan of a prepared statement until the table is analyzed next: one
// made while the queue was empty reads all of it, for minutes, when a million
// deliveries wait (0.6 to 2 s a statement, for 1 ms).
func replan(ctx context.Context, conn *pgx.Conn) (bool, error) {
	const planned = "medilab planned at"
	kept := conn.PgConn().CustomData()
	at, known := kept[planned].(time.Time)
	if known && time.Since(at) < replanEvery {
		return true, nil
	}
	if known {
		if _, err := conn.PgConn().Exec(ctx, `DISCARD PLANS`).ReadAll(); err != nil {
			return false, nil //nolint:nilerr // the connection is of no use: the pool makes another
		}
	}
	kept[planned] = time.Now()
	return true, nil
}
