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

// NewListener wraps a listener of TCP for a net/http Server, so that what net/http
// refuses by itself, before any handler is asked (a broken request line, headers that
// are too large, an unknown transfer encoding), is a problem like every other refusal.
// net/http writes those answers as one text of its own to the connection, and offers no
// other place to change them. An ordinary answer costs a look at its first bytes.
func NewListener(l net.Listener) net.Listener { return plainListener{l} }

type plainListener struct{ net.Listener }

func (l plainListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if tcp, ok := conn.(*net.TCPConn); ok {
		return plainConn{tcp}, err
	}
	return conn, err
}

// plainConn has all that net/http looks for in a connection of TCP.
type plainConn struct{ *net.TCPConn }

func (c plainConn) Write(b []byte) (int, error) { return writeOrRefuse(c.TCPConn, b) }

// secureConn speaks HTTP/1 over TLS; its ConnectionState makes net/http know that.
type secureConn struct{ *tls.Conn }

func (c secureConn) Write(b []byte) (int, error) { return writeOrRefuse(c.Conn, b) }

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

// NewTLSListener is NewListener over TLS: it shakes hands itself, each client for as
// long as patience and none in the way of another, and hands out connections that are
// ready: HTTP/2 as net/http wants it, HTTP/1 as NewListener does. The config must name
// both as its protocols. Close ends the handshakes under way.
func NewTLSListener(l net.Listener, config *tls.Config, patience time.Duration) net.Listener {
	ctx, cancel := context.WithCancel(context.Background())
	// A clone, as net/http completes the server's own.
	s := &tlsListener{Listener: l, config: config.Clone(), patience: patience, ctx: ctx, cancel: cancel, ready: make(chan accepted)}
	s.group.Go(s.run)
	return s
}

type tlsListener struct {
	net.Listener
	config   *tls.Config
	patience time.Duration
	ctx      context.Context //nolint:containedctx // the listener's own life, which Close ends
	cancel   context.CancelFunc
	ready    chan accepted
	group    sync.WaitGroup
}

// accepted is what Accept returns.
type accepted struct {
	conn net.Conn
	err  error
}

func (l *tlsListener) Accept() (net.Conn, error) {
	select {
	case a := <-l.ready:
		return a.conn, a.err
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close waits until nothing of the listener runs any more.
func (l *tlsListener) Close() error {
	l.cancel()
	err := l.Listener.Close()
	l.group.Wait()
	return err
}

func (l *tlsListener) run() {
	for {
		conn, err := l.Listener.Accept()
		if err == nil {
			l.group.Go(func() { l.greet(conn) })
			continue
		}
		// Whether to try again, and when, is for the server to say by asking again.
		if !l.hand(accepted{err: err}) || errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

func (l *tlsListener) hand(a accepted) bool {
	select {
	case l.ready <- a:
		return true
	case <-l.ctx.Done():
		return false
	}
}

func (l *tlsListener) greet(raw net.Conn) {
	ctx, cancel := context.WithTimeout(l.ctx, l.patience)
	defer cancel()
	conn := tls.Server(raw, l.config)
	if err := conn.HandshakeContext(ctx); err != nil {
		refusePlain(err)
		_ = raw.Close() // nothing was promised on it
		return
	}
	a := accepted{conn: secureConn{conn}}
	if conn.ConnectionState().NegotiatedProtocol == "h2" {
		a.conn = conn
	}
	if !l.hand(a) {
		_ = raw.Close()
	}
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
