//go:build !linux

package postgres

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// identify asks ps for the command line, which names the data folder.
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
	if strings.Contains(command, "medilab.data_dir="+o.DataDir+" ") {
		return serverOfOurs
	}
	return unknown
}
