package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// pidNote is what a running server notes in its folder.
type pidNote struct {
	pid      int
	port     int
	loopback bool
}

func readPidFile(cluster string) (pidNote, error) {
	content, err := os.ReadFile(filepath.Join(cluster, "postmaster.pid"))
	if err != nil {
		return pidNote{}, err
	}
	// pid, data folder, start time, port, socket folder, listen address, shared memory, status
	lines := strings.Split(string(content), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil || pid <= 0 {
		return pidNote{}, fmt.Errorf("postmaster.pid names no process: %q", lines[0])
	}
	note := pidNote{pid: pid}
	if len(lines) < 6 {
		return note, nil // it has just started
	}
	if note.port, err = strconv.Atoi(strings.TrimSpace(lines[3])); err != nil {
		return note, fmt.Errorf("postmaster.pid names no port: %q", lines[3])
	}
	note.loopback = strings.TrimSpace(lines[5]) != ""
	return note, nil
}

// stopLeftover ends a server that a killed process left behind. We hold the lock of the data folder,
// so nobody owns that server; it is stopped and not adopted, because only a child of ours ends with
// us and has our settings. Nothing is ever signalled that is not surely the server of this folder.
func stopLeftover(ctx context.Context, o Options) error {
	note, err := readPidFile(o.cluster())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		// Postgres judges its own file, and says what is wrong with it.
		o.Log.Warn("cannot read the note of an earlier database server", "error", err)
		return nil
	}
	if !alive(note.pid) {
		return nil
	}
	switch identify(note.pid, o) {
	case serverOfOurs:
	case stranger:
		return disown(o, note.pid)
	case unknown:
		return nil // Postgres refuses to start beside it, and names it
	}
	o.Log.Info("stopping a database server that was left behind", "process", note.pid)
	for _, step := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT} {
		if err := syscall.Kill(note.pid, step); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop the database server left behind (process %d): %w", note.pid, err)
		}
		gone, cancel := context.WithTimeout(ctx, patience)
		err := awaitEnd(gone, note.pid, o)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
	return fmt.Errorf("a database server left behind (process %d) does not end: kill it (kill -QUIT %d; it loses nothing) and start again", note.pid, note.pid)
}

func awaitEnd(ctx context.Context, pid int, o Options) error {
	for alive(pid) && identify(pid, o) == serverOfOurs {
		if err := pause(ctx, retryEvery); err != nil {
			return fmt.Errorf("wait for the database server left behind (process %d): %w", pid, err)
		}
	}
	return nil
}

// disown tells Postgres that the process named in a stale postmaster.pid is not its kin. After a
// container restarts, the number often belongs to another program, and Postgres would refuse to
// start. The number is replaced by ours, its parent's, which Postgres knows to ignore; the rest of
// the file stays, because by it Postgres finds processes that outlived a killed server.
func disown(o Options, pid int) error {
	path := filepath.Join(o.cluster(), "postmaster.pid")
	content, err := os.ReadFile(path)
	if err != nil {
		return o.explain("read postmaster.pid", err)
	}
	_, rest, _ := strings.Cut(string(content), "\n")
	o.Log.Info("the process noted by an earlier database server is another program now", "process", pid)
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return o.explain("correct postmaster.pid", err)
	}
	_, err = fmt.Fprintf(file, "%d\n%s", os.Getpid(), rest)
	return o.explain("correct postmaster.pid", errors.Join(err, file.Close()))
}

// alive reports whether a process exists, of whatever user.
func alive(pid int) bool {
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}

// identity says what a process is to a data folder.
type identity uint8

const (
	unknown      identity = iota // cannot be told
	serverOfOurs                 // the server of this data folder
	stranger                     // another program, or the server of another folder
)
