package testdb

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/medilab/webhooks/cmd/testbed"
	"github.com/medilab/webhooks/migrations/filelock"
	"github.com/medilab/webhooks/migrations/postgres"
)

// The shared server belongs to a keeper: a copy of the test binary that does nothing else, because a
// test process can end at any moment while others still need the server. In the folder of a user are
//
//	door      locked by the process that decides whether a server is there: one that joins or the keeper
//	users     locked shared by every test process that uses the server, until it ends
//	current   the data folder of the server that runs
//	data-*    data folders; a new one for every server, as tests give up durability
//	log       what the keeper says
const (
	// keeperVariable turns a copy of a test binary into the keeper of the folder it names.
	keeperVariable = "MEDILAB_TESTDB_KEEPER"
	// idle is how long a server without users stays: go test builds packages between two uses.
	idle = 30 * time.Second
	tick = 250 * time.Millisecond
)

// init runs in every test binary that imports the package, before its tests: that is what makes a
// copy of any of them usable as the keeper.
func init() {
	base := os.Getenv(keeperVariable)
	if base == "" {
		return
	}
	if err := keep(context.Background(), base, idle, os.Stdout); err != nil {
		fmt.Println("failed:", strings.ReplaceAll(err.Error(), "\n", "; "))
		os.Exit(1)
	}
	os.Exit(0)
}

// usersLock is held until this process ends.
//
//lint:ignore U1000 nobody reads it; an unreferenced file would be closed, and the lock with it
var usersLock *os.File

// join uses the user's shared server, or starts it, and returns its URL.
func join(ctx context.Context) (string, error) {
	base, err := ownFolder()
	if err != nil {
		return "", err
	}
	door, err := filelock.Wait(filepath.Join(base, "door"), syscall.LOCK_EX)
	if err != nil {
		return "", err
	}
	defer door.Close() //nolint:errcheck // closing is what unlocks, nothing is written
	if usersLock, err = filelock.Wait(filepath.Join(base, "users"), syscall.LOCK_SH); err != nil {
		return "", err
	}
	url, err := current(ctx, base)
	if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, postgres.ErrNotRunning) {
		return url, err
	}
	if err := startKeeper(base); err != nil {
		return "", err
	}
	return current(ctx, base)
}

// current is the URL of the server that runs.
func current(ctx context.Context, base string) (string, error) {
	name, err := os.ReadFile(filepath.Join(base, "current"))
	if err != nil {
		return "", err
	}
	s, err := postgres.Attach(ctx, string(name))
	if err != nil {
		return "", err
	}
	return s.URL(), s.Stop(ctx)
}

// startKeeper runs a copy of this binary as the keeper and waits until its server is ready.
func startKeeper(base string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the test binary: %w", err)
	}
	log, err := os.OpenFile(filepath.Join(base, "log"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the keeper writes it, we do not
	cmd := exec.Command(self)
	cmd.Dir = base
	cmd.Env = append(os.Environ(), keeperVariable+"="+base)
	cmd.Stderr = log
	// Neither a Ctrl-C nor the end of go test's process group reaches it: it ends when it is idle.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	said, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the keeper of the test server: %w", err)
	}
	line, err := bufio.NewReader(said).ReadString('\n')
	if line = strings.TrimSpace(line); line != "ready" {
		return fmt.Errorf("start the test server: %s (%w); see %s", line, errors.Join(err, cmd.Wait()), log.Name())
	}
	return errors.Join(said.Close(), cmd.Process.Release())
}

// keep runs a server, says so on out, and stops and deletes it when nobody used it for a while.
func keep(ctx context.Context, base string, idle time.Duration, out *os.File) (err error) {
	removeOld(base)
	dir, err := os.MkdirTemp(base, "data-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := postgres.Start(ctx, postgres.Options{
		DataDir:    dir,
		BinDir:     os.Getenv("MEDILAB_POSTGRES_BIN"),
		Disposable: true,
		Settings:   map[string]string{"max_connections": "600"}, // of many processes at once
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Stop(ctx)) }()
	if err := os.WriteFile(filepath.Join(base, "current"), []byte(dir), 0o600); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(out, "ready"); err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	door, err := awaitIdle(base, idle, s.Done())
	if err != nil {
		return err
	}
	// The door stays closed while the server stops: who wants one then waits and starts the next.
	defer door.Close() //nolint:errcheck // closing is what unlocks, nothing is written
	return errors.Join(s.Stop(ctx), os.Remove(filepath.Join(base, "current")))
}

// awaitIdle waits until nobody has used the server for a while and returns the locked door. It polls,
// because no process is told when another lets go of a lock.
func awaitIdle(base string, idle time.Duration, ended <-chan struct{}) (*os.File, error) {
	ticks := time.NewTicker(tick)
	defer ticks.Stop()
	for unused := time.Duration(0); ; {
		select {
		case <-ended:
			return nil, errors.New("the test server ended by itself")
		case <-ticks.C:
		}
		door, err := lockUnused(base)
		switch {
		case errors.Is(err, filelock.ErrLocked):
			unused = 0
			continue
		case err != nil:
			return nil, err
		}
		if unused += tick; unused >= idle {
			return door, nil
		}
		if err := door.Close(); err != nil {
			return nil, err
		}
	}
}

// lockUnused locks the door of a server without users. The error is ErrLocked when it has some,
// or when somebody is coming in.
func lockUnused(base string) (*os.File, error) {
	door, err := filelock.Lock(filepath.Join(base, "door"), syscall.LOCK_EX)
	if err != nil {
		return nil, err
	}
	users, err := filelock.Lock(filepath.Join(base, "users"), syscall.LOCK_EX)
	if err != nil {
		return nil, errors.Join(err, door.Close())
	}
	return door, users.Close()
}

// removeOld deletes the data of keepers that were killed; what cannot be deleted now, because its
// server is still ending, the next keeper deletes.
func removeOld(base string) {
	old, err := filepath.Glob(filepath.Join(base, "data-*"))
	if err != nil {
		return // only a malformed pattern fails
	}
	for _, dir := range old {
		lock, err := filelock.Lock(filepath.Join(dir, "lock"), syscall.LOCK_EX)
		if err != nil {
			continue // its server runs
		}
		_ = os.RemoveAll(dir)
		_ = lock.Close() // nothing was written
	}
}

// ownFolder is this user's folder for shared servers. It is in a folder where anybody may make
// names, so it must be a real folder, ours, and closed to others.
func ownFolder() (string, error) {
	base := filepath.Join(testbed.Scratch(), fmt.Sprintf("medilab-testdb-%d", os.Geteuid()))
	if err := os.Mkdir(base, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	info, err := os.Lstat(base)
	if err != nil {
		return "", err
	}
	owner, known := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || info.Mode().Perm() != 0o700 || !known || int(owner.Uid) != os.Geteuid() {
		return "", fmt.Errorf("%s is not a folder of ours alone: remove it", base)
	}
	return base, nil
}
