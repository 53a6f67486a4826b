package postgres

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// setDeathSignal makes the kernel signal the child when the thread that started it ends, which is
// why startChild keeps that thread.
func setDeathSignal(cmd *exec.Cmd, signal syscall.Signal) { cmd.SysProcAttr.Pdeathsig = signal }

// passDirFD lets the account reach directories whose parents it may not enter, and returns the paths
// by which it reaches them. Call done when cmd has started.
//
// As root, the data directory is often below one of mode 0700: a clone in /root, a temporary
// directory, our own DataDir with its keys. Postgres needs no way through the parents when it is
// handed its directories as open files: /proc/self/fd/N leads straight to the directory, and Postgres
// works relative to its data directory once it is there. The alternatives are worse: a capability to
// bypass permissions would let SQL read every file of the machine and is missing in most containers,
// opening up the parents is not ours to do, and a directory elsewhere would separate the database
// from its MEDILAB_DATA_DIR.
func (a account) passDirFD(cmd *exec.Cmd, dirs ...string) (paths []string, done func(), err error) {
	if a.cred == nil {
		return dirs, func() {}, nil
	}
	done = func() {
		for _, f := range cmd.ExtraFiles {
			_ = f.Close() // opened for reading only: nothing can be lost
		}
	}
	for _, dir := range dirs {
		f, err := os.Open(dir)
		if err != nil {
			done()
			return nil, nil, err
		}
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		paths = append(paths, fmt.Sprintf("/proc/self/fd/%d", 2+len(cmd.ExtraFiles)))
	}
	return paths, done, nil
}

// identify looks at what a process runs and where. A Postgres works in its data directory, which is
// proof; where the kernel hides another user's working directory (from a container's root, say), its
// command line names the data directory.
func identify(pid int, o Options) identity {
	proc := fmt.Sprintf("/proc/%d", pid)
	command, err := os.ReadFile(filepath.Join(proc, "cmdline"))
	if err != nil {
		return unknown // it ended, or is hidden from us
	}
	// A zombie has no command line and no hold on anything.
	if len(command) == 0 {
		return stranger
	}
	args := strings.Split(string(bytes.TrimRight(command, "\x00")), "\x00")
	program, _, _ := strings.Cut(args[0], ":") // "postgres: checkpointer" is a server's child
	if base := filepath.Base(program); base != "postgres" && base != "postmaster" {
		return stranger
	}
	here, err := os.Stat(o.clusterDir())
	if err != nil {
		return unknown
	}
	there, err := os.Stat(filepath.Join(proc, "cwd"))
	switch {
	case err == nil && os.SameFile(here, there), err != nil && slices.Contains(args, dataDirSetting+"="+o.DataDir):
		return ours
	case err == nil:
		return stranger // another directory's server
	}
	return unknown
}

// memory returns the bytes of memory that this machine or container has, 0 if unknown.
func memory() uint64 {
	total := uint64(0)
	var info syscall.Sysinfo_t
	if syscall.Sysinfo(&info) == nil {
		total = uint64(info.Totalram) * uint64(info.Unit)
	}
	for _, file := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		content, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		limit, err := strconv.ParseUint(strings.TrimSpace(string(content)), 10, 64)
		if err == nil && (total == 0 || limit < total) { // "max" is not a number: no limit
			total = limit
		}
	}
	return total
}
