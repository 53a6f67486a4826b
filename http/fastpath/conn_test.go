package fastpath_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	nethttp "net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/medilab/webhooks/http/fastpath"
)

const fastPath = "/api/v1/fast"

// startFast serves on loopback until the test ends; with no fast paths everything is
// net/http's.
func startFast(t testing.TB, handler nethttp.Handler, config fastpath.Config) (addr string, server *nethttp.Server) {
	t.Helper()
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config.Handler, config.Refuse = handler, func(w nethttp.ResponseWriter, _ *nethttp.Request, status int, detail string) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, detail)
	}
	server = &nethttp.Server{
		Handler: handler, MaxHeaderBytes: 4 << 10, ReadHeaderTimeout: time.Minute, IdleTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(fastpath.NewListener(raw, config)) }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		<-served
	})
	return raw.Addr().String(), server
}

// echo answers with all that a handler sees of a request, in a manner that the body's
// first byte chooses.
func echo(w nethttp.ResponseWriter, r *nethttp.Request) {
	body, err := io.ReadAll(r.Body)
	seen, _ := json.Marshal(map[string]any{
		"method": r.Method, "url": r.URL.String(), "uri": r.RequestURI, "proto": r.Proto, "major": r.ProtoMajor, "minor": r.ProtoMinor,
		"host": r.Host, "header": r.Header, "length": r.ContentLength, "encoding": r.TransferEncoding, "close": r.Close,
		"body": sha256.Sum256(body), "error": err != nil, "remote": r.RemoteAddr != "",
	})
	first := byte(0)
	if len(body) > 0 {
		first = body[0]
	}
	switch first {
	case 'p':
		panic(nethttp.ErrAbortHandler)
	case 'c':
		w.Header().Set("Connection", "close")
	case 'e':
		w.WriteHeader(nethttp.StatusAccepted)
		return
	case 'n':
		w.Header().Set("Date", time.Now().UTC().Format(nethttp.TimeFormat))
		w.Header().Set("Content-Length", strconv.Itoa(len(seen)))
	case 'l':
		w.Header().Set("X-Line", "one\r\nX-Two: two ")
	}
	if first != 's' {
		w.Header().Set("Content-Type", "application/json")
		w.Header()["X-Many"] = []string{"a", "b"}
	}
	if first == 't' {
		w.WriteHeader(nethttp.StatusTeapot)
	}
	half := len(seen) / 2
	_, _ = w.Write(seen[:half])
	_, _ = w.Write(seen[half:])
}

// converse sends the bytes, in two pieces, and gives every answer until the server ends
// the connection. What no two servers say alike is left out.
func converse(t testing.TB, addr string, bytesToSend []byte, cut int) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // the other side may have closed it
	cut = min(max(cut, 0), len(bytesToSend))
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		// A server that refuses does not read to the end: what it answers counts.
		_, _ = conn.Write(bytesToSend[:cut])
		_, _ = conn.Write(bytesToSend[cut:])
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	raw, _ := io.ReadAll(conn) // up to a reset, if there is one
	<-sent
	var said strings.Builder
	answers := 0
	for r := bufio.NewReader(bytes.NewReader(raw)); ; answers++ {
		answer, err := nethttp.ReadResponse(r, nil)
		if err != nil {
			break
		}
		body, err := io.ReadAll(answer.Body)
		date, dateErr := nethttp.ParseTime(answer.Header.Get("Date"))
		fresh := answer.Header.Get("Date") == "" || dateErr == nil && time.Since(date) < time.Hour
		answer.Header.Del("Date")
		answer.Header.Del("Content-Length") // net/http sends what is long in chunks
		header, _ := json.Marshal(answer.Header)
		fmt.Fprintf(&said, "%s %t %t %t %s\n%s\n", answer.Status, answer.Close, fresh, err == nil, header, body)
	}
	for _, name := range []string{"\r\nDate:", "\r\nContent-Length:"} {
		if n := bytes.Count(raw, []byte(name)); n > answers { // a reader makes one of two
			t.Errorf("%d times %q in %d answers:\n%.2000s", n, name, answers, raw)
		}
	}
	return said.String()
}

