package sender

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// http1 makes calls over HTTP/1.1 connections that the calling goroutine drives
// from the dial to the last byte of the answer, where http.Transport has two
// goroutines a connection (docs/decisions/0010). net/http still parses the answers.
// HTTP/2, proxies, internationalized names and large bodies are left to the
// transport.
type http1 struct {
	dial, dialTLS       dialFunc
	maxIdle, maxIdlePer int // connections in all, and for each key

	mu     sync.Mutex
	idle   map[string][]*http1Conn // by endpoint.key, last used last
	count  int
	reaper *time.Timer // nil if no connection is idle
}

// maxHTTP1Body surely fits into the socket's buffer: a request is written whole
// before its answer is read.
const maxHTTP1Body = 64 << 10

func newHTTP1(dial, dialTLS dialFunc, maxInFlight int) *http1 {
	return &http1{dial: dial, dialTLS: dialTLS, maxIdle: 2 * maxInFlight, maxIdlePer: maxInFlight, idle: map[string][]*http1Conn{}}
}

// http1Conn is one connection, used by one call at a time.
type http1Conn struct {
	net.Conn
	raw       syscall.RawConn // nil if the socket cannot be looked at
	reader    *bufio.Reader
	remaining int64 // bytes that Read may still return
	idleSince time.Time
}

// Read bounds the size of an answer's headers, 1xx answers included.
func (c *http1Conn) Read(p []byte) (int, error) {
	if c.remaining <= 0 {
		return 0, errHeaderTooLarge
	}
	n, err := c.Conn.Read(p[:min(int64(len(p)), c.remaining)])
	c.remaining -= int64(n)
	return n, err
}

var errHeaderTooLarge = fmt.Errorf("the response headers exceeded %d bytes", maxResponseHeader)

// call makes a call with a body of at most maxHTTP1Body. The end of ctx ends it.
func (h *http1) call(ctx context.Context, deadline time.Time, e *endpoint, r *Request) Result {
	if !allows(r.Allowed) {
		return failed(errWithheld)
	}
	conn, err := h.connTo(ctx, deadline, e)
	if err != nil {
		return failed(err)
	}
	if !allows(r.Allowed) { // resolving, connecting and handshakes may take long
		return failed(errors.Join(errWithheld, conn.Close()))
	}
	// Ends whatever read or write the connection is blocked in.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	resp, err := conn.roundTrip(e, r)
	if err != nil {
		stop()
		_ = conn.Close() // the call has failed already
		return failed(err)
	}
	res := readResponse(resp)
	complete := !res.Truncated && (res.Outcome == Success || res.Outcome == HTTPStatus)
	reusable := stop() && complete && !resp.Close && resp.StatusCode != http.StatusSwitchingProtocols && conn.reader.Buffered() == 0
	if !reusable || !h.putIdle(e.key, conn) {
		_ = conn.Close() // the answer is read, or the rest of it is not wanted
	}
	return res
}

// connTo returns an idle connection that is still alive, else a new one.
func (h *http1) connTo(ctx context.Context, deadline time.Time, e *endpoint) (*http1Conn, error) {
	for conn := h.takeIdle(e.key); conn != nil; conn = h.takeIdle(e.key) {
		if conn.SetDeadline(deadline) == nil && conn.idleConnAlive() {
			return conn, nil
		}
		_ = conn.Close() // the receiver closed it, or is about to
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	dial := h.dial
	if e.URL.Scheme == "https" {
		dial = h.dialTLS
	}
	raw, err := dial(ctx, "tcp", e.addr)
	if err != nil {
		return nil, err
	}
	conn := &http1Conn{Conn: raw, raw: rawConn(raw)}
	conn.reader = bufio.NewReader(conn)
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func rawConn(conn net.Conn) syscall.RawConn {
	if layered, ok := conn.(interface{ NetConn() net.Conn }); ok { // TLS
		conn = layered.NetConn()
	}
	if c, ok := conn.(syscall.Conn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			return raw
		}
	}
	return nil
}

// idleConnAlive reports whether an idle connection can be used: it is not old, the
// receiver has not closed it, and nothing arrived unasked. It is called right before
// a request: a connection that closes later looks like a reset during the call.
func (c *http1Conn) idleConnAlive() bool {
	return time.Since(c.idleSince) < idleTimeout && c.raw != nil && nothingToRead(c.raw)
}

func (h *http1) takeIdle(key string) *http1Conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	conns := h.idle[key]
	if len(conns) == 0 {
		return nil
	}
	last := len(conns) - 1
	conn := conns[last]
	conns[last] = nil
	h.idle[key] = conns[:last]
	h.count--
	return conn
}

// putIdle keeps the connection for the next call and reports whether there was room.
func (h *http1) putIdle(key string, conn *http1Conn) bool {
	conn.idleSince = time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.count >= h.maxIdle || len(h.idle[key]) >= h.maxIdlePer {
		return false
	}
	h.idle[key] = append(h.idle[key], conn)
	h.count++
	if h.reaper == nil {
		h.reaper = time.AfterFunc(idleTimeout, func() { h.closeIdle(idleTimeout) })
	}
	return true
}

// closeIdle closes the connections that have been idle for at least d.
func (h *http1) closeIdle(d time.Duration) {
	for _, conn := range h.takeOld(d) {
		_ = conn.Close() // without the lock: over TLS it writes
	}
}

func (h *http1) takeOld(d time.Duration) (old []*http1Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, conns := range h.idle {
		n := 0
		for n < len(conns) && time.Since(conns[n].idleSince) >= d {
			n++
		}
		old = append(old, conns[:n]...)
		h.count -= n
		if conns = slices.Delete(conns, 0, n); len(conns) > 0 {
			h.idle[key] = conns
		} else {
			delete(h.idle, key)
		}
	}
	if h.count > 0 {
		h.reaper.Reset(idleTimeout)
	} else {
		h.reaper = nil
	}
	return old
}

var requestBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 4096); return &b }}

// roundTrip sends the request and reads the answer up to its body.
func (c *http1Conn) roundTrip(e *endpoint, r *Request) (*http.Response, error) {
	buf := requestBuffers.Get().(*[]byte)
	defer requestBuffers.Put(buf)
	*buf = appendRequest((*buf)[:0], e, r)
	_, writeErr := c.Write(*buf)
	// Read also after a failed write: a receiver may answer and close before it has
	// read everything.
	c.remaining = maxResponseHeader
	for {
		resp, err := http.ReadResponse(c.reader, &e.Request)
		switch {
		case err != nil && c.remaining <= 0:
			return nil, errHeaderTooLarge // which ReadResponse reports as something else
		case err != nil && writeErr != nil:
			return nil, writeErr
		case err != nil:
			return nil, err
		}
		if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			c.remaining = math.MaxInt64
			return resp, nil
		}
	}
}

// appendRequest appends the request as it is sent.
func appendRequest(dst []byte, e *endpoint, r *Request) []byte {
	dst = append(dst, e.head...)
	dst = append(dst, "Content-Length: "...)
	dst = strconv.AppendInt(dst, int64(len(r.Body)), 10)
	dst = append(dst, "\r\nAccept-Encoding: identity\r\n"...)
	for _, h := range r.Header {
		if !isReserved(h.Name) {
			dst = append(append(dst, h.Name...), ": "...)
			dst = append(append(dst, strings.TrimSpace(h.Value)...), "\r\n"...)
		}
	}
	dst = append(dst, "\r\n"...)
	return append(dst, r.Body...)
}
