// Package testdb makes a Postgres database for a test.
//
// All test processes of a user share one server, which the first of them starts and which ends by
// itself soon after the last. MEDILAB_TEST_DATABASE_URL names another server to use, with a role
// that may create databases.
package testdb

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/migrations"
)

// ServerVariable is the environment variable that names a server to use instead of our own.
const ServerVariable = "MEDILAB_TEST_DATABASE_URL"

// patience bounds each step; the slowest is the first start on a busy machine, or a download.
const patience = 5 * time.Minute

// New makes a database with all migrations applied, dropped when the test ends, and returns its URL.
func New(t testing.TB) string {
	t.Helper()
	name, err := template()
	must(t, err)
	return create(t, name)
}

// NewEmpty makes a database without migrations, dropped when the test ends, and returns its URL.
func NewEmpty(t testing.TB) string {
	t.Helper()
	return create(t, "template1")
}

func create(t testing.TB, from string) string {
	t.Helper()
	admin, err := server()
	must(t, err)
	name := "medilab_test_" + strings.ToLower(rand.Text())
	how, err := strategy()
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, administer(ctx, fmt.Sprintf(`CREATE DATABASE %s TEMPLATE %s %s`, name, from, how)))
	t.Cleanup(func() { drop(t, name) })
	made, err := inDatabase(admin, name)
	must(t, err)
	return made
}

// must ends the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("testdb: %v", err)
	}
}

// drop drops a database of the test.
func drop(t testing.TB, name string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := administer(ctx, fmt.Sprintf(`DROP DATABASE IF EXISTS %s WITH (FORCE)`, name)); err != nil {
		t.Errorf("testdb: %v", err)
	}
}

// server is the URL of the server's maintenance database, found or started once a process.
var server = sync.OnceValues(func() (string, error) {
	if given := os.Getenv(ServerVariable); given != "" {
		return given, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return join(ctx)
})

// administration connects to the maintenance database, for as long as the process lives.
var administration = sync.OnceValues(func() (*pgxpool.Pool, error) {
	admin, err := server()
	if err != nil {
		return nil, err
	}
	return pgxpool.New(context.Background(), admin)
})

// administer executes a statement in the maintenance database.
func administer(ctx context.Context, statement string) error {
	pool, err := administration()
	if err == nil {
		_, err = pool.Exec(ctx, statement)
	}
	return err
}

// strategy is the clause that has a template copied file by file, where the server can and does not
// sync each: it costs half of what a copy through the log of changes does.
var strategy = sync.OnceValues(func() (clause string, err error) {
	pool, err := administration()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err = pool.QueryRow(ctx, `SELECT CASE WHEN current_setting('server_version_num')::int >= 150000
		AND NOT current_setting('fsync')::bool THEN 'STRATEGY file_copy' ELSE '' END`).Scan(&clause)
	return clause, err
})

// template is the name of a database with this binary's migrations, which is made once a server.
var template = sync.OnceValues(func() (string, error) {
	admin, err := server()
	if err != nil {
		return "", err
	}
	fingerprint, err := migrations.Fingerprint()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	name := "medilab_template_" + fingerprint
	if err := makeTemplate(ctx, admin, name); err != nil {
		return "", fmt.Errorf("make the template database: %w", err)
	}
	return name, nil
})

// makeTemplate migrates a database under another name and renames it when it is whole, so that a
// template that exists is complete. An advisory lock lets one process at a time do it.
func makeTemplate(ctx context.Context, admin, name string) (err error) {
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	// The lock ends with the connection.
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock(hashtextextended('medilab testdb', 0))`); err != nil {
		return err
	}
	var exists bool
	err = conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, name).Scan(&exists)
	if err != nil || exists {
		return err
	}
	building := name + "_building"
	for _, statement := range []string{
		fmt.Sprintf(`DROP DATABASE IF EXISTS %s WITH (FORCE)`, building),
		fmt.Sprintf(`CREATE DATABASE %s TEMPLATE template1`, building),
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return err
		}
	}
	target, err := inDatabase(admin, building)
	if err != nil {
		return err
	}
	if err := migrate(ctx, target); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, fmt.Sprintf(`ALTER DATABASE %s RENAME TO %s`, building, name))
	return err
}

// migrate applies all migrations.
func migrate(ctx context.Context, url string) error {
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return err
	}
	defer pool.Close()
	_, err = migrations.Up(ctx, pool, slog.New(slog.DiscardHandler))
	return err
}

func execute(ctx context.Context, url, statement string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, statement)
	return errors.Join(err, conn.Close(ctx))
}

// inDatabase is the server's URL with another database.
func inDatabase(server, name string) (string, error) {
	u, err := url.Parse(server)
	if err != nil || u.Scheme == "" {
		return "", errors.New(ServerVariable + " is not a postgres:// URL")
	}
	u.Path = "/" + name
	return u.String(), nil
}
