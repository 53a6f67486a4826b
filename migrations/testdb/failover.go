package testdb

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/cmd/testbed"
	"github.com/medilab/webhooks/migrations/postgres"
)

// Pair is a primary and its streaming standby, of this test alone.
type Pair struct {
	// URL names both, the primary first.
	URL              string
	Primary, Standby string // the URL of each

	t       testing.TB
	primary string // its data folder
	standby string // likewise
}

// NewPair starts two servers with all migrations applied, which end with the test.
func NewPair(t testing.TB) *Pair {
	t.Helper()
	base, err := os.MkdirTemp(testbed.Scratch(), "pg") // short: sockets are in it
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(base) }) //nolint:errcheck // the machine's folder of temporary files
	p := &Pair{t: t, primary: filepath.Join(base, "a")}
	standby := filepath.Join(base, "b")
	p.standby = standby
	first := p.start(p.primary, nil)
	must(t, first.Stop(t.Context()))
	must(t, os.CopyFS(standby, os.DirFS(p.primary)))
	for _, path := range []string{standby, filepath.Join(standby, "postgres")} {
		must(t, os.Chmod(path, 0o700))
	}
	must(t, os.WriteFile(filepath.Join(standby, "postgres", "standby.signal"), nil, 0o600))
	// The standby's account reaches the primary's socket, which only it may use.
	for _, path := range []string{base, p.primary} {
		must(t, os.Chmod(path, 0o711))
	}
	p.Primary = p.run(p.primary, nil)
	u, err := url.Parse(p.Primary)
	must(t, err)
	password, _ := u.User.Password()
	p.Standby = p.run(standby, map[string]string{"primary_conninfo": fmt.Sprintf("host=%s port=%s user=%s password=%s",
		u.Query().Get("host"), u.Query().Get("port"), u.User.Username(), password)})
	other, err := url.Parse(p.Standby)
	must(t, err)
	both := u.Query()
	both.Set("host", u.Query().Get("host")+","+other.Query().Get("host"))
	both.Set("port", u.Query().Get("port")+","+other.Query().Get("port"))
	both.Set("target_session_attrs", "read-write")
	u.RawQuery = both.Encode()
	p.URL = u.String()
	must(t, migrate(t.Context(), p.Primary))
	p.await(p.Standby, `SELECT to_regclass('medilab.schema_version') IS NOT NULL`)
	return p
}

func (p *Pair) start(dir string, settings map[string]string) *postgres.Server {
	p.t.Helper()
	s, err := postgres.Start(p.t.Context(), postgres.Options{
		DataDir: dir, BinDir: os.Getenv("MEDILAB_POSTGRES_BIN"), Disposable: true, Settings: settings,
	})
	must(p.t, err)
	return s
}

func (p *Pair) run(dir string, settings map[string]string) string {
	p.t.Helper()
	s := p.start(dir, settings)
	p.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		p.signal(dir, syscall.SIGCONT)
		if err := s.Stop(ctx); err != nil {
			p.t.Errorf("testdb: %v", err)
		}
	})
	return s.URL()
}

// Freeze stops every process of the primary: it keeps its connections, and answers nothing.
func (p *Pair) Freeze() { p.signal(p.primary, syscall.SIGSTOP) }

// Thaw lets the primary go on as if nothing had been.
func (p *Pair) Thaw() { p.signal(p.primary, syscall.SIGCONT) }

// FreezeStandby is Freeze for the standby.
func (p *Pair) FreezeStandby() { p.signal(p.standby, syscall.SIGSTOP) }

// ThawStandby lets the standby go on.
func (p *Pair) ThawStandby() { p.signal(p.standby, syscall.SIGCONT) }

// Promote makes the standby a primary. With CatchUp before, it has all that the primary has.
func (p *Pair) Promote() {
	p.t.Helper()
	must(p.t, execute(p.t.Context(), p.Standby, `SELECT pg_promote()`))
}

// CatchUp returns when the standby has replayed what the primary has now.
func (p *Pair) CatchUp() {
	p.t.Helper()
	var at string
	conn, err := pgx.Connect(p.t.Context(), p.Primary)
	if err == nil {
		err = conn.QueryRow(p.t.Context(), `SELECT pg_current_wal_lsn()::text`).Scan(&at)
		conn.Close(p.t.Context()) //nolint:errcheck // it was only read from
	}
	must(p.t, err)
	p.await(p.Standby, `SELECT pg_last_wal_replay_lsn() >= '`+at+`'`)
}

// await returns when the query of the server returns true.
func (p *Pair) await(server, query string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, server)
	must(p.t, err)
	defer conn.Close(ctx) //nolint:errcheck // it is only read from
	for holds := false; !holds; {
		must(p.t, conn.QueryRow(ctx, query).Scan(&holds))
		time.Sleep(time.Millisecond) // the server tells nobody
	}
}

// signal sends to the server in the folder, and to its processes.
func (p *Pair) signal(dir string, signal syscall.Signal) {
	p.t.Helper()
	parent, err := testbed.Postmaster(filepath.Join(dir, "postgres"))
	must(p.t, err)
	send := func(pid int) {
		if err := syscall.Kill(pid, signal); err != nil && err != syscall.ESRCH {
			p.t.Fatalf("testdb: %v", err)
		}
	}
	send(parent) // first, so that it makes no more
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", parent, parent))
	if err != nil {
		p.t.Skipf("testdb: the processes of a server cannot be listed here: %v", err)
	}
	for _, child := range strings.Fields(string(children)) {
		if pid, err := strconv.Atoi(child); err == nil {
			send(pid)
		}
	}
}
