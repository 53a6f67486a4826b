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
// by itself, from the dial to the last byte of the answer. net/http's transport
// has two more goroutines a connection and hands each call from one to the other:
// that was an eighth of all CPU time of this process. Answers are parsed by
// net/http all the same. HTTP/2, proxies, internationalised names and bodies that
// may not fit into a socket's buffer are the transport's.
type http1 struct {
	dial, dialTLS  dialFunc
	most, mostEach int // idle connections, all and to one address

	mu     sync.Mutex
	idle   map[string][]*http1Conn // by scheme and address, the last used last
	count  int
	reaper *time.Timer // nil: nothing is idle
}

// maxHTTP1Body is what surely fits into the socket's buffer: a request is written
// whole before its answer is read, so that one goroutine is enough.
const maxHTTP1Body = 64 << 10

func newHTTP1(dial, dialTLS dialFunc, mostEach int) *http1 {
	return &http1{dial: dial, dialTLS: dialTLS, most: 2 * mostEach, mostEach: mostEach, idle: map[string][]*http1Conn{}}
}

// http1Conn is one connection; whoever took it owns it.
type http1Conn struct {
	net.Conn
	raw    syscall.RawConn // of the socket; nil: it cannot be looked at
	reader *bufio.Reader
	budget int64 // bytes that may still be read; see Read
	since  time.Time
}

// Read bounds the header lines of an answer, 1xx included.
func (c *http1Conn) Read(p []byte) (int, error) {
	if c.budget <= 0 {
		return 0, errHeaderTooLarge
	}
	n, err := c.Conn.Read(p[:min(int64(len(p)), c.budget)])
	c.budget -= int64(n)
	return n, err
}

var errHeaderTooLarge = fmt.Errorf("the response headers exceeded %d bytes", maxResponseHeader)

// call makes one call, of a body up to maxHTTP1Body. ctx ends it early.
func (h *http1) call(ctx context.Context, deadline time.Time, t *target, r Request) Result {
	if err := checkHeader(r.Header); err != nil {
		return Result{Outcome: InvalidRequest, Error: err.Error()}
	}
	if !mayGo(r.Allowed) {
		return failed(errWithheld)
	}
	conn, err := h.take(ctx, deadline, t)
	if err != nil {
		return failed(err)
	}
	if !mayGo(r.Allowed) { // names, connects and handshakes may take long
		return failed(errors.Join(errWithheld, conn.Close()))
	}
	// Whatever the connection is waiting for then fails at once.
	detach := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	resp, err := conn.exchange(t, r.Header, r.Body)
	if err != nil {
		detach()
		_ = conn.Close() // it failed already
		return failed(err)
	}
	res := read(resp)
	whole := !res.Truncated && (res.Outcome == Success || res.Outcome == HTTPStatus)
	if detach() && whole && !resp.Close && resp.StatusCode != http.StatusSwitchingProtocols && conn.reader.Buffered() == 0 {
		h.put(t.key, conn)
	} else {
		_ = conn.Close() // what is left of the answer is not wanted
	}
	return res
}

