//go:build !unix

package sender

import "syscall"

// nothingToRead cannot look at a socket here, so no connection is reused.
func nothingToRead(syscall.RawConn) bool { return false }
