package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations/filelock"
)

// endFormer ends the leases of the processes that served from this data folder and are gone: a
// killed one unlocks its file, however it ends. It leaves a locked file for this process, which
// release removes.
func (s *server) endFormer(ctx context.Context) (release func() error, err error) {
	folder := filepath.Join(s.settings.database.dataDir, "nodes")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		if err := s.endLeasesOf(ctx, filepath.Join(folder, entry.Name())); err != nil {
			return nil, err
		}
	}
	file, err := os.CreateTemp(folder, "")
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // all is written by then
	s.nodeName += "/" + filepath.Base(file.Name())
	held, err := filelock.Lock(file.Name(), syscall.LOCK_EX)
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintln(held, inode(held), s.nodeName)
	return func() error { return errors.Join(os.Remove(file.Name()), held.Close()) }, err
}

// endLeasesOf ends the leases of the process that held the lock of the file, if it is gone. A copy
// of a file, in the copy of a folder, proves nothing of the process that wrote it.
func (s *server) endLeasesOf(ctx context.Context, path string) error {
	file, err := filelock.Lock(path, syscall.LOCK_EX)
	if errors.Is(err, filelock.ErrLocked) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // it was only read
	var written uint64
	var name string
	if n, _ := fmt.Fscan(file, &written, &name); n == 2 && written == inode(file) {
		if err := eventstore.EndLeases(ctx, s.pool, name); err != nil {
			return err
		}
	}
	return os.Remove(path)
}

func inode(file *os.File) uint64 {
	var stat syscall.Stat_t
	if err := syscall.Fstat(int(file.Fd()), &stat); err != nil {
		return 0
	}
	return stat.Ino
}