// take gives an idle connection that still stands, else a new one.
func (h *http1) take(ctx context.Context, deadline time.Time, t *target) (*http1Conn, error) {
	for {
		conn := h.pop(t.key)
		if conn == nil {
			break
		}
		if time.Since(conn.since) < idleTimeout && conn.SetDeadline(deadline) == nil && conn.quiet() {
			return conn, nil
		}
		_ = conn.Close() // the receiver ended it, or is about to
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	dial := h.dial
	if t.URL.Scheme == "https" {
		dial = h.dialTLS
	}
	raw, err := dial(ctx, "tcp", t.addr)
	if err != nil {
		return nil, err
	}
	conn := &http1Conn{Conn: raw, raw: rawConnOf(raw)}
	conn.reader = bufio.NewReader(conn)
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func rawConnOf(conn net.Conn) syscall.RawConn {
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

func (h *http1) pop(key string) *http1Conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := h.idle[key]
	if len(list) == 0 {
		return nil
	}
	conn := list[len(list)-1]
	list[len(list)-1] = nil
	h.idle[key] = list[:len(list)-1]
	h.count--
	return conn
}

func (h *http1) put(key string, conn *http1Conn) {
	conn.since = time.Now()
	h.mu.Lock()
	keep := h.count < h.most && len(h.idle[key]) < h.mostEach
	if keep {
		h.idle[key] = append(h.idle[key], conn)
		h.count++
		if h.reaper == nil {
			h.reaper = time.AfterFunc(idleTimeout, h.reap)
		}
	}
	h.mu.Unlock()
	if !keep {
		_ = conn.Close() // there are enough
	}
}

// reap closes what nobody used for long, until nothing is idle.
func (h *http1) reap() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, list := range h.idle {
		n := 0 // those that have been idle longest stand first
		for n < len(list) && time.Since(list[n].since) >= idleTimeout {
			_ = list[n].Close() // nobody waits for it
			n++
		}
		h.count -= n
		if list = slices.Delete(list, 0, n); len(list) == 0 {
			delete(h.idle, key)
		} else {
			h.idle[key] = list
		}
	}
	if h.count == 0 {
		h.reaper = nil
	} else {
		h.reaper.Reset(idleTimeout)
	}
}

// closeIdle lets all idle connections go.
func (h *http1) closeIdle() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, list := range h.idle {
		for _, conn := range list {
			_ = conn.Close() // nobody waits for it
		}
	}
	clear(h.idle)
	h.count = 0
}

var requests = sync.Pool{New: func() any { b := make([]byte, 0, 4096); return &b }}

// exchange sends the request and reads the answer up to its body.
func (c *http1Conn) exchange(t *target, header []Field, body []byte) (*http.Response, error) {
	buf := requests.Get().(*[]byte)
	defer requests.Put(buf)
	*buf = appendRequest((*buf)[:0], t, header, body)
	_, writeErr := c.Write(*buf)
	// A receiver may answer and close before it has read all: it is heard.
	c.budget = maxResponseHeader
	const most1xx = 1 << 10 // the bytes bound them first
	for range most1xx {
		resp, err := http.ReadResponse(c.reader, &t.Request)
		switch {
		case err != nil && c.budget <= 0:
			return nil, errHeaderTooLarge // its end looked like something else
		case err != nil && writeErr != nil:
			return nil, writeErr
		case err != nil:
			return nil, err
		}
		if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			c.budget = math.MaxInt64
			return resp, nil
		}
	}
	return nil, errHeaderTooLarge
}

// appendRequest appends the request as it goes over the wire.
func appendRequest(dst []byte, t *target, header []Field, body []byte) []byte {
	dst = append(dst, t.head...)
	dst = append(dst, "Content-Length: "...)
	dst = strconv.AppendInt(dst, int64(len(body)), 10)
	dst = append(dst, "\r\nAccept-Encoding: identity\r\n"...)
	for _, h := range header {
		if theirs(h.Name) {
			dst = append(append(dst, h.Name...), ": "...)
			dst = append(append(dst, strings.TrimSpace(h.Value)...), "\r\n"...)
		}
	}
	dst = append(dst, "\r\n"...)
	return append(dst, body...)
}

// checkHeader refuses what would not be a header field (RFC 9110, section 5).
func checkHeader(header []Field) error {
	for i := range header {
		if !isToken(header[i].Name) {
			return errors.New("a header of the request cannot be sent: its name is not valid")
		}
		for _, c := range []byte(header[i].Value) {
			if c < ' ' && c != '\t' || c == 0x7f {
				return errors.New("a header of the request cannot be sent: its value holds a control character")
			}
		}
	}
	return nil
}

func isToken(name string) bool {
	for _, c := range []byte(name) {
		if !inToken[c] {
			return false
		}
	}
	return name != ""
}

// inToken are the characters of a token (RFC 9110, section 5.6.2).
var inToken = func() (in [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~") {
		in[c] = true
	}
	return in
}()

// quiet tells whether an idle connection still stands and nothing came over it
// unasked. A receiver that closes it later than this cannot be told from one that
// broke off in the call, so this is as late as can be.
func (c *http1Conn) quiet() bool { return c.raw != nil && nothingToRead(c.raw) }
