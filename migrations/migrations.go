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
	"regexp"
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

	// lockNotAvailable is the SQLSTATE of a lock that was not got within lock_timeout.
	lockNotAvailable = "55P03"

	// pollInterval paces waits for other nodes.
	pollInterval = time.Second
)

// ErrNewer says that a newer version of the program has migrated the database.
var ErrNewer = errors.New("a newer version of medilab-webhooks has changed the database's schema: use that version, this one does not know the schema")

// Up applies every migration that the database lacks and returns the names of the files it
// applied, in order; none when the database was up to date. It needs two connections of the pool. The
// role needs to own the database or the schema medilab, not to be a superuser. Nodes that start
// together are safe: one migrates, the others wait for it and find nothing to do. It waits until no node
// works on the database that does not survive the migrations, and says on what it waits. A file that fails
// is rolled back whole, those before it stay applied. See Pending for a database that is ahead.
func Up(ctx context.Context, pool *pgxpool.Pool, logger *slog.Logger) (applied []string, err error) {
	if err := checkServer(ctx, pool); err != nil {
		return nil, err
	}
	unlock, err := lock(ctx, pool, logger)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	pending, oldest, err := lacking(ctx, pool)
	if err != nil || !pending {
		return nil, err
	}
	if err := awaitOldNodes(ctx, pool, oldest, logger); err != nil {
		return nil, err
	}
	db := stdlib.OpenDBFromPool(pool)
	defer func() { err = errors.Join(err, db.Close()) }()
	provider, err := newProvider(db)
	if err != nil {
		return nil, err
	}
	err = poll(ctx, logger, "a migration does not get a lock at once, trying again", func() (locked string, err error) {
		results, err := provider.Up(ctx)
		partial := (*goose.PartialError)(nil)
		if errors.As(err, &partial) {
			results = partial.Applied
			locked = path.Base(partial.Failed.Source.Path)
			err = fmt.Errorf("%s: %w", locked, partial.Err)
		}
		for _, r := range results {
			applied = append(applied, path.Base(r.Source.Path))
		}
		if refused := (*pgconn.PgError)(nil); locked != "" && errors.As(err, &refused) && refused.Code == lockNotAvailable {
			return locked, nil
		}
		return "", err
	})
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
// ErrNewer, unless programs of this version's schema survive what it has more.
func Pending(ctx context.Context, db Querier) (bool, error) {
	pending, _, err := lacking(ctx, db)
	return pending, err
}

// lacking is Pending, and returns the oldest schema whose programs survive what the database lacks.
func lacking(ctx context.Context, db Querier) (pending bool, oldest int64, err error) {
	var have int64
	err = db.QueryRow(ctx, `SELECT coalesce(max(version_id), 0) FROM `+versionTable).Scan(&have)
	if err != nil && !isMissing(err) { // missing: never migrated
		return false, 0, fmt.Errorf("read the schema version: %w", err)
	}
	newest, oldest, err := numbers(have)
	if err != nil || have <= newest {
		return have < newest, oldest, err
	}
	var least int64
	if err := db.QueryRow(ctx, `SELECT schema_version FROM medilab.log_head`).Scan(&least); err != nil {
		return false, 0, fmt.Errorf("read the oldest schema that is served: %w", err)
	}
	if newest < least {
		return false, 0, ErrNewer
	}
	return false, 0, nil
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

// oldestSchema is how a file names the oldest schema whose programs survive it.
var oldestSchema = regexp.MustCompile(`(?m)^SET LOCAL medilab\.oldest_schema = (\d+);$`)

// numbers returns the number of the newest embedded file, and the oldest schema whose programs survive
// all files that are newer than have.
func numbers(have int64) (newest, oldest int64, err error) {
	names, err := fs.Glob(files, "sql/*.sql")
	if err != nil {
		return 0, 0, fmt.Errorf("list migrations: %w", err)
	}
	for _, name := range names {
		number, _, _ := strings.Cut(path.Base(name), "_")
		if newest, err = strconv.ParseInt(number, 10, 64); err != nil {
			return 0, 0, fmt.Errorf("migration %s has no number: %w", name, err)
		}
		if newest <= have {
			continue
		}
		content, err := files.ReadFile(name)
		if err != nil {
			return 0, 0, fmt.Errorf("read migration: %w", err)
		}
		survives := newest
		if named := oldestSchema.FindSubmatch(content); named != nil {
			if survives, err = strconv.ParseInt(string(named[1]), 10, 64); err != nil {
				return 0, 0, fmt.Errorf("migration %s: %w", name, err)
			}
		}
		oldest = max(oldest, survives)
	}
	return newest, oldest, nil
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

// awaitOldNodes waits until no node has a lease whose program was made for an older schema than the
// oldest: it would damage what it does not know.
func awaitOldNodes(ctx context.Context, pool *pgxpool.Pool, oldest int64, logger *slog.Logger) error {
	return poll(ctx, logger, "stop the nodes of the older version: the migrations wait for them", func() (nodes string, err error) {
		// Before migration 42 the column is not there.
		err = pool.QueryRow(ctx, `SELECT coalesce(string_agg(name, ', ' ORDER BY name), '') FROM medilab.nodes AS n
			WHERE lease_until > clock_timestamp() AND coalesce((to_jsonb(n) ->> 'schema_version')::bigint, 0) < $1`, oldest).Scan(&nodes)
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
