package http

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// ListenerConfig is how connections are taken in. What says so is optional.
type ListenerConfig struct {
	// TLS makes it HTTPS, and must name "h2" and "http/1.1" as its protocols. Optional.
	TLS *tls.Config
	// Patience is how long a client may take to shake hands, or to send its first request.
	Patience time.Duration
	// Idle is how long a connection may wait for its next request.
	Idle time.Duration
	// Handler answers small plain POSTs to these paths over HTTP/1.1 with less ado than
	// net/http, which gets everything else. Optional.
	Handler   http.Handler
	FastPaths []string
}

// NewListener wraps a listener of TCP for a net/http Server. It shakes hands itself, each
// client for as long as patience and none in the way of another, answers on its own what
// is plain and frequent (fastConn), and hands out the other connections, HTTP/2 as
// net/http wants it. What net/http then refuses by itself, before any handler is asked (a
// broken request line, headers that are too large, an unknown transfer encoding), is a
// problem like every other refusal: net/http writes those answers as one text of its own
// to the connection, and offers no other place to change them. An ordinary answer costs a
// look at its first bytes. Close ends what is under way, and waits for it.
func NewListener(l net.Listener, config ListenerConfig) net.Listener {
	ctx, cancel := context.WithCancel(context.Background())
	config.TLS = config.TLS.Clone() // net/http completes the server's own
	s := &listener{Listener: l, config: config, ctx: ctx, cancel: cancel, ready: make(chan accepted)}
	s.group.Go(s.run)
	return s
}

type listener struct {
	net.Listener
	config ListenerConfig
	ctx    context.Context //nolint:containedctx // the listener's own life, which Close ends
	cancel context.CancelFunc
	ready  chan accepted
	group  sync.WaitGroup
}

