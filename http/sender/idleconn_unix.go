//go:build unix

package sender

import (
	"errors"
	"syscall"
)

// nothingToRead reports, without blocking, whether the socket is open and has no
// data, end of stream or error to read.
func nothingToRead(raw syscall.RawConn) bool {
	var peeked error
	err := raw.Read(func(fd uintptr) bool {
		var one [1]byte
		_, _, peeked = syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return true
	})
	return err == nil && (errors.Is(peeked, syscall.EAGAIN) || errors.Is(peeked, syscall.EWOULDBLOCK))
}
