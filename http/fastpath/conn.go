package fastpath

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// conn serves plain requests on a connection: small POSTs to one of a few fixed paths.
// A request is parsed in place, nobody watches for the client hanging up, and a response
// is one write. What is plain is decided narrowly. At the first request that is not, or
// that does not arrive whole in time, the connection goes to net/http for good, with
// every byte of that request still unread.
type conn struct {
	net.Conn
	slot                     *slot
	ctx                      context.Context //nolint:containedctx // the listener's life, which its Close ends
	handler                  http.Handler
	paths                    []string
	readTimeout, idleTimeout time.Duration

	data          []byte    // read and not served yet, at the beginning of its array
	readDeadline  time.Time // as set on the connection
	writeDeadline time.Time
	served        bool // a request was served
	partial       bool // waiting for the rest of a request
	fields        []headerField
	size          int // of the request at the beginning of data
	url           url.URL
	request       *http.Request
	body          body
	response      response
	out           bytes.Buffer
}

// headerField is a header line. Clients mostly repeat their lines, so a field is kept and
// only rebuilt when it differs from the one of the request before.
type headerField struct {
	name  string // as received
	key   string // canonical
	value []string
}

const (
	bufferSize = 4 << 10
	// maxRequest is the largest request that is served here.
	maxRequest = 32 << 10
)

// serve serves plain requests until there is one that is not. It reports whether the
// connection continues, with net/http and from the unread bytes. A panic closes the
// connection; the handler has logged it.
func (c *conn) serve() (unread []byte, continues bool) {
	stop := context.AfterFunc(c.ctx, c.hurry)
	defer stop()
	defer func() {
		if recover() != nil {
			unread, continues = nil, false
		}
	}()
	c.begin()
	for {
		next := readMore
		if !c.atBoundary() {
			next = c.parse()
		}
		switch next {
		case respond:
			c.slot.work()
			if !c.respond() {
				return nil, false
			}
			c.slot.wait()
			c.advance()
		case readMore:
			if c.fill() {
				continue
			}
			if c.atBoundary() || c.ctx.Err() != nil {
				return nil, false
			}
			return c.handOver()
		case handOver:
			return c.handOver()
		}
	}
}

// advance drops the request that was served, and buffers that it made large.
func (c *conn) advance() {
	rest := c.data[c.size:]
	if cap(c.data) > bufferSize && len(rest) <= bufferSize {
		c.data = make([]byte, 0, bufferSize)
	}
	c.data = c.data[:copy(c.data[:cap(c.data)], rest)]
	c.size, c.served, c.partial = 0, true, false
	if cap(c.response.body) > bufferSize {
		c.response.body, c.out = nil, bytes.Buffer{}
	}
}

// atBoundary reports whether nothing of the next request has arrived. As in net/http,
// fewer than four bytes after the first request are no request.
func (c *conn) atBoundary() bool {
	return len(c.data) == 0 || c.served && len(c.data) < 4
}

// begin makes what all requests of the connection share.
func (c *conn) begin() {
	c.data = make([]byte, 0, bufferSize)
	c.response.header = http.Header{}
	r := &http.Request{
		Method: http.MethodPost, URL: &c.url, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Body: &c.body, RemoteAddr: c.RemoteAddr().String(),
	}
	if secure, ok := c.Conn.(*tls.Conn); ok {
		state := secure.ConnectionState()
		r.TLS = &state
	}
	c.request = r.WithContext(c.ctx)
}

// hurry ends waiting for requests, and soon also for a client that reads no response.
func (c *conn) hurry() {
	const patience = time.Second
	// A connection whose deadlines cannot be set is closed.
	_ = c.SetReadDeadline(time.Unix(1, 0))
	_ = c.SetWriteDeadline(time.Now().Add(patience))
}