func post(lines, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: a.example\r\n%sContent-Length: %d\r\n\r\n%s", fastPath, lines, len(body), body)
}

// conversations are what the fast path must treat as net/http does: some it answers, and
// some it must leave alone.
var conversations = map[string]string{
	"one":                          post("", "{}"),
	"several":                      post("", "{}") + post("", `{"a":1}`) + post("X-A: b\r\n", "x") + post("", "{}"),
	"the same again":               post("Authorization: Bearer a\r\nX-A: 1\r\n", "1") + post("Authorization: Bearer a\r\nX-A: 1\r\n", "1"),
	"other values":                 post("Authorization: Bearer a\r\nX-A: 1\r\n", "1") + post("Authorization: Bearer b\r\nX-A: 22\r\n", "12"),
	"fewer lines":                  post("X-A: 1\r\nX-B: 2\r\n", "1") + post("X-A: 1\r\n", "1") + post("X-B: 1\r\n", "1"),
	"another order":                post("X-A: 1\r\nX-B: 2\r\n", "1") + post("X-B: 2\r\nX-A: 1\r\n", "1"),
	"names in any case":            post("x-a: 1\r\nX-b: 2\r\nAUTHORIZATION: c\r\n", "1") + post("X-A: 1\r\nx-B: 2\r\n", "1"),
	"spaces around values":         post("X-A: \t 1 2 \t\r\nX-B:\r\nX-C: \r\n", "1"),
	"a panic":                      post("", "p") + post("", "{}"),
	"a last answer":                post("", "c") + post("", "{}"),
	"an empty answer":              post("", "e") + post("", "{}"),
	"a line in a value":            post("", "l") + post("", "{}"),
	"a length and date of its own": post("", "n") + post("", "{}"),
	"a status of its own":          post("", "t") + post("", "{}"),
	"no content type":              post("", "s") + post("", "{}"),
	"an empty body":                post("", ""),
	"no length":                    "POST " + fastPath + " HTTP/1.1\r\nHost: a\r\n\r\n" + post("", "{}"),
	"a body cut off":               post("", "{}") + strings.TrimSuffix(post("", `{"a":"bcdefgh"}`), `h"}`),
	"headers cut off":              post("", "{}") + "POST " + fastPath + " HTTP/1.1\r\nHost: a\r\nX-A",
	"a request line cut off":       post("", "{}") + "POST /api",
	"less than a request after":    post("", "{}") + "POS",
	"line breaks after":            post("", "{}") + "\r\n" + post("", "{}") + "\r\n\r\n" + post("", "{}"),
	"line breaks before":           "\r\n" + post("", "{}"),
	"chunks":                       post("", "{}") + "POST " + fastPath + " HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n" + post("", "{}"),
	"chunks and a length":          "POST " + fastPath + " HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + post("", "{}"),
	"two lengths":                  post("Content-Length: 2\r\n", "{}"),
	"two lengths that differ":      post("Content-Length: 3\r\n", "{}") + post("", "{}"),
	"a length with a sign":         "POST " + fastPath + " HTTP/1.1\r\nHost: a\r\nContent-Length: +2\r\n\r\n{}",
	"a length below zero":          "POST " + fastPath + " HTTP/1.1\r\nHost: a\r\nContent-Length: -2\r\n\r\n{}",
	"a length with zeros":          "POST " + fastPath + " HTTP/1.1\r\nHost: a\r\nContent-Length: 0002\r\n\r\n{}" + post("", "{}"),
	"no number for a length":       "POST " + fastPath + " HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n{}",
	"a list of lengths":            "POST " + fastPath + " HTTP/1.1\r\nHost: a\r\nContent-Length: 2, 2\r\n\r\n{}",
	"a huge length":                "POST " + fastPath + " HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n{}",
	"a name with a space":          "POST " + fastPath + " HTTP/1.1\r\nHost: a\r\nContent-Length : 2\r\n\r\n{}",
	"a folded line":                post("X-A: 1\r\n 2\r\n", "{}"),
	"a bare line feed":             post("X-A: 1\nX-B: 2\r\n", "{}"),
	"only line feeds":              strings.ReplaceAll(post("X-A: 1\r\n", "{}"), "\r\n", "\n"),
	"a bare carriage return":       post("X-A: 1\rX-B: 2\r\n", "{}"),
	"a zero byte":                  post("X-A: 1\x002\r\n", "{}"),
	"bytes beyond ASCII":           post("X-A: ж\r\n", "{}"),
	"a name beyond ASCII":          post("Ж: 1\r\n", "{}"),
	"no name":                      post(": 1\r\n", "{}"),
	"no colon":                     post("X-A\r\n", "{}"),
	"no host":                      "POST " + fastPath + " HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
	"an empty host":                "POST " + fastPath + " HTTP/1.1\r\nHost:\r\nContent-Length: 2\r\n\r\n{}",
	"two hosts":                    post("Host: b\r\n", "{}"),
	"a bad host":                   "POST " + fastPath + " HTTP/1.1\r\nHost: a b\r\nContent-Length: 2\r\n\r\n{}",
	"a twofold name":               post("X-A: 1\r\nx-a: 2\r\n", "{}"),
	"close":                        post("Connection: close\r\n", "{}") + post("", "{}"),
	"keep alive":                   post("Connection: Keep-Alive\r\n", "{}") + post("", "{}"),
	"upgrade":                      post("Connection: upgrade\r\nUpgrade: websocket\r\n", "{}") + post("", "{}"),
	"pragma":                       post("Pragma: no-cache\r\n", "{}"),
	"expect":                       post("Expect: 100-continue\r\n", "{}"),
	"expect a miracle":             post("Expect: miracles\r\n", "{}"),
	"a trailer":                    post("Trailer: X-A\r\n", "{}"),
	"HTTP/1.0":                     strings.Replace(post("", "{}"), "HTTP/1.1", "HTTP/1.0", 1) + post("", "{}"),
	"HTTP/1.2":                     strings.Replace(post("", "{}"), "HTTP/1.1", "HTTP/1.2", 1),
	"HTTP/2.0":                     strings.Replace(post("", "{}"), "HTTP/1.1", "HTTP/2.0", 1),
	"two spaces":                   strings.Replace(post("", "{}"), " HTTP", "  HTTP", 1),
	"a query":                      strings.Replace(post("", "{}"), " HTTP", "?a=b HTTP", 1),
	"a trailing slash":             strings.Replace(post("", "{}"), " HTTP", "/ HTTP", 1),
	"an absolute address":          strings.Replace(post("", "{}"), "POST ", "POST http://b.example", 1),
	"another path between":         post("", "{}") + strings.Replace(post("", "{}"), "fast", "slow", 1) + post("", "{}"),
	"another method":               post("", "{}") + "GET " + fastPath + " HTTP/1.1\r\nHost: a\r\n\r\n" + post("", "{}"),
	"a method in lower case":       strings.Replace(post("", "{}"), "POST", "post", 1),
	"a large body":                 post("", strings.Repeat("a", 20_000)) + post("", "{}"),
	"a body too large":             post("", strings.Repeat("a", 40_000)) + post("", "{}"),
	"many lines":                   post(manyLines(80), "{}") + post("", "{}"),
	"too many lines":               post(manyLines(1000), "{}"),
	"HTTP/2 without a word":        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	"HTTP/2 after all":             post("", "{}") + "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	"nothing":                      "",
	"no HTTP":                      "\x16\x03\x01\x02\x00\x01",
}

