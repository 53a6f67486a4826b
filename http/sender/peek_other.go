//go:build !unix

package sender

import "syscall"

// nothingToRead cannot tell here, so no connection is used twice.
func nothingToRead(syscall.RawConn) bool { return false }
