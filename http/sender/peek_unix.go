//go:build unix

package sender

import (
	"errors"
	"syscall"
)

// nothingToRead looks without waiting: no byte, no end and no error has come.
func nothingToRead(raw syscall.RawConn) bool {
	var peeked error
	err := raw.Read(func(fd uintptr) bool {
		var one [1]byte
		_, _, peeked = syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return true
	})
	return err == nil && (errors.Is(peeked, syscall.EAGAIN) || errors.Is(peeked, syscall.EWOULDBLOCK))
}