func manyLines(n int) string {
	var lines strings.Builder
	for i := range n {
		fmt.Fprintf(&lines, "X-%d: %d\r\n", i, i)
	}
	return lines.String()
}

// Whatever comes over a connection, wherever it is cut, is answered as net/http answers.
func FuzzFastPathAnswersAsNetHTTP(f *testing.F) {
	for _, text := range conversations {
		for _, cut := range []int{0, 30, len(text) - 1} {
			f.Add([]byte(text), cut)
		}
	}
	handler := nethttp.HandlerFunc(echo)
	fast, _ := startFast(f, handler, fastpath.Config{ReadTimeout: time.Minute, IdleTimeout: time.Minute, Paths: []string{fastPath}})
	slow, _ := startFast(f, handler, fastpath.Config{})
	f.Fuzz(func(t *testing.T, text []byte, cut int) {
		if got, want := converse(t, fast, text, cut), converse(t, slow, text, cut); got != want {
			t.Errorf("%.1000q, cut at %d, is answered\n%s\nand by net/http\n%s", text, cut, got, want)
		}
	})
}

// The plain requests of the list above do go the fast way, and the others do not: the
// two ways cannot be told apart by their answers.
func TestWhatGoesTheFastWay(t *testing.T) {
	var fast atomic.Int64
	addr, _ := startFast(t, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if _, isNetHTTP := w.(nethttp.Flusher); !isNetHTTP {
			fast.Add(1)
		}
		echo(w, r)
	}), fastpath.Config{ReadTimeout: time.Minute, IdleTimeout: time.Minute, Paths: []string{fastPath}})
	for name, want := range map[string]int64{
		"one": 1, "several": 4, "other values": 2, "names in any case": 2, "bytes beyond ASCII": 1, "keep alive": 2, "a large body": 2, "many lines": 2,
		"a panic": 1, "a last answer": 1, "another path between": 1, "another method": 1, "line breaks after": 1, "a body cut off": 1,
		"no length": 0, "two lengths": 0, "chunks and a length": 0, "two hosts": 0, "close": 0, "expect": 0, "HTTP/1.0": 0, "a query": 0,
		"a folded line": 0, "a bare line feed": 0, "only line feeds": 0, "a body too large": 0,
	} {
		fast.Store(0)
		converse(t, addr, []byte(conversations[name]), 0)
		if got := fast.Load(); got != want {
			t.Errorf("%s: %d requests went the fast way, not %d", name, got, want)
		}
	}
}