// accepted is what Accept returns.
type accepted struct {
	conn net.Conn
	err  error
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case a := <-l.ready:
		return a.conn, a.err
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close waits until nothing of the listener runs any more.
func (l *listener) Close() error {
	l.cancel()
	err := l.Listener.Close()
	l.group.Wait()
	return err
}

func (l *listener) run() {
	for {
		conn, err := l.Listener.Accept()
		if err == nil {
			l.group.Go(func() { l.take(conn) })
			continue
		}
		// Whether to try again, and when, is for the server to say by asking again.
		if !l.hand(accepted{err: err}) || errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

func (l *listener) hand(a accepted) bool {
	select {
	case l.ready <- a:
		return true
	case <-l.ctx.Done():
		return false
	}
}

// take sees to a connection until net/http has it, or it is over.
func (l *listener) take(raw net.Conn) {
	conn := l.prepare(raw)
	if conn == nil || !l.hand(accepted{conn: conn}) {
		_ = raw.Close() // nothing was promised on it
	}
}

// prepare gives the connection as net/http is to have it; nil when it is over.
func (l *listener) prepare(raw net.Conn) net.Conn {
	if l.config.TLS == nil {
		tcp, ok := raw.(*net.TCPConn)
		if !ok {
			return raw
		}
		if unread, ok := l.fast(tcp); ok {
			return &plainConn{TCPConn: tcp, unread: unread}
		}
		return nil
	}
	conn := tls.Server(raw, l.config.TLS)
	if err := l.shakeHands(conn); err != nil {
		refusePlain(err)
		return nil
	}
	if conn.ConnectionState().NegotiatedProtocol == "h2" {
		return conn
	}
	if unread, ok := l.fast(conn); ok {
		return &secureConn{Conn: conn, unread: unread}
	}
	_ = conn.Close() // tells the client that nothing was cut off; it may be gone
	return nil
}

func (l *listener) shakeHands(conn *tls.Conn) error {
	ctx, cancel := context.WithTimeout(l.ctx, l.config.Patience)
	defer cancel()
	return conn.HandshakeContext(ctx)
}

// fast answers what it can. What it read and did not answer is unread; it is false when
// the connection is over.
func (l *listener) fast(conn net.Conn) (unread unread, goesOn bool) {
	if len(l.config.FastPaths) == 0 {
		return nil, true
	}
	f := &fastConn{
		conn: conn, ctx: l.ctx, handler: l.config.Handler, paths: l.config.FastPaths,
		patience: l.config.Patience, idle: l.config.Idle,
	}
	return f.serve()
}

// plainConn has all that net/http looks for in a connection of TCP.
type plainConn struct {
	*net.TCPConn
	unread unread
}

func (c *plainConn) Read(b []byte) (int, error)  { return c.unread.read(c.TCPConn, b) }
func (c *plainConn) Write(b []byte) (int, error) { return writeOrRefuse(c.TCPConn, b) }

// secureConn speaks HTTP/1 over TLS; its ConnectionState makes net/http know that.
type secureConn struct {
	*tls.Conn
	unread unread
}

func (c *secureConn) Read(b []byte) (int, error)  { return c.unread.read(c.Conn, b) }
func (c *secureConn) Write(b []byte) (int, error) { return writeOrRefuse(c.Conn, b) }

// unread is what was read from a connection for somebody else.
type unread []byte

func (u *unread) read(from io.Reader, b []byte) (int, error) {
	if len(*u) == 0 {
		return from.Read(b)
	}
	n := copy(b, *u)
	if *u = (*u)[n:]; len(*u) == 0 {
		*u = nil // lets go of the buffer
	}
	return n, nil
}

func writeOrRefuse(w io.Writer, b []byte) (int, error) {
	answer := refusalFor(b)
	if answer == nil {
		return w.Write(b)
	}
	if _, err := w.Write(answer); err != nil {
		return 0, err
	}
	return len(b), nil
}

// refusalFor gives the problem to be written instead of what net/http writes; nil when
// that is no refusal of its own. Our own handlers write neither of the two forms, and
// their bodies hold no line breaks as HTTP has them.
func refusalFor(b []byte) []byte {
	const (
		start   = "HTTP/1.1 "
		longest = 300
		headers = "\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"
	)
	if len(b) > longest || len(b) < len(start)+3 || b[len(start)] < '4' || string(b[:len(start)]) != start {
		return nil
	}
	status, err := strconv.Atoi(string(b[len(start) : len(start)+3]))
	if err != nil {
		return nil
	}
	line := bytes.Index(b, []byte("\r\n"))
	if line > 0 && bytes.HasPrefix(b[line:], []byte(headers)) {
		// The text is net/http's own and quotes nothing: "400 Bad Request: invalid header name".
		_, detail, _ := bytes.Cut(b[line+len(headers):], []byte(": "))
		return refusal(status, string(detail))
	}
	if status == http.StatusExpectationFailed {
		return refusal(status, "expect nothing but 100-continue")
	}
	return nil
}

var refusals = map[int]problem{
	http.StatusBadRequest:                  {"malformed", "The request cannot be read"},
	http.StatusExpectationFailed:           {"expectation_failed", "The request expects what there is not"},
	http.StatusRequestHeaderFieldsTooLarge: {"headers_too_large", "The headers of the request are too large"},
	http.StatusNotImplemented:              {"unsupported_transfer_encoding", "The body comes in an unknown transfer encoding"},
	http.StatusHTTPVersionNotSupported:     {"unsupported_version", "The request is of an unknown version of HTTP"},
}

// refusal is a whole answer, after which the connection ends.
func refusal(status int, detail string) []byte {
	p, known := refusals[status]
	if !known {
		p = problem{"refused", http.StatusText(status)}
	}
	body := encode(struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail,omitempty"`
	}{"urn:medilab:problem:" + p.name, p.title, status, detail})
	return append([]byte("HTTP/1.1 "+strconv.Itoa(status)+" "+http.StatusText(status)+
		"\r\nContent-Type: "+problemType[0]+"\r\nContent-Length: "+strconv.Itoa(len(body))+
		"\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"), body...)
}

// refusePlain answers who speaks HTTP where HTTPS is spoken.
func refusePlain(err error) {
	var record tls.RecordHeaderError
	if !errors.As(err, &record) || record.Conn == nil {
		return
	}
	switch string(record.RecordHeader[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "PATCH", "DELET":
		// That they are gone already is nobody's error.
		_, _ = record.Conn.Write(refusal(http.StatusBadRequest, "this port speaks HTTPS: call https://"))
	}
}
