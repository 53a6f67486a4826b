package postgres

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
)

// TestOthersAreKeptOut: neither a wrong password nor another user of the machine gets in.
func TestOthersAreKeptOut(t *testing.T) {
	dir := seeded(t)
	s := mustStart(t, options(t, dir))
	if conn, err := pgx.Connect(t.Context(), strings.Replace(s.URL(), roleName+":", roleName+":x", 1)); err == nil {
		t.Error("a wrong password connects")
		_ = conn.Close(t.Context())
	}
	for path, want := range map[string]fs.FileMode{
		"postgres": 0o700, "run": 0o700, "lock": 0o600, "postgres.log": 0o600, "postgres/" + passwordFile: 0o600,
	} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil {
			t.Error(err)
		} else if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode().Perm(), want)
		}
	}
}

func TestRacingStartsHaveOneWinner(t *testing.T) {
	o := options(t, seeded(t))
	const racers = 4
	servers, errs := make([]*Server, racers), make([]error, racers)
	var all sync.WaitGroup
	for i := range racers {
		all.Go(func() { servers[i], errs[i] = Start(t.Context(), o) })
	}
	all.Wait()
	winners := 0
	for i, s := range servers {
		switch {
		case errs[i] == nil:
			winners++
			defer mustStop(t, s)
		case !errors.Is(errs[i], ErrInUse):
			t.Errorf("loser: %v, want ErrInUse", errs[i])
		}
	}
	if winners != 1 || serversOf(t, o.DataDir) != 1 {
		t.Errorf("%d winners, %d servers, want one", winners, serversOf(t, o.DataDir))
	}
}

// TestCommandsMakeNoDatabase: a command leaves a folder that has none as it is.
func TestCommandsMakeNoDatabase(t *testing.T) {
	o := options(t, filepath.Join(shortDir(t), "data"))
	if _, err := Open(t.Context(), o); !errors.Is(err, ErrNoDatabase) {
		t.Errorf("no folder: %v", err)
	}
	if err := os.Mkdir(o.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), o); !errors.Is(err, ErrNoDatabase) {
		t.Errorf("an empty folder: %v", err)
	}
	if _, err := os.Stat(o.clusterDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a database was made: %v", err)
	}
}

// TestRacingCommandsShare: commands that start together all work, on one server, which the one that
// runs it stops only after the others.
func TestRacingCommandsShare(t *testing.T) {
	o := options(t, seeded(t))
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			s, err := Open(t.Context(), o)
			if err != nil {
				t.Error(err)
				return
			}
			remember(t, s.URL(), "x")
			mustStop(t, s)
		})
	}
	all.Wait()
	s := mustStart(t, o)
	if got := recall(t, s.URL()); got != "seed,x,x,x" {
		t.Errorf("kept = %q, want three more", got)
	}
}

func TestOpenUsesTheRunningServer(t *testing.T) {
	o := options(t, seeded(t))
	if _, err := Attach(t.Context(), o.DataDir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("attach to nothing: %v, want ErrNotRunning", err)
	}
	if _, err := Attach(t.Context(), filepath.Join(o.DataDir, "none")); !errors.Is(err, ErrNotRunning) {
		t.Errorf("attach to no folder: %v, want ErrNotRunning", err)
	}
	serving := mustStart(t, o)
	command, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if recall(t, command.URL()) != "seed" || serversOf(t, o.DataDir) != 1 {
		t.Error("the command does not use the running server")
	}
	mustStop(t, command)
	if recall(t, serving.URL()) != "seed" {
		t.Error("the server ended with the command")
	}
}

// TestServeWaitsForACommand: a server that a command runs for a moment does not refuse serve.
func TestServeWaitsForACommand(t *testing.T) {
	o := options(t, seeded(t))
	command, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	waits := make(chan struct{})
	o.Log = slog.New(slog.NewTextHandler(onWrite(func(line string) {
		if strings.Contains(line, "waiting for another command") {
			close(waits)
		}
	}), nil))
	started := make(chan *Server, 1)
	go func() {
		s, err := Start(t.Context(), o)
		if err != nil {
			t.Error(err)
		}
		started <- s
	}()
	<-waits
	mustStop(t, command)
	if s := <-started; s != nil {
		mustStop(t, s)
	}
}

type onWrite func(string)

func (f onWrite) Write(p []byte) (int, error) { f(string(p)); return len(p), nil }