// The rest of a body may come later, and all of it over TLS.
func TestTheFastWayWaitsForBodies(t *testing.T) {
	var fast atomic.Int64
	handler := nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if _, isNetHTTP := w.(nethttp.Flusher); !isNetHTTP {
			fast.Add(1)
		}
		if (r.TLS != nil) != (r.Host == "over.tls") {
			t.Errorf("%s came over TLS: %v", r.Host, r.TLS)
		}
		_, _ = io.Copy(w, r.Body)
	})
	secure, pool := newCertificate(t)
	config := fastpath.Config{ReadTimeout: time.Minute, IdleTimeout: time.Minute, Paths: []string{fastPath}}
	plainAddr, _ := startFast(t, handler, config)
	config.TLS = secure
	secureAddr, _ := startFast(t, handler, config)
	for host, dial := range map[string]func() (net.Conn, error){
		"over.tcp": func() (net.Conn, error) { return net.Dial("tcp", plainAddr) },
		"over.tls": func() (net.Conn, error) { return tls.Dial("tcp", secureAddr, &tls.Config{RootCAs: pool}) },
	} {
		fast.Store(0)
		conn, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(conn)
		bodies := []string{"first", "second", strings.Repeat("third", 4000)}
		rest := ""
		for i, body := range bodies {
			send := rest
			if i == 0 {
				send = strings.Replace(post("", body), "a.example", host, 1)
			}
			if rest = ""; i+1 < len(bodies) {
				next := strings.Replace(post("", bodies[i+1]), "a.example", host, 1)
				half := len(next) - len(bodies[i+1])/2
				send, rest = send+next[:half], next[half:]
			}
			// When the answer is here, the server knows that the rest of the next is missing.
			if _, err := io.WriteString(conn, send); err != nil {
				t.Fatal(err)
			}
			answer, err := nethttp.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(answer.Body); err != nil || string(got) != body {
				t.Errorf("%s: %.20q came back of %.20q, %v", host, got, body, err)
			}
		}
		if n := fast.Load(); n != int64(len(bodies)) {
			t.Errorf("%s: %d requests went the fast way", host, n)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A server that closes ends idle connections, and requests under way, which are answered.
func TestFastConnectionsEndWithTheServer(t *testing.T) {
	begun := make(chan struct{})
	addr, server := startFast(t, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if r.ContentLength == 1 {
			return
		}
		close(begun)
		<-r.Context().Done()
		w.WriteHeader(nethttp.StatusServiceUnavailable)
	}), fastpath.Config{ReadTimeout: time.Hour, IdleTimeout: time.Hour, Paths: []string{fastPath}})
	dial := func(send string) *bufio.Reader {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := io.WriteString(conn, send); err != nil {
			t.Fatal(err)
		}
		return bufio.NewReader(conn)
	}
	untouched, idle, busy := dial(""), dial(post("", "1")), dial(post("", "{}"))
	if answer, err := nethttp.ReadResponse(idle, nil); err != nil || answer.StatusCode != 200 {
		t.Fatal(answer, err)
	}
	<-begun
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if answer, err := nethttp.ReadResponse(busy, nil); err != nil || answer.StatusCode != 503 {
		t.Error(answer, err)
	}
	for name, r := range map[string]*bufio.Reader{"a connection without a request": untouched, "an idle one": idle, "one with a request under way": busy} {
		if _, err := r.ReadByte(); err == nil {
			t.Errorf("%s has more to say", name)
		}
	}
}

