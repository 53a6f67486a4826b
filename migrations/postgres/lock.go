package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/medilab/webhooks/migrations/filelock"
)

// role is what the holder of a data directory's lock is, noted in the lock file.
type role string

const (
	roleServe   role = "serve"   // stays until it is told to end
	roleCommand role = "command" // ends by itself
)

// lock locks the data directory or returns filelock.ErrLocked. It notes the role, if any, in the lock file.
func (o Options) lock(r role) (*os.File, error) {
	held, err := filelock.Lock(o.lockFile(), syscall.LOCK_EX)
	if errors.Is(err, filelock.ErrLocked) {
		return nil, filelock.ErrLocked
	}
	if err != nil {
		return nil, o.explain("lock", err)
	}
	if r != "" {
		// The note only serves another process's error message: a full disk must not stop a start.
		_ = os.WriteFile(o.lockFile(), fmt.Appendf(nil, "%s %d\n", r, os.Getpid()), 0o600)
	}
	return held, nil
}

// holder returns what the lock file notes of its last holder.
func (o Options) holder() (r role, pid string) {
	note, err := os.ReadFile(o.lockFile())
	if err != nil {
		return "", "unknown"
	}
	first, second, _ := strings.Cut(strings.TrimSpace(string(note)), " ")
	return role(first), second
}

// acquire locks the data directory for Start, waiting for a command that holds it.
func (o Options) acquire(ctx context.Context) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for announced := false; ; announced = true {
		held, err := o.lock(roleServe)
		if !errors.Is(err, filelock.ErrLocked) {
			return held, err
		}
		r, pid := o.holder()
		// The note of a killed process stays until the next holder has written its own.
		if n, err := strconv.Atoi(pid); r == roleServe && err == nil && alive(n) {
			return nil, fmt.Errorf("%w: %s is served by process %s: stop it, or set MEDILAB_DATA_DIR to another folder", ErrInUse, o.DataDir, pid)
		}
		if !announced {
			o.Log.Info("waiting for another command to let go of the data folder", "folder", o.DataDir, "process", pid)
		}
		if err := pause(ctx, pollInterval); err != nil {
			return nil, fmt.Errorf("%w: %s is used by process %s: wait for it to end, or set MEDILAB_DATA_DIR to another folder", ErrInUse, o.DataDir, pid)
		}
	}
}
