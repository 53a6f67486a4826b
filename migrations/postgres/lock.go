package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// role is what the holder of a data directory's lock is, noted in the lock file.
type role string

const (
	roleServe   role = "serve"   // stays until it is told to end
	roleCommand role = "command" // ends by itself
)

var errLocked = errors.New("locked by another process")

// flock locks a file, shared (LOCK_SH) or exclusively (LOCK_EX), or returns errLocked. Closing the
// file unlocks it, as does the end of this process, however it ends. Children do not inherit it.
func flock(path string, how int) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(file.Fd()), how|syscall.LOCK_NB)
		switch {
		case err == nil:
			return file, nil
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EWOULDBLOCK):
			err = errLocked
		}
		return nil, errors.Join(err, file.Close())
	}
}

// lock locks the data directory or returns errLocked. It notes the role, if any, in the lock file.
func (o Options) lock(r role) (*os.File, error) {
	held, err := flock(o.lockFile(), syscall.LOCK_EX)
	if errors.Is(err, errLocked) {
		return nil, errLocked
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
		if !errors.Is(err, errLocked) {
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