// heard is a connection that keeps what it received.
type heard struct {
	net.Conn
	raw []byte
}

func (h *heard) Read(b []byte) (int, error) {
	n, err := h.Conn.Read(b)
	h.raw = append(h.raw, b[:n]...)
	return n, err
}

// lastRecord is the type of the last record of TLS 1.2 that came.
func (h *heard) lastRecord() (kind byte) {
	for raw := h.raw; len(raw) >= 5; {
		kind = raw[0]
		raw = raw[min(len(raw), 5+int(raw[3])<<8+int(raw[4])):]
	}
	return kind
}

// Connections that send nothing more are let go, and over TLS are told so.
func TestFastConnectionsDoNotStayForever(t *testing.T) {
	secure, pool := newCertificate(t)
	for name, text := range map[string]string{"never a request": "", "no second request": post("", "{}")} {
		patience, idle := time.Hour, 50*time.Millisecond
		if text == "" {
			patience, idle = time.Second, patience // a handshake takes its time
		}
		config := fastpath.Config{ReadTimeout: patience, IdleTimeout: idle, Paths: []string{fastPath}}
		plainAddr, _ := startFast(t, nethttp.HandlerFunc(echo), config)
		config.TLS = secure
		secureAddr, _ := startFast(t, nethttp.HandlerFunc(echo), config)
		for over, addr := range map[string]string{"TCP": plainAddr, "TLS": secureAddr} {
			raw, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			hears := &heard{Conn: raw}
			conn := net.Conn(hears)
			if over == "TLS" {
				conn = tls.Client(hears, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1", MaxVersion: tls.VersionTLS12}) //nolint:gosec // whose records can be told apart
			}
			if _, err := io.WriteString(conn, text); err != nil {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(conn) // ends only when the server lets it go
			if err != nil || (len(answer) > 0) != (text != "") {
				t.Errorf("%s over %s: %q, %v", name, over, answer, err)
			}
			const alert = 21
			if over == "TLS" && hears.lastRecord() != alert {
				t.Errorf("%s: the connection ends like one that was cut off", name)
			}
			_ = conn.Close() // the other side has
		}
	}
}

// A body that trickles in does not hold the fast way: net/http gets it, with its own
// time for a whole request.
func TestABodyThatTricklesIsNetHTTPs(t *testing.T) {
	netHTTP := make(chan bool, 1)
	addr, _ := startFast(t, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if r.ContentLength > 1 {
			_, is := w.(nethttp.Flusher)
			netHTTP <- is
		}
	}), fastpath.Config{ReadTimeout: 2 * time.Second, IdleTimeout: time.Minute, Paths: []string{fastPath}})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // it ends with the test
	first, body := post("", "1"), strings.Repeat("a", 10_000)
	slow := post("", body)
	if _, err := io.WriteString(conn, first+slow[:len(slow)-len(body)]); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for i := range body {
		select {
		case <-tick.C:
			if _, err := io.WriteString(conn, body[i:i+1]); err != nil {
				t.Fatal(err)
			}
		case is := <-netHTTP: // its handler is called before the body is there
			if !is {
				t.Error("it went the fast way")
			}
			return
		}
	}
	t.Error("it never came to net/http")
}

