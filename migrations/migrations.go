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
	"path"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
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

	// A node waits for another's migration with one try a second, for an hour: migrating a large table
	// takes its time, and ctx can end the wait sooner.
	lockPeriodSeconds, lockTries = 1, 3600
)

// Up applies every migration that the database at url lacks and returns the names of the files it
// applied, in order; none when the database was up to date. The role needs to own the database, not
// to be a superuser. Nodes that start together are safe: one migrates, the others wait for it and
// find nothing to do. A file that fails is rolled back whole, those before it stay applied.
func Up(ctx context.Context, url string) (applied []string, err error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("read the database URL: %w", err)
	}
	db := stdlib.OpenDB(*config)
	defer func() { err = errors.Join(err, db.Close()) }()

	if err := checkServer(ctx, db); err != nil {
		return nil, err
	}
	unlock, err := prepare(ctx, db)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
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
// read of a table of a few rows, cheap enough for every readiness probe. A database that is ahead,
// because a newer node migrated it, has nothing pending.
func Pending(ctx context.Context, db Querier) (bool, error) {
	want, err := latest()
	if err != nil {
		return false, err
	}
	var have int64
	err = db.QueryRow(ctx, `SELECT coalesce(max(version_id), 0) FROM `+versionTable).Scan(&have)
	if refused := (*pgconn.PgError)(nil); errors.As(err, &refused) {
		switch refused.Code {
		case "42P01", "3F000": // no such table, no such schema: never migrated
			return true, nil
		}
	}
	if err != nil {
		return false, fmt.Errorf("read the schema version: %w", err)
	}
	return have < want, nil
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

// prepare takes the lock and creates the schema under it. Goose could take the lock itself, but first
// creates its version table without it: two nodes at once fail there, and the table needs the schema.
func prepare(ctx context.Context, db *sql.DB) (unlock func() error, err error) {
	advisory, err := lock.NewPostgresSessionLocker(
		lock.WithLockID(lockID),
		lock.WithLockTimeout(lockPeriodSeconds, lockTries),
	)
	if err != nil {
		return nil, fmt.Errorf("prepare the migration lock: %w", err)
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to the database: %w", err)
	}
	// It polls instead of waiting inside the server: a waiting statement holds a snapshot, for which a
	// migration that builds an index concurrently would wait in turn.
	if err := advisory.SessionLock(ctx, conn); err != nil {
		return nil, errors.Join(fmt.Errorf("wait for another node's migrations: %w", err), conn.Close())
	}
	unlock = func() error {
		return errors.Join(advisory.SessionUnlock(context.WithoutCancel(ctx), conn), conn.Close())
	}
	// A role that only serves may not create a schema, not even IF NOT EXISTS.
	const createSchema = `DO $$ BEGIN IF to_regnamespace('medilab') IS NULL THEN CREATE SCHEMA medilab; END IF; END $$`
	if _, err := conn.ExecContext(ctx, createSchema); err != nil {
		return nil, errors.Join(fmt.Errorf("create the schema medilab: %w", err), unlock())
	}
	return unlock, nil
}

func checkServer(ctx context.Context, db *sql.DB) error {
	var number int
	var name string
	err := db.QueryRowContext(ctx,
		`SELECT current_setting('server_version_num')::int, current_setting('server_version')`).Scan(&number, &name)
	if err != nil {
		return fmt.Errorf("connect to the database: %w", err)
	}
	if number < oldest {
		return fmt.Errorf("the database server is Postgres %s: 14 or newer is needed", name)
	}
	return nil
}
