package testbed

import (
	"os"
	"syscall"
)

// Scratch is the folder for data of tests: one in memory where it is roomy, unless TMPDIR names
// another. A database is some 300 files, and to make and delete them on a disk costs far more than
// most tests do.
func Scratch() string {
	const memory, roomy = "/dev/shm", 4 << 30
	var room syscall.Statfs_t
	if os.Getenv("TMPDIR") == "" && syscall.Statfs(memory, &room) == nil && room.Bavail*uint64(room.Bsize) >= roomy {
		return memory
	}
	return os.TempDir()
}
