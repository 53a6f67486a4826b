package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestKilledProcessLosesNothing: after kill -9 the server ends by itself, and the next start finds
// everything that was committed.
func TestKilledProcessLosesNothing(t *testing.T) {
	o := options(t, seeded(t))
	h := startHelper(t, o.DataDir, nil)
	h.await(t, "ready")
	s, err := Attach(t.Context(), o.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	remember(t, s.URL(), "before the kill")
	mustStop(t, s)
	h.kill()
	next := mustStart(t, o)
	if got := recall(t, next.URL()); got != "seed,before the kill" {
		t.Errorf("kept = %q", got)
	}
	if n := serversOf(t, o.DataDir); n != 1 {
		t.Errorf("%d servers run, want one", n)
	}
}

// TestStalePostmasterIsStopped: a server that did not end with its process is stopped, not doubled.
func TestStalePostmasterIsStopped(t *testing.T) {
	o, err := options(t, seeded(t)).complete()
	if err != nil {
		t.Fatal(err)
	}
	left := leaveBehind(t, o)
	s := mustStart(t, o)
	<-left.ended
	if got := recall(t, s.URL()); got != "seed" {
		t.Errorf("kept = %q", got)
	}
	if n := serversOf(t, o.DataDir); n != 1 {
		t.Errorf("%d servers run, want one", n)
	}
}

// leaveBehind starts a server that no lock knows of.
func leaveBehind(t *testing.T, o Options) *child {
	t.Helper()
	a, err := chooseAccount(o.clusterDir())
	if err != nil {
		t.Fatal(err)
	}
	b, err := findBinaries(t.Context(), o, a, 0)
	if err != nil {
		t.Fatal(err)
	}
	password, err := readPassword(o.clusterDir())
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{Options: o, account: a, binaries: b, password: password}
	left, err := c.launch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = left.stop(t.Context()) })
	return left
}

// TestKilledServer: a server that dies is noticed, and the next one recovers.
func TestKilledServer(t *testing.T) {
	o := options(t, seeded(t))
	o.Disposable = false // what was committed must be there
	s := mustStart(t, o)
	remember(t, s.URL(), "before the kill")
	if err := syscall.Kill(s.child.cmd.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	mustStop(t, s)
	next := mustStart(t, o)
	if got := recall(t, next.URL()); got != "seed,before the kill" {
		t.Errorf("kept = %q", got)
	}
}

// TestSupervisedServer: a server that dies comes back by itself, at the same URL, with what was committed, on a
// socket and on a port.
func TestSupervisedServer(t *testing.T) {
	for name, folder := range map[string]string{"socket": "kept", "port": strings.Repeat("long", 30)} {
		t.Run(name, func(t *testing.T) {
			seed := seeded(t)
			o := options(t, filepath.Join(filepath.Dir(seed), folder))
			if err := os.Rename(seed, o.DataDir); err != nil {
				t.Fatal(err)
			}
			o.Disposable = false // what was committed must be there
			s := mustStart(t, o)
			at := s.URL()
			waiting, enough := context.WithTimeout(t.Context(), generous)
			defer enough()
			ctx, cancel := context.WithCancel(waiting)
			defer cancel()
			kept := make(chan struct{})
			go func() { defer close(kept); s.Supervise(ctx) }()
			for _, note := range []string{"one", "two"} {
				remember(t, at, note)
				died := s.Done()
				if err := syscall.Kill(s.child.cmd.Process.Pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				<-died
				for s.Done() == died { // it is another server's when one runs
					if err := pause(waiting, pollInterval); err != nil {
						t.Fatal(err)
					}
				}
			}
			if got := recall(t, at); got != "seed,one,two" || s.URL() != at {
				t.Errorf("kept = %q, at the same place: %v", got, s.URL() == at)
			}
			cancel()
			<-kept
			mustStop(t, s)
			if n := serversOf(t, o.DataDir); n != 0 {
				t.Errorf("%d servers are left after Stop", n)
			}
		})
	}
}

// TestStrangersPid: the number in a stale note belongs to another program now, which is left alone.
func TestStrangersPid(t *testing.T) {
	o, err := options(t, seeded(t)).complete()
	if err != nil {
		t.Fatal(err)
	}
	a, err := chooseAccount(o.clusterDir())
	if err != nil {
		t.Fatal(err)
	}
	sleep := a.command("/bin/sleep", "600") // of the same user, or Postgres would see through it
	stranger, err := startChild(sleep)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stranger.signal(syscall.SIGKILL); <-stranger.ended })
	note := fmt.Sprintf("%d\n%s\n1700000000\n5432\n/tmp\n\n  1234567 32768\nready   \n", sleep.Process.Pid, o.clusterDir())
	if err := os.WriteFile(filepath.Join(o.clusterDir(), "postmaster.pid"), []byte(note), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.give(filepath.Join(o.clusterDir(), "postmaster.pid")); err != nil {
		t.Fatal(err)
	}
	s := mustStart(t, o)
	if got := recall(t, s.URL()); got != "seed" {
		t.Errorf("kept = %q", got)
	}
	select {
	case <-stranger.ended:
		t.Error("another program was stopped")
	default:
	}
}

// TestKilledInitialisation: a half-made database is never taken for one.
func TestKilledInitialisation(t *testing.T) {
	o := options(t, filepath.Join(shortDir(t), "data"))
	h := startHelper(t, o.DataDir, nil)
	h.await(t, "initialising")
	h.kill()
	// What a kill in the very last moment leaves as well: an empty folder in the database's place.
	if err := os.Mkdir(filepath.Join(o.DataDir, "postgres"), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	s := mustStart(t, o)
	remember(t, s.URL(), "whole")
	left, err := filepath.Glob(filepath.Join(o.DataDir, scratchPrefix+"*"))
	if err != nil || len(left) != 0 {
		t.Errorf("scratch folders are left: %v, %v", left, err)
	}
}