// An answer has its own time to be taken: what was left for the request to come, or to
// come whole, does not count against it, nor does what the handler took.
func TestSlowAnswersOnTheFastWayAreSent(t *testing.T) {
	const patience = time.Second
	addr, _ := startFast(t, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if _, isNetHTTP := w.(nethttp.Flusher); isNetHTTP {
			t.Error("it went the slow way")
		}
		<-time.After(2 * patience) // as an append does while the database is away
		w.WriteHeader(nethttp.StatusServiceUnavailable)
	}), fastpath.Config{ReadTimeout: patience, IdleTimeout: time.Minute, Paths: []string{fastPath}})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // it ends with the test
	if _, err := io.WriteString(conn, post("", "{}")); err != nil {
		t.Fatal(err)
	}
	if answer, err := nethttp.ReadResponse(bufio.NewReader(conn), nil); err != nil || answer.StatusCode != 503 {
		t.Error(answer, err)
	}
}

// The fast way writes a header as net/http does, whatever a handler puts into it.
func TestHeadersAreWrittenAsByNetHTTP(t *testing.T) {
	odd := nethttp.Header{
		"X-Request-Id": {"a-1"}, "Cache-Control": {"no-store"}, "Content-Type": {"text/plain"}, "X-Twice": {"one", "two"},
		"X-Broken": {" a\r\nX-Injected: b\n "}, "Not a name": {"c"}, "X-Empty": {""}, "X-None": nil, "lower": {"d"},
	}
	handler := nethttp.HandlerFunc(func(w nethttp.ResponseWriter, _ *nethttp.Request) {
		for key, values := range odd {
			w.Header()[key] = values
		}
		_, _ = io.WriteString(w, "hello")
	})
	answer := func(paths ...string) string {
		addr, _ := startFast(t, handler, fastpath.Config{Paths: paths, ReadTimeout: time.Minute, IdleTimeout: time.Minute})
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", fastPath)
		in := bufio.NewReader(conn)
		var lines []string
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if line == "\r\n" {
				slices.Sort(lines)
				return strings.Join(lines, "")
			}
			if !strings.HasPrefix(line, "Date: ") {
				lines = append(lines, line)
			}
		}
	}
	slow, fast := answer(), answer(fastPath)
	if fast != slow || !strings.Contains(fast, "X-Broken: a  X-Injected: b\r\n") {
		t.Errorf("the fast way wrote\n%s\nnet/http\n%s", fast, slow)
	}
}
