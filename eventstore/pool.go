package eventstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// statementCache is how many prepared statements a connection keeps.
const statementCache = 512

// OpenPool connects to the database as the log needs it, by at most maxConns connections,
// at least 2. The pool is the caller's to close.
func OpenPool(ctx context.Context, url string, maxConns int) (*pgxpool.Pool, error) {
	return openPool(ctx, url, maxConns, nil)
}

// OpenPool is the function of that name for a pool that the guard protects, whose own
// connections count.
func (g *Guard) OpenPool(ctx context.Context, url string, maxConns int) (*pgxpool.Pool, error) {
	return openPool(ctx, url, maxConns, g)
}

// OpenStandbyPool returns a pool of connections to a standby, which need not be there yet.
func OpenStandbyPool(ctx context.Context, url string, maxConns int) (*pgxpool.Pool, error) {
	config, err := poolConfig(url, maxConns)
	if err != nil {
		return nil, err
	}
	config.ConnConfig.ConnectTimeout = connectTimeout
	return pgxpool.NewWithConfig(ctx, config)
}

func openPool(ctx context.Context, url string, maxConns int, guard *Guard) (*pgxpool.Pool, error) {
	config, err := poolConfig(url, maxConns)
	if err != nil {
		return nil, err
	}
	if guard != nil {
		guard.protect(config)
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	if err := checkPooler(ctx, pool); err != nil {
		pool.Close()
		return nil, err
	}
	return pool, nil
}

// CheckURL returns what is wrong with the URL of a database, or with a file that it names. Its
// errors hold no password.
func CheckURL(url string) error {
	_, err := parseURL(url)
	return err
}

func parseURL(url string) (*pgxpool.Config, error) {
	config, err := pgxpool.ParseConfig(url)
	if err == nil {
		return config, nil
	}
	var file *fs.PathError
	cause := errors.Unwrap(err)
	switch {
	case errors.As(cause, &file):
		return nil, fmt.Errorf("the database's URL names a file that is not readable, %s: %w", file.Path, file.Err)
	case cause != nil && cause.Error() == "unable to add CA to cert pool":
		return nil, errors.New("the file that the database's URL names by sslrootcert holds no certificate in PEM form")
	case cause != nil && strings.HasSuffix(err.Error(), ": failed to configure TLS ("+cause.Error()+")"):
		return nil, fmt.Errorf("the database's URL asks for TLS that cannot be set up: %w", cause)
	}
	return nil, errors.New("the database's URL cannot be read (its text is not shown: it may hold a password)")
}

func poolConfig(url string, maxConns int) (*pgxpool.Config, error) {
	config, err := parseURL(url)
	if err != nil {
		return nil, err
	}
	// The URL may say otherwise, but the queries need what only prepared statements have.
	config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheStatement
	config.ConnConfig.StatementCacheCapacity = statementCache
	config.MaxConns, config.MinConns, config.MinIdleConns = int32(max(2, maxConns)), 0, 0
	config.MaxConnIdleTime = 5 * time.Minute
	config.PrepareConn = replan
	config.ShouldPing = func(_ context.Context, p pgxpool.ShouldPingParams) bool {
		return p.IdleDuration > time.Second && !replanDue(p.Conn) // replan asks the server too
	}
	config.AfterConnect = prepareSession
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = onlyTimeout
		if slices.ContainsFunc(config.ConnConfig.Fallbacks, func(f *pgconn.FallbackConfig) bool {
			return f.Host != config.ConnConfig.Host || f.Port != config.ConnConfig.Port
		}) {
			config.ConnConfig.ConnectTimeout = connectTimeout
		}
	}
	return config, nil
}

// replanEvery is how long a connection keeps its plans.
const replanEvery = 2 * time.Second

// replan makes the connection plan its statements again now and then. Postgres
// keeps the plan of a prepared statement until the table is analyzed next: one
// made while the queue was empty reads all of it, for minutes, when a million
// deliveries wait (0.6 to 2 s a statement, for 1 ms).
//
// A connection whose server is another than at its start is of no use: it has lost its
// session, as when a pooler leaves session mode.
func replan(ctx context.Context, conn *pgx.Conn) (bool, error) {
	kept := conn.PgConn().CustomData()
	if replanDue(conn) {
		results, err := conn.PgConn().Exec(ctx, `DISCARD PLANS; SELECT pg_backend_pid()`).ReadAll()
		if err != nil || string(results[1].Rows[0][0]) != kept[serverOf] {
			return false, nil //nolint:nilerr // the connection is of no use: the pool makes another
		}
	}
	if _, known := kept[plannedAt]; !known || replanDue(conn) {
		kept[plannedAt] = time.Now()
	}
	return true, nil
}

const plannedAt = "medilab planned at"

// replanDue reports whether the connection has kept its plans for long enough.
func replanDue(conn *pgx.Conn) bool {
	at, known := conn.PgConn().CustomData()[plannedAt].(time.Time)
	return known && time.Since(at) >= replanEvery
}
