// Package migrations creates the tables of a database: numbered SQL files, embedded in the binary and
// applied in order, each once.
package migrations

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

// files holds sql/NNNN_name.sql in goose's format. A file that was released is never edited: a
// change is a new file.
//
//go:embed sql/*.sql
var files embed.FS

const (
	// versionTable is where goose records applied migrations.
	versionTable = "medilab.schema_version"
	// lockID is the advisory lock under which one node at a time migrates ("medilab" as bytes).
	lockID int64 = 0x6d6564696c6162
	// oldest is the oldest server that the SQL is written for, as server_version_num has it.
	oldest = 140000

	// pollInterval paces waits for other nodes.
	pollInterval = time.Second
)

// ErrNewer says that a newer version of the program has migrated the database.
var ErrNewer = errors.New("a newer version of medilab-webhooks has changed the database's schema: use that version, this one does not know the schema")

// Up applies every migration that the database lacks and returns the names of the files it
// applied, in order; none when the database was up to date. It needs two connections of the pool. The
// role needs to own the database or the schema medilab, not to be a superuser. Nodes that start
// together are safe: one migrates, the others wait for it and find nothing to do. It waits until no node
// of an older version works on the database, and says on what it waits. A file that fails is rolled
// back whole, those before it stay applied. A database that is ahead is ErrNewer.
func Up(ctx context.Context, pool *pgxpool.Pool, logger *slog.Logger) (applied []string, err error) {
	if err := checkServer(ctx, pool); err != nil {
		return nil, err
	}
	unlock, err := lock(ctx, pool, logger)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	pending, err := Pending(ctx, pool)
	if err != nil || !pending {
		return nil, err
	}
	if err := awaitOldNodes(ctx, pool, logger); err != nil {
		return nil, err
	}
	db := stdlib.OpenDBFromPool(pool)
	defer func() { err = errors.Join(err, db.Close()) }()
	provider, err := newProvider(db)
	if err != nil {
		return nil, err
	}
	results, err := provider.Up(ctx)
	if partial := (*goose.PartialError)(nil); errors.As(err, &partial) {
		results = partial.Applied
		err = fmt.Errorf("%s: %w", path.Base(partial.Failed.Source.Path), partial.Err)
	}
	for _, r := range results {
		applied = append(applied, path.Base(r.Source.Path))
	}
	if err != nil {
		return applied, fmt.Errorf("apply migrations: %w", err)
	}
	return applied, nil
}

// Querier is what Pending queries: a pgx connection, transaction or pool.
type Querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Pending reports whether the database lacks a migration that this binary has. It is one indexless
// read of a table of a few rows, cheap enough for every readiness probe. A database that is ahead is
// ErrNewer.
func Pending(ctx context.Context, db Querier) (bool, error) {
	want, err := latest()
	if err != nil {
		return false, err
	}
	var have int64
	err = db.QueryRow(ctx, `SELECT coalesce(max(version_id), 0) FROM `+versionTable).Scan(&have)
	if isMissing(err) { // never migrated
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the schema version: %w", err)
	}
	if have > want {
		return false, ErrNewer
	}
	return have < want, nil
}

// isMissing reports whether the server refused a query because its table or schema is not there.
func isMissing(err error) bool {
	refused := (*pgconn.PgError)(nil)
	return errors.As(err, &refused) && (refused.Code == "42P01" || refused.Code == "3F000")
}

// Fingerprint identifies the content of all migrations: equal fingerprints build equal schemas.
func Fingerprint() (string, error) {
	names, err := fs.Glob(files, "sql/*.sql")
	if err != nil {
		return "", fmt.Errorf("list migrations: %w", err)
	}
	sum := sha256.New()
	for _, name := range names {
		content, err := files.ReadFile(name)
		if err != nil {
			return "", fmt.Errorf("read migration: %w", err)
		}
		fmt.Fprintf(sum, "%s %d\n%s", name, len(content), content)
	}
	return hex.EncodeToString(sum.Sum(nil)[:8]), nil
}

