package sender

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// socket is a TCP connection that can be read without waiting, directly or through
// the tls.Conn on top of it: what that holds, no look at the file descriptor shows.
type socket struct {
	net.Conn
	raw     syscall.RawConn // nil if it cannot be read without waiting
	probing bool            // Write fails
	now     bool            // Read does not wait

	tls    bool
	header []byte // the part of a TLS record's header that was read
	rest   int    // bytes of the record that are still to come
}

func newSocket(conn net.Conn, isTLS bool) *socket {
	s := &socket{Conn: conn, tls: isTLS}
	if c, ok := conn.(syscall.Conn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			s.raw = raw
		}
	}
	return s
}

var errProbing = errors.New("the connection is being probed")

// Read returns os.ErrDeadlineExceeded during a probe if there is nothing to read.
// crypto/tls goes on after that error, as it is a temporary one.
func (s *socket) Read(p []byte) (n int, err error) {
	if s.now {
		n, err = readNow(s.raw, p)
	} else {
		n, err = s.Conn.Read(p)
	}
	if s.tls && n > 0 {
		s.follow(p[:n])
	}
	return n, err
}

func (s *socket) Write(p []byte) (int, error) {
	if s.probing {
		return 0, errProbing
	}
	return s.Conn.Write(p)
}

// follow keeps track of where TLS records end.
func (s *socket) follow(p []byte) {
	const headerSize = 5
	for len(p) > 0 {
		if s.rest > 0 {
			n := min(s.rest, len(p))
			s.rest, p = s.rest-n, p[n:]
			continue
		}
		n := min(headerSize-len(s.header), len(p))
		s.header, p = append(s.header, p[:n]...), p[n:]
		if len(s.header) == headerSize {
			s.rest = int(binary.BigEndian.Uint16(s.header[headerSize-2:]))
			s.header = s.header[:0]
		}
	}
}

var errUnasked = errors.New("the receiver sent something unasked")

// probe returns nil if conn, which is s or a tls.Conn on it, is open and has nothing
// to read within the time, errUnasked if it has, else what ended the connection.
func (s *socket) probe(conn net.Conn, wait time.Duration) error {
	if s.raw == nil {
		return errors.ErrUnsupported
	}
	if wait > 0 {
		if err := s.Conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return err
		}
	}
	s.probing, s.now = true, wait <= 0
	n, err := conn.Read(make([]byte, 1))
	s.probing, s.now = false, false
	switch {
	case n > 0 || s.rest > 0 || len(s.header) > 0:
		return errUnasked
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	}
	return err
}

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
