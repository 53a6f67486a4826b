// Package fastpath serves small plain POSTs to a few paths with less work than net/http,
// on the connections of a net/http server, which serves everything else.
package fastpath

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"
)

// Config says how connections are served.
type Config struct {
	// TLS makes it HTTPS, and must name "h2" and "http/1.1" as its protocols. Optional.
	TLS *tls.Config
	// ReadTimeout bounds the handshake, the wait for a connection's first request, and
	// that for the rest of a request.
	ReadTimeout time.Duration
	// IdleTimeout bounds the wait for the next request.
	IdleTimeout time.Duration
	// MaxConns bounds the connections that are open; 0 means any number. The server's
	// ConnState must be the one of this package.
	MaxConns int
	// Handler serves plain requests for Paths. Optional.
	Handler http.Handler
	Paths   []string
	// Refuse answers a request that is refused before any handler is called; detail may be "".
	// r has the client's address and the header fields that were read, as far as they are
	// known. Optional: without it such responses stay as net/http writes them.
	Refuse func(w http.ResponseWriter, r *http.Request, status int, detail string)
}

// NewListener wraps a TCP listener for a net/http server. It does the TLS handshakes,
// without one delaying another, serves plain requests itself, and returns the other
// connections from Accept. Close ends the requests under way and waits for them.
//
// What net/http refuses by itself (a broken request line, headers that are too large, an
// unknown transfer encoding) it writes to the connection as text in one write, and has no
// hook for it. These writes are recognized and replaced by the answer of the Config's Refuse.
func NewListener(l net.Listener, config Config) net.Listener {
	ctx, cancel := context.WithCancel(context.Background())
	config.TLS = config.TLS.Clone() // net/http completes the server's own
	s := &listener{Listener: l, config: config, slots: &slots{most: config.MaxConns, open: map[*slot]struct{}{}}, ctx: ctx, cancel: cancel, accepted: make(chan accepted)}
	s.group.Go(s.run)
	return s
}

type listener struct {
	net.Listener
	config   Config
	slots    *slots
	ctx      context.Context //nolint:containedctx // the listener's own life, which Close ends
	cancel   context.CancelFunc
	accepted chan accepted
	group    sync.WaitGroup
}