// latest returns the number of the newest embedded file.
func latest() (int64, error) {
	names, err := fs.Glob(files, "sql/*.sql")
	if err != nil {
		return 0, fmt.Errorf("list migrations: %w", err)
	}
	if len(names) == 0 {
		return 0, errors.New("no migrations are embedded")
	}
	number, _, _ := strings.Cut(path.Base(names[len(names)-1]), "_")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("migration %s has no number: %w", names[len(names)-1], err)
	}
	return n, nil
}

func newProvider(db *sql.DB) (*goose.Provider, error) {
	sub, err := fs.Sub(files, "sql")
	if err != nil {
		return nil, fmt.Errorf("open migrations: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, sub,
		goose.WithTableName(versionTable),
		goose.WithDisableGlobalRegistry(true),
	)
	if err != nil {
		return nil, fmt.Errorf("prepare migrations: %w", err)
	}
	return provider, nil
}

// lock takes the lock and creates the schema under it. Goose could take the lock itself, but first
// creates its version table without it: two nodes at once fail there, and the table needs the schema.
func lock(ctx context.Context, pool *pgxpool.Pool, logger *slog.Logger) (unlock func() error, err error) {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to the database: %w", err)
	}
	unlock = func() error {
		err := conn.Conn().Close(context.WithoutCancel(ctx)) // which unlocks
		conn.Release()
		return err
	}
	// It polls instead of waiting inside the server: a waiting statement holds a snapshot, for which a
	// migration that builds an index concurrently would wait in turn.
	err = poll(ctx, logger, "waiting for another process that migrates the database", func() (holder string, err error) {
		var locked bool
		err = conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1), coalesce((
			SELECT format('process %s of Postgres%s%s', pid, ', client ' || client_addr, ', connected ' || backend_start::timestamptz(0))
			FROM pg_locks JOIN pg_stat_activity AS a USING (pid)
			WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND (classid::bigint << 32 | objid::bigint) = $1 AND a.datname = current_database()), 'unknown')`,
			lockID).Scan(&locked, &holder)
		if locked {
			return "", err
		}
		return holder, err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("wait for another node's migrations: %w", err), unlock())
	}
	// A role that only serves may not create a schema, not even IF NOT EXISTS.
	const createSchema = `DO $$ BEGIN IF to_regnamespace('medilab') IS NULL THEN CREATE SCHEMA medilab; END IF; END $$`
	if _, err := conn.Exec(ctx, createSchema); err != nil {
		return nil, errors.Join(fmt.Errorf("create the schema medilab: %w", err), unlock())
	}
	return unlock, nil
}

// awaitOldNodes waits until no node has a lease: one that has is of an older version, as it works on
// a schema that lacks a migration of this one, and would damage what it does not know.
func awaitOldNodes(ctx context.Context, pool *pgxpool.Pool, logger *slog.Logger) error {
	return poll(ctx, logger, "stop the nodes of the older version: the migrations wait for them", func() (nodes string, err error) {
		err = pool.QueryRow(ctx, `SELECT coalesce(string_agg(name, ', ' ORDER BY name), '') FROM medilab.nodes
			WHERE lease_until > clock_timestamp()`).Scan(&nodes)
		if isMissing(err) {
			return "", nil
		}
		return nodes, err
	})
}

// poll asks until nothing is waited for, and logs what is, whenever that is another.
func poll(ctx context.Context, logger *slog.Logger, message string, ask func() (waitedFor string, err error)) error {
	for logged := ""; ; {
		waitedFor, err := ask()
		if err != nil || waitedFor == "" {
			return err
		}
		if waitedFor != logged {
			logger.Warn(message, "for", waitedFor)
			logged = waitedFor
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pollInterval):
		}
	}
}

func checkServer(ctx context.Context, pool *pgxpool.Pool) error {
	var number int
	var name string
	err := pool.QueryRow(ctx,
		`SELECT current_setting('server_version_num')::int, current_setting('server_version')`).Scan(&number, &name)
	if err != nil {
		return fmt.Errorf("connect to the database: %w", err)
	}
	if number < oldest {
		return fmt.Errorf("the database server is Postgres %s: 14 or newer is needed", name)
	}
	return nil
}
