package http

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

// fastConn answers what comes by the ten thousand a second, small plain POSTs to a few
// fixed paths, with what a handler needs of net/http and nothing more: the request is
// read where it stands in the connection's buffer, nobody waits for the caller to hang
// up, and the answer is one write. What is plain is decided narrowly. At the first
// request that is not, or is not all there, the connection is net/http's for good, with
// every byte of that request still unread; so what is unusual, wrong or slow is handled
// in one place, and that is not here.
type fastConn struct {
	conn    net.Conn
	ctx     context.Context //nolint:containedctx // the listener's life, which its Close ends
	handler http.Handler
	paths   []string
	// How long the first request, or the rest of a body, may take; and the next request.
	patience, idle time.Duration

	data    []byte    // what is read and not answered yet, at the beginning of its array
	until   time.Time // by when a read must end
	sendBy  time.Time // by when a write must
	served  bool      // whether a request was answered
	partial bool      // whether the rest of one is waited for
	fields  []fastField
	size    int // of the request at the beginning of data
	url     url.URL
	request *http.Request
	body    fastBody
	answer  fastAnswer
	out     bytes.Buffer
}

// fastField is a header line. Most callers send the same ones again and again, so what
// is the same as in the request before is not made again.
type fastField struct {
	name  string // as it came
	key   string // as net/http writes it
	value []string
}

const (
	fastBuffer = 4 << 10
	// maxFastRequest is the largest request that a connection keeps a buffer for.
	maxFastRequest = 32 << 10
)

// serve answers requests as long as they are plain, and tells whether the connection
// goes on: with net/http, from the unread bytes. As there, a panic costs its connection
// and no other: a handler's has said all it had to say (Server.finish).
func (f *fastConn) serve() (unread []byte, goesOn bool) {
	stop := context.AfterFunc(f.ctx, f.hurry)
	defer stop()
	defer func() {
		if recover() != nil {
			unread, goesOn = nil, false
		}
	}()
	f.begin()
	for {
		verdict := waits
		if !f.between() {
			verdict = f.look()
		}
		switch verdict {
		case plain:
			if !f.reply() {
				return nil, false
			}
			f.next()
		case waits:
			if f.fill() {
				continue
			}
			if f.between() || f.ctx.Err() != nil {
				return nil, false
			}
			return f.leave()
		case other:
			return f.leave()
		}
	}
}

// next goes on after a request that was answered. Buffers that it made large do not
// stay with the connection, of which there may be many.
func (f *fastConn) next() {
	rest := f.data[f.size:]
	if cap(f.data) > fastBuffer && len(rest) <= fastBuffer {
		f.data = make([]byte, 0, fastBuffer)
	}
	f.data = f.data[:copy(f.data[:cap(f.data)], rest)]
	f.size, f.served, f.partial = 0, true, false
	if cap(f.answer.body) > fastBuffer {
		f.answer.body, f.out = nil, bytes.Buffer{}
	}
}

// between tells whether there is nothing yet of the next request. After the first one,
// that is less than four bytes, as it is to net/http: fewer are no request, and get no
// answer when the caller sends no more.
func (f *fastConn) between() bool {
	return len(f.data) == 0 || f.served && len(f.data) < 4
}

// begin makes what all requests of the connection share.
func (f *fastConn) begin() {
	f.data = make([]byte, 0, fastBuffer)
	f.answer.header = http.Header{}
	r := &http.Request{
		Method: http.MethodPost, URL: &f.url, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Body: &f.body, RemoteAddr: f.conn.RemoteAddr().String(),
	}
	if secure, ok := f.conn.(*tls.Conn); ok {
		state := secure.ConnectionState()
		r.TLS = &state
	}
	f.request = r.WithContext(f.ctx)
}