// handOver returns the unread bytes and clears the deadlines.
func (c *conn) handOver() (unread []byte, continues bool) {
	if c.served {
		// As net/http does after a POST: some clients end its body with a line break.
		for range min(4, len(c.data)) {
			if c.data[0] != '\r' && c.data[0] != '\n' {
				break
			}
			c.data = c.data[1:]
		}
	}
	return c.data, c.SetDeadline(time.Time{}) == nil && c.ctx.Err() == nil
}

// fill reads more of a request, or waits for the next one.
func (c *conn) fill() bool {
	timeout := c.readTimeout
	if c.served && c.atBoundary() {
		timeout = c.idleTimeout
	}
	// The deadline stays while a body trickles in, and until it is a sixteenth off:
	// setting it costs as much as a read.
	if off := time.Until(c.readDeadline) - timeout; !c.partial && (off < -timeout/16 || off > 0) {
		c.readDeadline = time.Now().Add(timeout)
		if c.SetReadDeadline(c.readDeadline) != nil {
			return false
		}
	}
	c.partial = !c.atBoundary()
	if c.ctx.Err() != nil {
		return false // hurry may have run before the deadline was set
	}
	c.data = slices.Grow(c.data, max(1, c.size-len(c.data)))
	n, err := c.Read(c.data[len(c.data):cap(c.data)])
	c.data = c.data[:len(c.data)+n]
	return err == nil
}

// action is what to do with the bytes that were read.
type action int

const (
	respond  action = iota // to the request that is complete
	readMore               // the request is incomplete
	handOver               // to net/http
)

// parse parses the request at the beginning of the data.
func (c *conn) parse() action {
	c.size = 0
	end := bytes.Index(c.data, []byte("\r\n\r\n"))
	if end < 0 {
		return handOver
	}
	line, headers, _ := bytes.Cut(c.data[:end+2], []byte("\r\n"))
	path, isPost := bytes.CutPrefix(line, []byte("POST "))
	path, isHTTP1 := bytes.CutSuffix(path, []byte(" HTTP/1.1"))
	i := slices.IndexFunc(c.paths, func(p string) bool { return p == string(path) })
	if !isPost || !isHTTP1 || i < 0 {
		return handOver
	}
	length, ok := c.parseHeaders(headers)
	c.size = end + 4 + length
	switch {
	case !ok || c.size > maxRequest:
		return handOver
	case c.size > len(c.data):
		return readMore
	}
	c.url = url.URL{Path: c.paths[i]}
	c.request.RequestURI, c.request.ContentLength = c.paths[i], int64(length)
	c.body.Reset(c.data[end+4 : c.size])
	return respond
}

// parseHeaders parses the header lines and returns the body's length. It fails on every
// line that changes how the connection or the body is handled.
func (c *conn) parseHeaders(lines []byte) (length int, ok bool) {
	n, changed := 0, false
	for len(lines) > 0 {
		line, rest, _ := bytes.Cut(lines, []byte("\r\n"))
		lines = rest
		name, value, isField := bytes.Cut(line, []byte(":"))
		if !isField {
			return 0, false
		}
		if n == len(c.fields) || c.fields[n].name != string(name) {
			c.fields, changed = append(c.fields[:n], headerField{name: string(name), value: []string{""}}), true
		}
		if !c.fields[n].set(bytes.Trim(value, " \t")) {
			return 0, false
		}
		n++
	}
	if changed || n < len(c.fields) {
		c.fields = c.fields[:n]
		if !c.collect() {
			return 0, false
		}
	}
	return c.framing()
}

// set sets the field's value, and reports whether the line is valid.
func (h *headerField) set(value []byte) bool {
	if h.value[0] == string(value) && h.key != "" {
		return true
	}
	h.key, h.value[0] = textproto.CanonicalMIMEHeaderKey(h.name), string(value)
	return httpguts.ValidHeaderFieldName(h.name) && httpguts.ValidHeaderFieldValue(h.value[0])
}

