//go:build !linux

package postgres

import (
	"os/exec"
	"syscall"
)

// dieWithUs does nothing: only Linux can tie a child's life to ours. A server left behind is stopped
// by the next start.
func dieWithUs(*exec.Cmd, syscall.Signal) {}

// lend returns the folders as they are: the account must be able to enter their parents.
func (a account) lend(_ *exec.Cmd, dirs ...string) (names []string, done func(), err error) {
	return dirs, func() {}, nil
}
