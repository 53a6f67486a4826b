package faults

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/migrations/postgres"
)

// cluster is a Postgres at full durability that nodes share by DATABASE_URL.
type cluster struct {
	dir      string
	settings map[string]string

	mu     sync.Mutex
	server *postgres.Server
}

// shared is the cluster of all runs that do not break it; each has a database.
var (
	shared     *cluster
	sharedOnce sync.Once
)

func sharedCluster(t testing.TB) *cluster {
	t.Helper()
	sharedOnce.Do(func() {
		dir, err := os.MkdirTemp("", "pg-")
		if err != nil {
			t.Fatal(err)
		}
		c := &cluster{dir: dir, settings: map[string]string{"max_connections": "400"}}
		if err := c.start(context.Background()); err != nil {
			t.Fatal(errors.Join(err, os.RemoveAll(dir)))
		}
		shared = c
	})
	if shared == nil {
		t.Fatal("the campaign's Postgres did not start")
	}
	return shared
}

func stopPostgres() error {
	if shared == nil {
		return nil
	}
	return errors.Join(shared.stop(), os.RemoveAll(shared.dir))
}

// ownCluster is one that the run may break.
func ownCluster(t testing.TB, dir string, settings map[string]string) *cluster {
	t.Helper()
	c := &cluster{dir: dir, settings: settings}
	if err := c.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.stop(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func (c *cluster) start(ctx context.Context) error {
	server, err := postgres.Start(ctx, postgres.Options{DataDir: c.dir, BinDir: os.Getenv("MEDILAB_POSTGRES_BIN"), Settings: c.settings})
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.server = server
	return nil
}

func (c *cluster) stop() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := c.server.Stop(ctx)
	c.server = nil
	return err
}

// crash stops the server at once: what it had not on disk is gone.
func (c *cluster) crash(t testing.TB) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(c.dir, "postgres", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	server := c.server
	c.server = nil
	c.mu.Unlock()
	if err := syscall.Kill(pid, syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	<-server.Done()
	server.Stop(t.Context()) //nolint:errcheck // it says that it ended by itself; this lets the folder go
}

// url is where a database of the cluster is; it stays the same over restarts.
func (c *cluster) url(t testing.TB, database string) string {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	u, err := url.Parse(c.server.URL())
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + database
	return u.String()
}

// database makes an empty one, which is dropped at the end of the run.
func (c *cluster) database(t testing.TB) string { return c.databaseFor(t, "") }

// databaseFor makes one of several of the run.
func (c *cluster) databaseFor(t testing.TB, suffix string) string {
	t.Helper()
	name := "run_" + strconv.FormatInt(int64(os.Getpid()), 36) + "_" + strings.ToLower(strings.NewReplacer("/", "_", "-", "_").Replace(t.Name()))
	name = name[:min(len(name), 50)] + suffix
	c.exec(t, fmt.Sprintf(`CREATE DATABASE %q`, name))
	t.Cleanup(func() {
		if t.Failed() && os.Getenv("FAULTS_KEEP") != "" {
			return
		}
		c.exec(t, fmt.Sprintf(`DROP DATABASE %q WITH (FORCE)`, name))
	})
	return c.url(t, name)
}

func (c *cluster) exec(t testing.TB, sql string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	conn, err := pgx.Connect(ctx, c.url(t, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx) //nolint:errcheck // nothing is left to lose
	if _, err := conn.Exec(ctx, sql); err != nil {
		t.Fatal(err)
	}
}

// connect returns the run's own look at the database, as its superuser.
func connect(t testing.TB, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(context.WithoutCancel(t.Context()), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}
