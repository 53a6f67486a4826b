package postgres

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// identify looks at what a process runs and where. A Postgres works in its data folder, so that is
// the proof; where the kernel does not show us another user's working folder (a container's root
// may not look), its command line names the data folder.
func identify(pid int, o Options) identity {
	proc := fmt.Sprintf("/proc/%d", pid)
	command, err := os.ReadFile(filepath.Join(proc, "cmdline"))
	if errors.Is(err, os.ErrNotExist) {
		return unknown // it ended, or is hidden from us
	}
	if err != nil {
		return unknown
	}
	// An ended process that nobody waited for has no command line and no hold on anything.
	if len(command) == 0 {
		return stranger
	}
	args := strings.Split(string(bytes.TrimRight(command, "\x00")), "\x00")
	program, _, _ := strings.Cut(args[0], ":") // "postgres: checkpointer" is a server's child
	if base := filepath.Base(program); base != "postgres" && base != "postmaster" {
		return stranger
	}
	here, err := os.Stat(o.cluster())
	if err != nil {
		return unknown
	}
	there, err := os.Stat(filepath.Join(proc, "cwd"))
	if err == nil {
		if os.SameFile(here, there) {
			return serverOfOurs
		}
		return stranger // another folder's server
	}
	for _, arg := range args {
		if arg == "medilab.data_dir="+o.DataDir {
			return serverOfOurs
		}
	}
	return unknown
}
