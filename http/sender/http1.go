package sender

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// http1 makes calls over HTTP/1.1 connections that the calling goroutine drives
// from the dial to the last byte of the answer, where http.Transport has two
// goroutines a connection (docs/decisions/0010). net/http still parses the answers.
// HTTP/2 and proxies are left to the transport.
type http1 struct {
	dial, dialTLS       dialFunc
	maxIdle, maxIdlePer int // connections in all, and for each key

	settle time.Duration

	mu       sync.Mutex
	idle     map[string][]*http1Conn // by endpoint.key, last used last
	verdicts map[string]verdict      // by endpoint.key, at most maxEndpoints
	count    int
	reaper   *time.Timer // nil if no connection is idle
}

const (
	// maxBuffered surely fits into the socket's buffer: a request with a body of this
	// size is written whole before its answer is read.
	maxBuffered = 64 << 10
	// settleTime is how long a connection is watched before the first one to an
	// address is reused: some receivers close it, or go on talking, after an answer.
	settleTime  = 5 * time.Millisecond
	verdictTime = 10 * time.Minute
)

// verdict says whether connections to an address are reused.
type verdict struct {
	reuse bool
	until time.Time
}

func newHTTP1(dial, dialTLS dialFunc, maxInFlight int) *http1 {
	return &http1{dial: dial, dialTLS: dialTLS, maxIdle: 2 * maxInFlight, maxIdlePer: maxInFlight, settle: settleTime,
		idle: map[string][]*http1Conn{}, verdicts: map[string]verdict{}}
}

// http1Conn is one connection, used by one call at a time.
type http1Conn struct {
	net.Conn
	socket    *socket // Conn, or what is below its TLS
	reader    *bufio.Reader
	remaining int64      // bytes that Read may still return
	written   chan error // the end of writing a large body; nil if none is written
	reused    bool
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

var (
	errHeaderTooLarge = fmt.Errorf("the response headers exceeded %d bytes", maxResponseHeader)
	errEndlessInterim = fmt.Errorf("%w: 1xx answers came and no final one", errHeaderTooLarge)
)

// call makes a call. The end of ctx ends it.
func (h *http1) call(ctx context.Context, deadline time.Time, e *endpoint, r *Request) Result {
	if !allows(r.Allowed) {
		return failed(errWithheld)
	}
	conn, err := h.connTo(ctx, deadline, e, r.Fresh)
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
		if conn.reused && conn.remaining == maxResponseHeader && isReset(err) {
			h.avoidReuse(e.key) // the receiver closes idle connections without notice
		}
		return failed(err)
	}
	res := readResponse(resp)
	unasked := conn.reader.Buffered() > 0
	complete := !res.Truncated && (res.Outcome == Success || res.Outcome == HTTPStatus)
	if complete && unasked {
		h.avoidReuse(e.key)
	}
	reusable := stop() && complete && !unasked && !resp.Close && resp.StatusCode != http.StatusSwitchingProtocols && conn.bodyWritten()
	if !reusable || !h.putIdle(e.key, conn) {
		_ = conn.Close() // the answer is read, or the rest of it is not wanted
	}
	return res
}

