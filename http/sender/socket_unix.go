//go:build unix

package sender

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// readNow reads what there is, or returns os.ErrDeadlineExceeded.
func readNow(raw syscall.RawConn, p []byte) (n int, err error) {
	rawErr := raw.Read(func(fd uintptr) bool {
		n, err = syscall.Read(int(fd), p)
		return true
	})
	switch {
	case rawErr != nil:
		return 0, errors.Join(errProbing, rawErr)
	case errors.Is(err, syscall.EAGAIN):
		return 0, os.ErrDeadlineExceeded
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}
