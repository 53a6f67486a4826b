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

// pidFile is what a running server notes in postmaster.pid.
type pidFile struct {
	pid      int
	port     int
	loopback bool
}

func readPidFile(clusterDir string) (pidFile, error) {
	content, err := os.ReadFile(filepath.Join(clusterDir, "postmaster.pid"))
	if err != nil {
		return pidFile{}, err
	}
	// pid, data directory, start time, port, socket directory, listen address, shared memory, status
	lines := strings.Split(string(content), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil || pid <= 0 {
		return pidFile{}, fmt.Errorf("postmaster.pid names no process: %q", lines[0])
	}
	f := pidFile{pid: pid}
	if len(lines) < 6 {
		return f, nil // it has just started
	}
	if f.port, err = strconv.Atoi(strings.TrimSpace(lines[3])); err != nil {
		return f, fmt.Errorf("postmaster.pid names no port: %q", lines[3])
	}
	f.loopback = strings.TrimSpace(lines[5]) != ""
	return f, nil
}

// stopStalePostmaster stops a server that a killed process left behind. We hold the data directory's
// lock, so nobody owns it; it is stopped rather than adopted, because only our child ends with us and
// has our settings. Only a process that is surely the server of this directory is ever signalled.
func (o Options) stopStalePostmaster(ctx context.Context) error {
	noted, err := readPidFile(o.clusterDir())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		// Postgres judges its own file, and says what is wrong with it.
		o.Log.Warn("cannot read the note of an earlier database server", "error", err)
		return nil
	}
	if !alive(noted.pid) {
		return nil
	}
	switch identify(noted.pid, o) {
	case unknown:
		return nil // Postgres refuses to start next to it, and names it
	case stranger:
		return o.disown(noted.pid)
	case ours:
	}
	o.Log.Info("stopping a database server that was left behind", "process", noted.pid)
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT} {
		if err := syscall.Kill(noted.pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop the database server left behind (process %d): %w", noted.pid, err)
		}
		if err := o.awaitEnd(ctx, noted.pid); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return fmt.Errorf("a database server left behind (process %d) does not end: kill it (kill -QUIT %d; it loses nothing) and start again", noted.pid, noted.pid)
}

func (o Options) awaitEnd(ctx context.Context, pid int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for alive(pid) && identify(pid, o) == ours {
		if err := pause(ctx, pollInterval); err != nil {
			return fmt.Errorf("wait for the database server left behind (process %d): %w", pid, err)
		}
	}
	return nil
}

// disown replaces the process in a stale postmaster.pid by this one. After a container restarts, its
// number often belongs to another program, and Postgres would refuse to start; its parent's number it
// ignores. The rest of the file stays, because Postgres needs it to find processes that outlived a
// killed server.
func (o Options) disown(pid int) error {
	o.Log.Info("the process noted by an earlier database server is another program now", "process", pid)
	path := filepath.Join(o.clusterDir(), "postmaster.pid")
	content, err := os.ReadFile(path)
	if err == nil {
		_, rest, _ := strings.Cut(string(content), "\n")
		err = os.WriteFile(path, fmt.Appendf(nil, "%d\n%s", os.Getpid(), rest), 0o600)
	}
	return o.explain("correct postmaster.pid", err)
}

// alive reports whether a process exists, whichever account runs it.
func alive(pid int) bool {
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}

// identity is what a process is to a data directory.
type identity uint8

const (
	unknown  identity = iota // cannot be determined
	ours                     // the server of this data directory
	stranger                 // another program, or the server of another directory
)
