//go:build !linux

package patroni

import "syscall"

// attributes make a program be of another account, as Postgres refuses to be root.
func attributes(owner *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: owner}
}
