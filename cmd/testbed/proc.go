package testbed

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// statFields returns the fields of /proc/PID/stat behind the name: state, parent, ... A process
// that has ended has none.
func statFields(pid int) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
}

// Stopped reports whether the process is stopped by a signal.
func Stopped(pid int) bool {
	fields := statFields(pid)
	return len(fields) > 0 && fields[0] == "T"
}

// Tree lists the process and everything below it.
func Tree(root int) []int {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // only a malformed pattern fails
	children := make(map[int][]int)
	for _, path := range stats {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path))) // the pattern has digits only
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
	return pids
}

// CPU returns the CPU time that a process and everything below it have used, with that of their
// ended children.
func CPU(root int) (time.Duration, error) {
	const perSecond = 100 // Linux counts for user space in hundredths of a second
	var ticks int64
	for _, pid := range Tree(root) {
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
	return time.Duration(ticks) * time.Second / perSecond, nil
}

// Postmaster returns the process id of the Postgres in the data directory, as that notes it.
func Postmaster(dir string) (int, error) {
	note, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(note), "\n")
	return strconv.Atoi(strings.TrimSpace(first))
}

// Memory returns a figure of /proc/PID/status in bytes, such as VmRSS or VmHWM. The error is
// fs.ErrNotExist where the system has no such file.
func Memory(pid int, name string) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if value, found := strings.CutPrefix(line, name+":"); found {
			kilobytes, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return kilobytes << 10, err
		}
	}
	return 0, fmt.Errorf("process %d has no %s", pid, name)
}
