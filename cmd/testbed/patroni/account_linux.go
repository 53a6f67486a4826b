package patroni

import "syscall"

// attributes make a program end in order when this one ends however that does, and be of
// another account, as Postgres refuses to be root.
func attributes(owner *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Credential: owner}
}