// connTo returns an idle connection that is still alive, unless fresh, or a new one.
func (h *http1) connTo(ctx context.Context, deadline time.Time, e *endpoint, fresh bool) (*http1Conn, error) {
	for !fresh {
		conn := h.takeIdle(e.key)
		if conn == nil {
			break
		}
		err := cmp.Or(h.idleError(e.key, conn), conn.SetDeadline(deadline))
		if err == nil {
			conn.reused = true
			return conn, nil
		}
		_ = conn.Close() // the receiver closed it, or is about to
		if errors.Is(err, errUnasked) {
			h.avoidReuse(e.key)
		}
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
	conn := newHTTP1Conn(raw)
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func newHTTP1Conn(raw net.Conn) *http1Conn {
	conn := &http1Conn{Conn: raw}
	if layered, ok := raw.(*tls.Conn); ok {
		conn.socket, _ = layered.NetConn().(*socket)
	} else {
		conn.socket = newSocket(raw, false)
		conn.Conn = conn.socket
	}
	conn.reader = bufio.NewReader(conn)
	return conn
}

var errTooOld = errors.New("the connection has been idle for too long")

// idleError returns why an idle connection cannot be used. It is called right before a
// request: a connection that closes later looks like a reset during the call.
func (h *http1) idleError(key string, c *http1Conn) error {
	idle := time.Since(c.idleSince)
	if idle >= idleTimeout {
		return errTooOld
	}
	h.mu.Lock()
	known := c.idleSince.Before(h.verdicts[key].until)
	h.mu.Unlock()
	if known {
		return c.socket.probe(c.Conn, 0)
	}
	err := c.socket.probe(c.Conn, h.settle-idle)
	if err == nil {
		h.setReuse(key, true)
	}
	return err
}

// bodyWritten reports whether the request was sent whole. The answer may be faster
// than the end of its write.
func (c *http1Conn) bodyWritten() bool {
	if c.written == nil {
		return true
	}
	select {
	case err := <-c.written:
		c.written = nil
		return err == nil
	case <-time.After(settleTime):
		return false
	}
}

// Close closes the connection and waits for what is writing to it.
func (c *http1Conn) Close() error {
	err := c.Conn.Close()
	if c.written != nil {
		<-c.written // an error: it is closed
	}
	return err
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
	if v := h.verdicts[key]; !v.reuse && conn.idleSince.Before(v.until) {
		return false
	}
	h.idle[key] = append(h.idle[key], conn)
	h.count++
	if h.reaper == nil {
		h.reaper = time.AfterFunc(idleTimeout, func() { h.closeIdle(idleTimeout) })
	}
	return true
}

// avoidReuse closes the idle connections to an address and keeps none for a while.
func (h *http1) avoidReuse(key string) {
	h.setReuse(key, false)
	h.mu.Lock()
	conns := h.idle[key]
	delete(h.idle, key)
	h.count -= len(conns)
	h.mu.Unlock()
	for _, conn := range conns {
		_ = conn.Close() // without the lock: over TLS it writes
	}
}

// setReuse sets the verdict on an address. A good one replaces no bad one.
func (h *http1) setReuse(key string, reuse bool) {
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	if v := h.verdicts[key]; reuse && !v.reuse && now.Before(v.until) {
		return
	}
	if len(h.verdicts) >= maxEndpoints {
		clear(h.verdicts)
	}
	h.verdicts[key] = verdict{reuse, now.Add(verdictTime)}
}

// closeIdle closes the connections that have been idle for at least d.
func (h *http1) closeIdle(d time.Duration) {
	var old []*http1Conn
	h.mu.Lock()
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
	h.mu.Unlock()
	for _, conn := range old {
		_ = conn.Close() // without the lock: over TLS it writes
	}
}

var requestBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 4096); return &b }}

// roundTrip sends the request and reads the answer up to its body.
func (c *http1Conn) roundTrip(e *endpoint, r *Request) (*http.Response, error) {
	buf := requestBuffers.Get().(*[]byte)
	defer requestBuffers.Put(buf)
	*buf = appendHead((*buf)[:0], e, r)
	large := len(r.Body) > maxBuffered
	if !large {
		*buf = append(*buf, r.Body...) // sent in one write
	}
	_, writeErr := c.Write(*buf)
	if large && writeErr == nil {
		c.written = make(chan error, 1)
		go func() {
			_, err := c.Write(r.Body)
			c.written <- err
		}()
	}
	// Read also after a failed write: a receiver may answer and close before it has
	// read everything.
	c.remaining = maxResponseHeader
	tooLarge := errHeaderTooLarge
	for {
		resp, err := http.ReadResponse(c.reader, &e.Request)
		switch {
		case err != nil && c.remaining <= 0:
			return nil, tooLarge // which ReadResponse reports as something else
		case err != nil && writeErr != nil:
			return nil, writeErr
		case err != nil:
			return nil, err
		}
		if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			c.remaining = math.MaxInt64
			return resp, nil
		}
		tooLarge = errEndlessInterim
	}
}

// appendHead appends the request up to its body.
func appendHead(dst []byte, e *endpoint, r *Request) []byte {
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
	return append(dst, "\r\n"...)
}