// collect makes the request's header of the fields, sharing their values, so that later
// requests with the same fields need no new one. It fails on a repeated field.
func (c *conn) collect() bool {
	header := c.request.Header
	clear(header)
	for i := range c.fields {
		if _, twice := header[c.fields[i].key]; twice {
			return false
		}
		header[c.fields[i].key] = c.fields[i].value
	}
	delete(header, "Host")
	return true
}

// framing applies the fields that are about the message itself.
func (c *conn) framing() (length int, ok bool) {
	length, c.request.Host = -1, ""
	for i := range c.fields {
		switch key, value := c.fields[i].key, c.fields[i].value[0]; key {
		case "Host":
			if c.request.Host != "" || !httpguts.ValidHostHeader(value) {
				return 0, false
			}
			c.request.Host = value
		case "Content-Length":
			n, err := strconv.ParseUint(value, 10, 31)
			if err != nil {
				return 0, false
			}
			length = int(n)
		case "Connection":
			if !strings.EqualFold(value, "keep-alive") {
				return 0, false
			}
		case "Expect", "Pragma", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
			return 0, false
		}
	}
	return length, length >= 0 && c.request.Host != ""
}

// respond serves the parsed request, and reports whether the connection continues.
func (c *conn) respond() bool {
	c.response.reset()
	c.handler.ServeHTTP(&c.response, c.request)
	c.out.Reset()
	last := c.response.encode(&c.out)
	return c.send(c.out.Bytes()) == nil && !last
}

// send writes the response. However long it took to make, the client has at least half
// of the patience to read it; the deadline seldom moves.
func (c *conn) send(response []byte) error {
	const patience = 30 * time.Second
	if time.Until(c.writeDeadline) < patience/2 {
		c.writeDeadline = time.Now().Add(patience)
		if err := c.SetWriteDeadline(c.writeDeadline); err != nil {
			return err
		}
		if c.ctx.Err() != nil {
			c.hurry() // it may have run before
		}
	}
	_, err := c.Write(response)
	return err
}

// body is a request's body, already in memory.
type body struct{ bytes.Reader }

func (*body) Close() error { return nil }

// response is an http.ResponseWriter that keeps a response until it is complete. Every
// status that it is used for allows a body.
type response struct {
	header http.Header
	status int
	body   []byte

	second int64 // in which date was formatted
	date   []byte
}

func (r *response) Header() http.Header { return r.header }

func (r *response) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

// SetWriteDeadline does nothing: send sets one.
func (r *response) SetWriteDeadline(time.Time) error { return nil }

func (r *response) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	r.body = append(r.body, b...)
	return len(b), nil
}

func (r *response) reset() {
	clear(r.header)
	r.status, r.body = 0, r.body[:0]
}

// encode writes the response as net/http would send it, and reports whether it is the
// connection's last.
func (r *response) encode(out *bytes.Buffer) (last bool) {
	r.WriteHeader(http.StatusOK)
	last = httpguts.HeaderValuesContainsToken(r.header["Connection"], "close")
	if now := time.Now(); now.Unix() != r.second {
		r.second, r.date = now.Unix(), now.UTC().AppendFormat(r.date[:0], http.TimeFormat)
	}
	head := append(strconv.AppendInt(append(out.AvailableBuffer(), "HTTP/1.1 "...), int64(r.status), 10), ' ')
	head = append(append(head, http.StatusText(r.status)...), "\r\nDate: "...)
	head = append(append(head, r.date...), "\r\nContent-Length: "...)
	out.Write(append(strconv.AppendInt(head, int64(len(r.body)), 10), "\r\n"...))
	delete(r.header, "Date") // written above, whatever the handler set
	delete(r.header, "Content-Length")
	if len(r.body) > 0 && len(r.header["Content-Type"]) == 0 {
		r.header["Content-Type"] = []string{http.DetectContentType(r.body)}
	}
	_ = r.header.Write(out) // a buffer takes everything
	out.WriteString("\r\n")
	out.Write(r.body)
	return last
}
