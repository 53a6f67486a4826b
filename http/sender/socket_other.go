//go:build !unix

package sender

import (
	"errors"
	"syscall"
)

// readNow is not supported here, so no connection is reused.
func readNow(syscall.RawConn, []byte) (int, error) { return 0, errors.ErrUnsupported }
