//go:build !linux

package postgres

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// setDeathSignal does nothing: only Linux can tie a child's life to ours. The next start stops a
// server that was left behind.
func setDeathSignal(*exec.Cmd, syscall.Signal) {}

// passDirFD returns the directories as they are: the account must be able to enter their parents.
func (a account) passDirFD(_ *exec.Cmd, dirs ...string) (paths []string, done func(), err error) {
	return dirs, func() {}, nil
}

// identify asks ps for the command line, which names the data directory.
func identify(pid int, o Options) identity {
	out, err := exec.Command("ps", "-ww", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	if err != nil || len(strings.TrimSpace(string(out))) == 0 {
		return unknown
	}
	command := string(out)
	program, _, _ := strings.Cut(strings.TrimSpace(command), " ")
	if base := filepath.Base(program); base != "postgres" && base != "postmaster" {
		return stranger
	}
	if strings.Contains(command, dataDirSetting+"="+o.DataDir+" ") {
		return ours
	}
	return unknown
}

// memory is unknown: machines with these systems are not small.
func memory() uint64 { return 0 }
