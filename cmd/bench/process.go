package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// child is a process that is measured, with all that it starts.
type child struct {
	cmd  *exec.Cmd
	base string // URL of its listener
	done chan error
}

// startChild runs a program that listens on a free port: args and environment
// are made from the address. It is ready when the path answers at all.
func startChild(ctx context.Context, readyPath string, readyStatus int, prepare func(addr string) *exec.Cmd) (*child, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		return nil, err
	}
	c := &child{cmd: prepare(addr), base: "http://" + addr, done: make(chan error, 1)}
	c.cmd.Stdout, c.cmd.Stderr = io.Discard, os.Stderr
	c.cmd.Cancel, c.cmd.WaitDelay = nil, 0
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { c.done <- c.cmd.Wait() }()

	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+readyPath, nil)
		if err != nil {
			return nil, err
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			status := resp.StatusCode
			if err := resp.Body.Close(); err != nil {
				return nil, err
			}
			if readyStatus == 0 || status == readyStatus {
				return c, nil
			}
		}
		select {
		case err := <-c.done:
			return nil, fmt.Errorf("%s ended before it was ready: %w", c.cmd.Path, err)
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("%s was not ready in time", c.cmd.Path), c.stop())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// stop ends the process as an operator would, and by force when it won't.
func (c *child) stop() error {
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case err := <-c.done:
		return err
	case <-time.After(time.Minute):
		return errors.Join(fmt.Errorf("%s did not end on SIGTERM", c.cmd.Path), c.cmd.Process.Kill())
	}
}

// tree lists a process and everything below it.
func tree(root int) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := make(map[int][]int)
	for _, path := range stats {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			continue
		}
		if fields := statFields(pid); len(fields) > 1 {
			if parent, err := strconv.Atoi(fields[1]); err == nil {
				children[parent] = append(children[parent], pid)
			}
		}
	}
	pids := []int{root}
	for i := 0; i < len(pids); i++ {
		pids = append(pids, children[pids[i]]...)
	}
	return pids, nil
}

// statFields are those of /proc/PID/stat behind the name: state, parent, ...
// A process that has ended has none.
func statFields(pid int) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
}

// Linux counts CPU time for user space in hundredths of a second.
const ticksPerSecond = 100

// cpu is the CPU time of the process's tree.
func (c *child) cpu() (time.Duration, error) { return treeCPU(c.cmd.Process.Pid) }

// treeCPU returns the CPU time that a process and everything below it have used, with that of
// their ended children.
func treeCPU(root int) (time.Duration, error) {
	pids, err := tree(root)
	if err != nil {
		return 0, err
	}
	var ticks int64
	for _, pid := range pids {
		fields := statFields(pid)
		if len(fields) < 15 {
			continue // ended since; its parent has its time
		}
		for _, f := range fields[11:15] { // utime, stime, cutime, cstime
			n, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				return 0, err
			}
			ticks += n
		}
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
}

// memory is the server process's own resident memory, in bytes.
func (c *child) memory() (int64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kb << 10, err
		}
	}
	return 0, errors.Join(errors.New("no VmRSS"), lines.Err())
}