// accepted is a result of Accept.
type accepted struct {
	conn net.Conn
	err  error
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case a := <-l.accepted:
		return a.conn, a.err
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close closes the listener and waits for its goroutines.
func (l *listener) Close() error {
	l.cancel()
	err := l.Listener.Close()
	l.group.Wait()
	return err
}

func (l *listener) run() {
	for {
		raw, err := l.Listener.Accept()
		if err == nil {
			if slot := l.slots.take(raw); slot != nil {
				l.group.Go(func() { l.serve(slot) })
			} else {
				refuse(raw)
			}
			continue
		}
		// The server decides whether to retry, and when, by calling Accept again.
		if !l.deliver(accepted{err: err}) || errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

func (l *listener) deliver(a accepted) bool {
	select {
	case l.accepted <- a:
		return true
	case <-l.ctx.Done():
		return false
	}
}

// serve serves a connection until net/http takes it over or it is closed.
func (l *listener) serve(raw *slot) {
	conn := l.prepare(raw)
	if conn == nil || !l.deliver(accepted{conn: conn}) {
		_ = raw.Close() // nothing more is sent on it
	}
}

// prepare returns the connection for net/http, or nil when it is to be closed.
func (l *listener) prepare(raw *slot) net.Conn {
	if l.config.TLS == nil {
		tcp, ok := tcpOf(raw.Conn)
		if !ok {
			return raw
		}
		if unread, ok := l.servePlain(raw.Conn, raw); ok {
			return &plainConn{tcp, raw.Conn, rest{listener: l, slot: raw, unread: unread}}
		}
		return nil
	}
	secure := tls.Server(raw, l.config.TLS)
	if err := l.handshake(secure); err != nil {
		l.refuseHTTP(err)
		return nil
	}
	if secure.ConnectionState().NegotiatedProtocol == "h2" {
		return secure
	}
	if unread, ok := l.servePlain(secure, raw); ok {
		return &secureConn{secure, rest{listener: l, slot: raw, unread: unread}}
	}
	_ = secure.Close() // sends close_notify; the client may be gone
	return nil
}

func (l *listener) handshake(secure *tls.Conn) error {
	ctx, cancel := context.WithTimeout(l.ctx, l.config.ReadTimeout)
	defer cancel()
	return secure.HandshakeContext(ctx)
}

// refuseHTTP answers a client that speaks HTTP to an HTTPS port.
func (l *listener) refuseHTTP(err error) {
	var record tls.RecordHeaderError
	if !errors.As(err, &record) || record.Conn == nil || l.config.Refuse == nil {
		return
	}
	switch string(record.RecordHeader[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "PATCH", "DELET":
		// The client may be gone.
		_, _ = record.Conn.Write(l.refusal(record.Conn, nil, http.StatusBadRequest, "this port speaks HTTPS: call https://"))
	}
}

func (l *listener) servePlain(raw net.Conn, slot *slot) (unread []byte, continues bool) {
	if len(l.config.Paths) == 0 {
		return nil, true
	}
	c := &conn{
		Conn: raw, slot: slot, ctx: l.ctx, handler: l.config.Handler, paths: l.config.Paths,
		readTimeout: l.config.ReadTimeout, idleTimeout: l.config.IdleTimeout,
	}
	return c.serve()
}

// tcpOf returns the TCP connection, which a PROXY header may have begun: then conn reads past
// the header, and has the client's address.
func tcpOf(conn net.Conn) (*net.TCPConn, bool) {
	if proxied, ok := conn.(interface{ TCPConn() (*net.TCPConn, bool) }); ok {
		return proxied.TCPConn()
	}
	tcp, ok := conn.(*net.TCPConn)
	return tcp, ok
}

// plainConn has all that net/http looks for in a TCP connection.
type plainConn struct {
	*net.TCPConn
	conn net.Conn // the same, or past its PROXY header
	rest rest
}

func (c *plainConn) RemoteAddr() net.Addr        { return c.conn.RemoteAddr() }
func (c *plainConn) Close() error                { return c.rest.slot.Close() }
func (c *plainConn) Read(b []byte) (int, error)  { return c.rest.read(c.conn, b) }
func (c *plainConn) Write(b []byte) (int, error) { return c.rest.write(c.conn, b) }

// secureConn has the ConnectionState that net/http looks for.
type secureConn struct {
	*tls.Conn
	rest rest
}

func (c *secureConn) Read(b []byte) (int, error)  { return c.rest.read(c.Conn, b) }
func (c *secureConn) Write(b []byte) (int, error) { return c.rest.write(c.Conn, b) }

// maxHead is how much of a request is kept until it is answered, in case that it is refused.
const maxHead = 8 << 10

// rest is what net/http gets of a connection: first the unread bytes.
type rest struct {
	listener *listener
	slot     *slot
	unread   []byte

	mu   sync.Mutex // net/http reads on while a handler writes
	head []byte     // what was read since the last write, up to maxHead
}

func (c *rest) read(from io.Reader, b []byte) (n int, err error) {
	if len(c.unread) == 0 {
		n, err = from.Read(b)
	} else {
		n = copy(b, c.unread)
		if c.unread = c.unread[n:]; len(c.unread) == 0 {
			c.unread = nil // frees the buffer
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.head = append(c.head, b[:min(n, maxHead-len(c.head))]...)
	return n, err
}

func (c *rest) write(to net.Conn, b []byte) (int, error) {
	c.mu.Lock()
	head := c.head
	c.head = nil
	c.mu.Unlock()
	status, detail, ok := refusalIn(b)
	if !ok || c.listener.config.Refuse == nil {
		return to.Write(b)
	}
	if _, err := to.Write(c.listener.refusal(to, head, status, detail)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// refused matches what net/http writes by itself: a status with a text of its own, which
// quotes nothing of the request, or 417, of which it writes no more than the status. Our
// handlers write neither, and no CRLF in their bodies.
var refused = regexp.MustCompile(`^HTTP/1\.1 (?:(417) |([45]\d\d) [^\r]*\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n[^:]*(?:: (.*))?)`)

// refusalIn reports whether net/http writes a refusal of its own, and returns what it says.
func refusalIn(b []byte) (status int, detail string, ok bool) {
	const at, longest = len("HTTP/1.1 "), 300
	if len(b) > longest || len(b) <= at || b[at] < '4' {
		return 0, "", false // most responses, at the cost of two comparisons
	}
	switch m := refused.FindSubmatch(b); {
	case m == nil:
		return 0, "", false
	case m[1] != nil:
		return http.StatusExpectationFailed, "", true
	default:
		status, _ = strconv.Atoi(string(m[2])) // digits
		return status, string(m[3]), true
	}
}

// refusal returns the whole response to a request that begins with head, after which the
// connection is closed.
func (l *listener) refusal(conn net.Conn, head []byte, status int, detail string) []byte {
	w := response{header: http.Header{}}
	l.config.Refuse(&w, &http.Request{URL: &url.URL{}, Header: fieldsOf(head), RemoteAddr: conn.RemoteAddr().String()}, status, detail)
	w.header.Set("Connection", "close")
	var out bytes.Buffer
	w.encode(&out)
	return out.Bytes()
}

// fieldsOf returns the header fields of a request that begins with head, without the lines
// that are not well-formed.
func fieldsOf(head []byte) http.Header {
	header := http.Header{}
	for line := range strings.Lines(string(head)) {
		text := strings.TrimRight(line, "\r\n")
		if text == "" || text == line {
			break // the end, or cut off
		}
		if name, value, found := strings.Cut(text, ":"); found && httpguts.ValidHeaderFieldName(name) && httpguts.ValidHeaderFieldValue(value) {
			header.Add(name, strings.TrimSpace(value))
		}
	}
	return header
}
