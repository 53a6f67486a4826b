// Package filelock locks files between processes.
package filelock

import (
	"errors"
	"os"
	"syscall"
)

// ErrLocked means that another process holds the lock.
var ErrLocked = errors.New("locked by another process")

// Lock locks a file, shared (syscall.LOCK_SH) or exclusively (syscall.LOCK_EX), or returns
// ErrLocked. It makes the file if there is none. Closing the file unlocks it, as does the end
// of this process, however it ends. Children do not inherit it.
func Lock(path string, how int) (*os.File, error) { return lock(path, how|syscall.LOCK_NB) }

// Wait is Lock that waits while others hold the lock.
func Wait(path string, how int) (*os.File, error) { return lock(path, how) }

func lock(path string, how int) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(file.Fd()), how)
		switch {
		case err == nil:
			return file, nil
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EWOULDBLOCK):
			err = ErrLocked
		}
		return nil, errors.Join(err, file.Close())
	}
}