// hurry ends the waiting for requests, and soon that for a caller who takes no answer.
func (f *fastConn) hurry() {
	const patience = time.Second
	// A connection that cannot be told is over.
	_ = f.conn.SetReadDeadline(time.Unix(1, 0))
	_ = f.conn.SetWriteDeadline(time.Now().Add(patience))
}

// leave gives up the connection with no deadline on it.
func (f *fastConn) leave() (unread []byte, goesOn bool) {
	if f.served {
		// As net/http does after a POST: some callers end its body with a line break.
		for range min(4, len(f.data)) {
			if f.data[0] != '\r' && f.data[0] != '\n' {
				break
			}
			f.data = f.data[1:]
		}
	}
	return f.data, f.conn.SetDeadline(time.Time{}) == nil && f.ctx.Err() == nil
}

// fill reads more of a request, or waits for the next one.
func (f *fastConn) fill() bool {
	patience := f.patience
	if f.served && f.between() {
		patience = f.idle
	}
	// Not moved while a body trickles in, nor before it is a sixteenth off, as moving it
	// costs as much as reading.
	if off := time.Until(f.until) - patience; !f.partial && (off < -patience/16 || off > 0) {
		f.until = time.Now().Add(patience)
		if f.conn.SetReadDeadline(f.until) != nil {
			return false
		}
	}
	f.partial = !f.between()
	if f.ctx.Err() != nil {
		return false // hurry may have come before the deadline was set
	}
	f.data = slices.Grow(f.data, max(1, f.size-len(f.data)))
	n, err := f.conn.Read(f.data[len(f.data):cap(f.data)])
	f.data = f.data[:len(f.data)+n]
	return err == nil
}

// verdict is what is to be done with the bytes that were read.
type verdict int

const (
	plain verdict = iota // answer the request that stands there
	waits                // read on
	other                // let net/http see to it
)

// look judges the request that begins with the data, and makes it ready.
func (f *fastConn) look() verdict {
	f.size = 0
	end := bytes.Index(f.data, []byte("\r\n\r\n"))
	if end < 0 {
		return other
	}
	line, headers, _ := bytes.Cut(f.data[:end+2], []byte("\r\n"))
	path, isPost := bytes.CutPrefix(line, []byte("POST "))
	path, isHTTP1 := bytes.CutSuffix(path, []byte(" HTTP/1.1"))
	at := slices.IndexFunc(f.paths, func(p string) bool { return p == string(path) })
	if !isPost || !isHTTP1 || at < 0 {
		return other
	}
	length, ok := f.readHeaders(headers)
	f.size = end + 4 + length
	switch {
	case !ok || f.size > maxFastRequest:
		return other
	case f.size > len(f.data):
		return waits
	}
	f.url = url.URL{Path: f.paths[at]}
	f.request.RequestURI, f.request.ContentLength = f.paths[at], int64(length)
	f.body.Reset(f.data[end+4 : f.size])
	return plain
}

// readHeaders takes the lines of the headers apart, and gives the body's length. It is
// false for all that says how the connection or the body is to be treated.
func (f *fastConn) readHeaders(lines []byte) (length int, ok bool) {
	n, changed := 0, false
	for len(lines) > 0 {
		line, rest, _ := bytes.Cut(lines, []byte("\r\n"))
		lines = rest
		name, value, isField := bytes.Cut(line, []byte(":"))
		if !isField {
			return 0, false
		}
		if n == len(f.fields) || f.fields[n].name != string(name) {
			f.fields, changed = append(f.fields[:n], fastField{name: string(name), value: []string{""}}), true
		}
		if !f.fields[n].set(bytes.Trim(value, " \t")) {
			return 0, false
		}
		n++
	}
	if changed || n < len(f.fields) {
		f.fields = f.fields[:n]
		if !f.collect() {
			return 0, false
		}
	}
	return f.obey()
}

