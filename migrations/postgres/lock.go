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

// role is who holds the exclusive lock, noted in the lock file for whoever finds it locked.
type role string

const (
	roleServe   role = "serve"   // stays until it is told to end
	roleCommand role = "command" // ends by itself
)

var errLocked = errors.New("locked by another process")

// lock is an flock: the kernel drops it with the process that holds it, however that ends. The file
// is opened close-on-exec, so no child inherits it.
type lock struct {
	path string
	file *os.File
}

// tryLock takes the exclusive lock or returns errLocked. A role is noted in the file.
func tryLock(path string, r role) (*lock, error) {
	l, err := flock(path, syscall.LOCK_EX)
	if err != nil || r == "" {
		return l, err
	}
	// The note is cosmetic: it names us in another process's error. It must not be in the way when
	// the disk is full, because starting needs no other space than what is there.
	if err := l.file.Truncate(0); err == nil {
		_, _ = fmt.Fprintf(l.file, "%s %d\n", r, os.Getpid())
	}
	return l, nil
}

// tryShare takes the shared lock or returns errLocked.
func tryShare(path string) (*lock, error) { return flock(path, syscall.LOCK_SH) }

func flock(path string, how int) (*lock, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(file.Fd()), how|syscall.LOCK_NB)
		if err == nil {
			return &lock{path: path, file: file}, nil
		}
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = errLocked
		}
		return nil, errors.Join(err, file.Close())
	}
}

func (l *lock) release() error { return l.file.Close() }

// isAlive reports whether the process of a note still exists. The note of a killed process stays in
// the file: whoever holds the lock then, for a moment, has not noted itself.
func isAlive(pid string) bool {
	n, err := strconv.Atoi(pid)
	return err == nil && alive(n)
}

// holder reads who noted itself in the lock file.
func holder(path string) (who role, pid string) {
	note, err := os.ReadFile(path)
	if err != nil {
		return "", "unknown"
	}
	first, second, _ := strings.Cut(strings.TrimSpace(string(note)), " ")
	return role(first), second
}

// acquire takes the lock of the data folder: at once, or after a command that holds it for a moment.
func acquire(ctx context.Context, o Options, r role) (*lock, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for told := false; ; {
		held, err := tryLock(o.lockFile(), r)
		if err == nil {
			return held, nil
		}
		if !errors.Is(err, errLocked) {
			return nil, o.explain("lock", err)
		}
		who, pid := holder(o.lockFile())
		if who == roleServe && isAlive(pid) {
			return nil, fmt.Errorf("%w: %s is served by process %s: stop it, or set MEDILAB_DATA_DIR to another folder", ErrInUse, o.DataDir, pid)
		}
		if !told {
			o.Log.Info("waiting for another command to let go of the data folder", "folder", o.DataDir, "process", pid)
			told = true
		}
		if err := pause(ctx, retryEvery); err != nil {
			return nil, fmt.Errorf("%w: %s is used by process %s: wait for it to end, or set MEDILAB_DATA_DIR to another folder", ErrInUse, o.DataDir, pid)
		}
	}
}
