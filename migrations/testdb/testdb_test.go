package testdb

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/migrations"
	"github.com/medilab/webhooks/migrations/filelock"
)

func TestNewIsMigratedAndAlone(t *testing.T) {
	ctx := t.Context()
	for range 2 {
		conn, err := pgx.Connect(ctx, New(t))
		if err != nil {
			t.Fatal(err)
		}
		pending, err := migrations.Pending(ctx, conn)
		if err != nil || pending {
			t.Errorf("pending = %v, %v; want a migrated database", pending, err)
		}
		// Fails for the second database if the two are one.
		if _, err := conn.Exec(ctx, `CREATE TABLE medilab.mine ()`); err != nil {
			t.Error(err)
		}
		if err := conn.Close(ctx); err != nil {
			t.Error(err)
		}
	}
}

func TestNewEmptyHasNoMigrations(t *testing.T) {
	conn, err := pgx.Connect(t.Context(), NewEmpty(t))
	if err != nil {
		t.Fatal(err)
	}
	pending, err := migrations.Pending(t.Context(), conn)
	if err != nil || !pending {
		t.Errorf("pending = %v, %v; want pending migrations", pending, err)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestKeeperEndsWhenIdle: the server stays while a process uses it, and then goes with its data.
func TestKeeperEndsWhenIdle(t *testing.T) {
	base := t.TempDir()
	ready, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	users, err := filelock.Wait(filepath.Join(base, "users"), syscall.LOCK_SH)
	if err != nil {
		t.Fatal(err)
	}
	kept := make(chan error, 1)
	go func() { kept <- keep(t.Context(), base, 4*tick, out) }()
	line, err := bufio.NewReader(ready).ReadString('\n')
	if err != nil || line != "ready\n" {
		t.Fatalf("the keeper said %q, %v", line, err)
	}
	url, err := current(t.Context(), base)
	if err != nil {
		t.Fatal(err)
	}
	if err := execute(t.Context(), url, `CREATE DATABASE mine`); err != nil {
		t.Error(err)
	}
	if err := users.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-kept; err != nil {
		t.Errorf("the keeper ended with %v", err)
	}
	if _, err := current(t.Context(), base); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("current = %v, want none", err)
	}
	left, err := filepath.Glob(filepath.Join(base, "data-*"))
	if err != nil || len(left) != 0 {
		t.Errorf("data is left: %v, %v", left, err)
	}
}

// TestProcessesShare: processes that start together find one server, and their databases are theirs.
func TestProcessesShare(t *testing.T) {
	if os.Getenv(ServerVariable) != "" {
		t.Skip("a server was named")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	temporary := shortTemp(t)
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			cmd := exec.Command(self, "-test.run=^TestNew")
			cmd.Env = append(os.Environ(), "TMPDIR="+temporary)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	all.Wait()
	servers, err := filepath.Glob(filepath.Join(temporary, "medilab-testdb-*", "data-*"))
	if err != nil || len(servers) != 1 {
		t.Errorf("servers: %v, %v, want one", servers, err)
	}
	// The keeper ends when it is idle, and its folder with it; here it is told to.
	for _, dir := range servers {
		note, err := os.ReadFile(filepath.Join(dir, "lock"))
		if err != nil {
			t.Fatal(err)
		}
		var role string
		var pid int
		if _, err := fmt.Sscan(string(note), &role, &pid); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
		// Its server ends with it.
		lock, err := filelock.Wait(filepath.Join(dir, "lock"), syscall.LOCK_EX)
		if err != nil {
			t.Fatal(err)
		}
		if err := lock.Close(); err != nil {
			t.Error(err)
		}
		for {
			if _, err := os.Stat(filepath.Join(dir, "postgres", "postmaster.pid")); errors.Is(err, os.ErrNotExist) {
				break
			}
			runtime.Gosched()
		}
	}
}

func shortTemp(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mlt-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