// set takes the field's value in. It is false when the line is not as it should be.
func (h *fastField) set(value []byte) bool {
	if h.value[0] == string(value) && h.key != "" {
		return true
	}
	h.key, h.value[0] = textproto.CanonicalMIMEHeaderKey(h.name), string(value)
	return httpguts.ValidHeaderFieldName(h.name) && httpguts.ValidHeaderFieldValue(h.value[0])
}

// collect makes the request's headers of the fields. Later requests with the same fields
// change their values alone.
func (f *fastConn) collect() bool {
	header := f.request.Header
	clear(header)
	for i := range f.fields {
		if _, twice := header[f.fields[i].key]; twice {
			return false
		}
		header[f.fields[i].key] = f.fields[i].value
	}
	delete(header, "Host")
	return true
}

// obey does what the headers say about the request itself.
func (f *fastConn) obey() (length int, ok bool) {
	length, f.request.Host = -1, ""
	for i := range f.fields {
		switch key, value := f.fields[i].key, f.fields[i].value[0]; key {
		case "Host":
			if f.request.Host != "" || !httpguts.ValidHostHeader(value) {
				return 0, false
			}
			f.request.Host = value
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
	return length, length >= 0 && f.request.Host != ""
}

// reply has the request answered, and tells whether the connection goes on.
func (f *fastConn) reply() bool {
	f.answer.reset()
	f.handler.ServeHTTP(&f.answer, f.request)
	last := f.answer.write(&f.out)
	return f.send(f.out.Bytes()) == nil && !last
}

// send gives the caller time to take the answer from now on, however long it took to
// make: at least half of what a connection may idle, so that the deadline seldom moves.
func (f *fastConn) send(answer []byte) error {
	if time.Until(f.sendBy) < f.idle/2 {
		f.sendBy = time.Now().Add(f.idle)
		if err := f.conn.SetWriteDeadline(f.sendBy); err != nil {
			return err
		}
		if f.ctx.Err() != nil {
			f.hurry() // it may have come before
		}
	}
	_, err := f.conn.Write(answer)
	return err
}

// fastBody is a body that is in memory.
type fastBody struct{ bytes.Reader }

func (*fastBody) Close() error { return nil }

// fastAnswer keeps an answer until it is whole. Every status that it is used for may
// have a body.
type fastAnswer struct {
	header http.Header
	status int
	body   []byte

	second int64 // in which date was written
	date   []byte
}

func (a *fastAnswer) Header() http.Header { return a.header }

func (a *fastAnswer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *fastAnswer) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	a.body = append(a.body, b...)
	return len(b), nil
}

func (a *fastAnswer) reset() {
	clear(a.header)
	a.status, a.body = 0, a.body[:0]
}

// write puts the answer into the buffer as net/http would send it, and tells whether it
// is the connection's last.
func (a *fastAnswer) write(out *bytes.Buffer) (last bool) {
	a.WriteHeader(http.StatusOK)
	last = httpguts.HeaderValuesContainsToken(a.header["Connection"], "close")
	out.Reset()
	line := append(out.AvailableBuffer(), "HTTP/1.1 "...)
	line = append(strconv.AppendInt(line, int64(a.status), 10), ' ')
	line = append(append(line, http.StatusText(a.status)...), "\r\nDate: "...)
	if now := time.Now(); now.Unix() != a.second {
		a.second, a.date = now.Unix(), now.UTC().AppendFormat(a.date[:0], http.TimeFormat)
	}
	line = append(append(line, a.date...), "\r\nContent-Length: "...)
	out.Write(append(strconv.AppendInt(line, int64(len(a.body)), 10), "\r\n"...))
	delete(a.header, "Date") // said above, whatever the handler says
	delete(a.header, "Content-Length")
	if len(a.body) > 0 && len(a.header["Content-Type"]) == 0 {
		a.header["Content-Type"] = []string{http.DetectContentType(a.body)}
	}
	_ = a.header.Write(out) // a buffer takes all
	out.WriteString("\r\n")
	out.Write(a.body)
	return last
}
