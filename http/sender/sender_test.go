package sender

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/medilab/webhooks/commands"
)

// short is the timeout of calls that are meant to run out of it.
const short = 150 * time.Millisecond

func TestOddReceivers(t *testing.T) {
	long := strings.Repeat("a", MaxBody)
	type answer = func(net.Conn, *http.Request, <-chan struct{}) bool
	tests := []struct {
		name    string
		answer  answer
		hangs   bool // the call is to run out its timeout
		outcome Outcome
		status  int
		body    string
		cut     bool
		errHas  string
		retry   string
	}{
		{name: "200", answer: say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), outcome: Success, status: 200, body: "ok"},
		{name: "200 chunked", answer: say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"), outcome: Success, status: 200, body: "ok"},
		{name: "200 until close", answer: sayAndClose("HTTP/1.1 200 OK\r\n\r\nok"), outcome: Success, status: 200, body: "ok"},
		{name: "HTTP/1.0", answer: sayAndClose("HTTP/1.0 200 OK\r\n\r\nok"), outcome: Success, status: 200, body: "ok"},
		{name: "empty 200", answer: say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), outcome: Success, status: 200},
		{name: "204", answer: say("HTTP/1.1 204 No Content\r\n\r\n"), outcome: Success, status: 204},
		{name: "299", answer: say("HTTP/1.1 299 Odd\r\nContent-Length: 0\r\n\r\n"), outcome: Success, status: 299},
		{name: "304", answer: say("HTTP/1.1 304 Not Modified\r\n\r\n"), outcome: HTTPStatus, status: 304, errHas: "304"},
		{name: "301", answer: say("HTTP/1.1 301 Moved\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"), outcome: HTTPStatus, status: 301, errHas: "never followed"},
		{name: "302", answer: say("HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"), outcome: HTTPStatus, status: 302, errHas: "never followed"},
		{name: "303", answer: say("HTTP/1.1 303 See Other\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"), outcome: HTTPStatus, status: 303, errHas: "never followed"},
		{name: "307", answer: say("HTTP/1.1 307 Temporary\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"), outcome: HTTPStatus, status: 307, errHas: "never followed"},
		{name: "308", answer: say("HTTP/1.1 308 Permanent\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"), outcome: HTTPStatus, status: 308, errHas: "never followed"},
		{name: "400", answer: say("HTTP/1.1 400 Bad\r\nContent-Length: 2\r\n\r\nno"), outcome: HTTPStatus, status: 400, body: "no", errHas: "answered 400"},
		{name: "410", answer: say("HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"), outcome: HTTPStatus, status: 410, errHas: "410"},
		{name: "429 seconds", answer: say("HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"), outcome: HTTPStatus, status: 429, retry: "7", errHas: "429"},
		{name: "503 date", answer: say("HTTP/1.1 503 Later\r\nRetry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\nContent-Length: 0\r\n\r\n"), outcome: HTTPStatus, status: 503, retry: "Wed, 21 Oct 2026 07:28:00 GMT", errHas: "503"},
		{name: "500 with Retry-After", answer: say("HTTP/1.1 500 Oops\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"), outcome: HTTPStatus, status: 500, errHas: "500"},
		{name: "500 that hangs", answer: sayAndHang("HTTP/1.1 500 Oops\r\nContent-Length: 9\r\n\r\nhalf"), hangs: true, outcome: HTTPStatus, status: 500, body: "half", cut: true, errHas: "500"},
		{name: "1xx then 200", answer: say("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), outcome: Success, status: 200, body: "ok"},
		{name: "1xx alone", answer: sayAndHang("HTTP/1.1 102 Processing\r\n\r\n"), hangs: true, outcome: Timeout, errHas: "timeout of 150ms"},
		{name: "101", answer: sayAndHang("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"), outcome: HTTPStatus, status: 101, errHas: "101"},
		{name: "1xx flood", answer: flood("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"), outcome: BadResponse, errHas: "headers exceeded"},
		{name: "endless header", answer: flood("X-Filler: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n", "HTTP/1.1 200 OK\r\n"), outcome: BadResponse, errHas: "headers exceeded"},
		{name: "endless header line", answer: flood("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "HTTP/1.1 200 OK\r\nX: "), outcome: BadResponse},
		{name: "endless body", answer: flood(long, "HTTP/1.1 200 OK\r\n\r\n"), outcome: Success, status: 200, body: long, cut: true},
		{name: "endless error", answer: flood(long, "HTTP/1.1 500 OK\r\n\r\n"), outcome: HTTPStatus, status: 500, body: long, cut: true, errHas: "500"},
		{name: "1 GB", answer: flood(long, "HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n"), outcome: Success, status: 200, body: long, cut: true},
		{name: "exactly the limit", answer: say("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", MaxBody, long), outcome: Success, status: 200, body: long},
		{name: "one more than the limit", answer: say("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", MaxBody+1, long+"b"), outcome: Success, status: 200, body: long, cut: true},
		{name: "cut inside a character", answer: say("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", MaxBody+2, long[1:]+"€"), outcome: Success, status: 200, body: long[1:], cut: true},
		{name: "trickling body", answer: trickle("HTTP/1.1 200 OK\r\n\r\n"), hangs: true, outcome: Timeout, status: 200, errHas: "status 200 came"},
		{name: "trickling header", answer: trickle("HTTP/1.1 200 OK\r\nX: "), hangs: true, outcome: Timeout, errHas: "timeout"},
		{name: "silent", answer: sayAndHang(""), hangs: true, outcome: Timeout, errHas: "timeout"},
		{name: "never closing", answer: sayAndHang("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), hangs: true, outcome: Timeout, status: 200, body: "half", cut: true, errHas: "did not end"},
		{name: "closed in the body", answer: sayAndClose("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), outcome: Reset, status: 200, body: "half", cut: true, errHas: "before its answer was complete"},
		{name: "closed in a chunk", answer: sayAndClose("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf"), outcome: Reset, status: 200, body: "half", cut: true, errHas: "before its answer was complete"},
		{name: "closed in the header", answer: sayAndClose("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"), outcome: Reset, errHas: "before its answer was complete"},
		{name: "closed at once", answer: sayAndClose(""), outcome: Reset, errHas: "before its answer was complete"},
		{name: "reset", answer: reset(""), outcome: Reset, errHas: "before its answer was complete"},
		{name: "reset in the body", answer: reset("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), outcome: Reset, status: 200, errHas: "before its answer was complete"},
		{name: "garbage", answer: sayAndClose("SSH-2.0-OpenSSH_9.2\r\n"), outcome: BadResponse, errHas: "not valid HTTP"},
		{name: "secret garbage is not quoted", answer: sayAndClose("HTTP/1.1 hunter2 hunter2\r\n\r\n"), outcome: BadResponse, errHas: "not valid HTTP"},
		{name: "a secret line is not quoted", answer: sayAndClose("HTTP/1.1 200 OK\r\nhunter2 hunter2\r\n\r\n"), outcome: BadResponse, errHas: "not valid HTTP"},
		{name: "a secret length is not quoted", answer: sayAndClose("HTTP/1.1 200 OK\r\nContent-Length: hunter2\r\n\r\n"), outcome: BadResponse, errHas: "not valid HTTP"},
		{name: "a secret encoding is not quoted", answer: sayAndClose("HTTP/1.1 200 OK\r\nTransfer-Encoding: hunter2\r\n\r\n"), outcome: BadResponse, errHas: "not valid HTTP"},
		{name: "a secret status is not quoted", answer: sayAndClose("HTTP/1.1 2 hunter2\r\n\r\n"), outcome: BadResponse, errHas: "not valid HTTP"},
		{name: "bad chunk", answer: sayAndClose("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"), outcome: BadResponse, status: 200, cut: true, errHas: "not valid HTTP"},
		{name: "two lengths", answer: sayAndClose("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok"), outcome: BadResponse, errHas: "not valid HTTP"},
		{name: "binary and NUL", answer: say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n\x00\xff\xfe\x00\x80"), outcome: Success, status: 200, body: "\x00\xff\xfe\x00\x80"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newReceiver(t, tt.answer)
			c := newClient(t, Config{AllowTargets: allow(t, "loopback")})
			req := request(r.url + "/hook?token=hunter2")
			if tt.hangs {
				req.Timeout = short
			}
			res := c.Send(t.Context(), req)
			if res.Outcome != tt.outcome || res.Status != tt.status {
				t.Fatalf("got %s, status %d (%s), want %s, %d", res.Outcome, res.Status, res.Error, tt.outcome, tt.status)
			}
			if string(res.Body) != tt.body && tt.name != "trickling body" && tt.name != "reset in the body" {
				t.Errorf("kept %d bytes %.20q, want %d bytes %.20q", len(res.Body), res.Body, len(tt.body), tt.body)
			}
			if res.Truncated != tt.cut && tt.name != "trickling body" && tt.name != "reset in the body" {
				t.Errorf("truncated = %v, want %v", res.Truncated, tt.cut)
			}
			if (res.Outcome == Success) != (res.Error == "") || !strings.Contains(res.Error, tt.errHas) {
				t.Errorf("error %q does not say %q", res.Error, tt.errHas)
			}
			if strings.Contains(res.Error, "hunter2") {
				t.Errorf("error %q tells a secret", res.Error)
			}
			if res.RetryAfter != tt.retry {
				t.Errorf("RetryAfter = %q, want %q", res.RetryAfter, tt.retry)
			}
			if tt.hangs && res.Duration < short {
				t.Errorf("gave up after %s, before the timeout", res.Duration)
			}
			if n := r.requests.Load(); n != 1 {
				t.Errorf("the receiver saw %d requests, want 1", n)
			}
		})
	}
}

// A call may have less than its webhook's timeout: taking an access token took the rest.
func TestTimeoutIsToldInMilliseconds(t *testing.T) {
	r := newReceiver(t, sayAndHang(""))
	req := request(r.url)
	req.Timeout = short - 53500*time.Nanosecond
	res := newClient(t, Config{AllowTargets: allow(t, "loopback")}).Send(t.Context(), req)
	if res.Outcome != Timeout || res.Error != "the call did not end within its timeout of 150ms" {
		t.Errorf("got %s: %s", res.Outcome, res.Error)
	}
}

// flood says head, and then the same again for ever.
func flood(again string, head ...string) func(net.Conn, *http.Request, <-chan struct{}) bool {
	return func(c net.Conn, _ *http.Request, _ <-chan struct{}) bool {
		if _, err := io.WriteString(c, strings.Join(head, "")); err != nil {
			return false
		}
		more := []byte(again)
		for {
			if _, err := c.Write(more); err != nil {
				return false
			}
		}
	}
}

// trickle says head and then one byte at a time.
func trickle(head string) func(net.Conn, *http.Request, <-chan struct{}) bool {
	return func(c net.Conn, _ *http.Request, quit <-chan struct{}) bool {
		if _, err := io.WriteString(c, head); err != nil {
			return false
		}
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return false
			case <-tick.C:
				if _, err := io.WriteString(c, "a"); err != nil {
					return false
				}
			}
		}
	}
}

// reset says something and then resets the connection.
func reset(head string) func(net.Conn, *http.Request, <-chan struct{}) bool {
	return func(c net.Conn, _ *http.Request, _ <-chan struct{}) bool {
		if _, err := io.WriteString(c, head); err != nil {
			return false
		}
		if err := c.(*net.TCPConn).SetLinger(0); err != nil {
			panic(err)
		}
		return false
	}
}

// Small bodies go over our own connections, large ones over net/http's.
func TestRequestIsSentAsPrepared(t *testing.T) {
	for name, size := range map[string]int{"small": 100, "large": 2 * maxBuffered} {
		t.Run(name, func(t *testing.T) {
			got := make(chan *http.Request, 1)
			r := newReceiver(t, func(c net.Conn, req *http.Request, quit <-chan struct{}) bool {
				got <- req
				return say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")(c, req, quit)
			})
			c := newClient(t, Config{AllowTargets: allow(t, "loopback")})
			req := request(r.url + "/a%2Fb?q=1")
			req.Body = bytes.Repeat([]byte("x"), size)
			for _, name := range []string{"Idempotency-Key", "x-idempotency-key", "Connection", "Expect", "Cookie", "accept-encoding", "TE", "Upgrade", "Host", "content-LENGTH"} {
				req.Header = append(req.Header, Field{Name: name, Value: "x"})
			}
			req.Header = append(req.Header, Field{Name: "X-Webhook-Event", Value: "patient.created"})
			if res := c.Send(t.Context(), req); res.Outcome != Success {
				t.Fatalf("%s: %s", res.Outcome, res.Error)
			}
			sent := <-got
			if sent.Method != "POST" || sent.RequestURI != "/a%2Fb?q=1" || "http://"+sent.Host != r.url {
				t.Errorf("sent %s %s to %s", sent.Method, sent.RequestURI, sent.Host)
			}
			want := http.Header{
				"Content-Type": {"application/json"}, "User-Agent": {"MediLab-Webhook/1.0"}, "Accept-Encoding": {"identity"},
				"X-Webhook-Event": {"patient.created"}, "Content-Length": {strconv.Itoa(len(req.Body))},
			}
			for name, values := range sent.Header {
				if want.Get(name) != strings.Join(values, "|") {
					t.Errorf("sent %s: %q", name, values)
				}
			}
			if len(sent.Header) != len(want) {
				t.Errorf("sent %v, want %v", sent.Header, want)
			}
		})
	}
}

// A receiver that closes kept-alive connections when the next request arrives
// must see each request once: whether it did its work is unknown.
func TestPostIsNeverRepeated(t *testing.T) {
	r := newReceiver(t, func(c net.Conn, req *http.Request, quit <-chan struct{}) bool {
		if req.Header.Get("N") == "1" {
			return say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")(c, req, quit)
		}
		return false
	})
	c := newClient(t, Config{AllowTargets: allow(t, "loopback")})
	for n, want := range []Outcome{Success, Reset} {
		req := request(r.url)
		req.Header = append(req.Header, Field{Name: "N", Value: strconv.Itoa(n + 1)},
			Field{Name: "Idempotency-Key", Value: "would make the transport repeat it"})
		if res := c.Send(t.Context(), req); res.Outcome != want {
			t.Fatalf("call %d: %s (%s), want %s", n+1, res.Outcome, res.Error, want)
		}
	}
	if n, conns := r.requests.Load(), r.conns.Load(); n != 2 || conns != 1 {
		t.Errorf("the receiver saw %d requests on %d connections, want 2 on 1", n, conns)
	}
}

func TestConnectionsAreReused(t *testing.T) {
	r := newReceiver(t, say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
	c := newClient(t, Config{AllowTargets: allow(t, "loopback")})
	for range 20 {
		if res := c.Send(t.Context(), request(r.url)); res.Outcome != Success {
			t.Fatalf("%s: %s", res.Outcome, res.Error)
		}
	}
	if n := r.conns.Load(); n != 1 {
		t.Errorf("%d connections for 20 calls in a row, want 1", n)
	}
}

func TestCompressedAnswerIsKeptAsItCame(t *testing.T) {
	var bomb bytes.Buffer
	w := gzip.NewWriter(&bomb)
	if _, err := w.Write(make([]byte, 4<<20)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r := newReceiver(t, func(c net.Conn, req *http.Request, quit <-chan struct{}) bool {
		if req.Header.Get("Accept-Encoding") != "identity" {
			return false
		}
		return say("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", bomb.Len(), bomb.Bytes())(c, req, quit)
	})
	c := newClient(t, Config{AllowTargets: allow(t, "loopback")})
	res := c.Send(t.Context(), request(r.url))
	if res.Outcome != Success || !bytes.Equal(res.Body, bomb.Bytes()[:min(MaxBody, bomb.Len())]) {
		t.Errorf("%s, %d bytes, want the %d as sent", res.Outcome, len(res.Body), bomb.Len())
	}
	if res.Header.Get("Content-Encoding") != "gzip" {
		t.Errorf("headers %v", res.Header)
	}
}

func TestAnswerHeadersAreBounded(t *testing.T) {
	head := "HTTP/1.1 503 Later\r\nContent-Length: 0\r\n"
	for i := range 200 {
		head += "A-Filler-" + strconv.Itoa(i) + ": " + strings.Repeat("x", 100) + "\r\n"
	}
	r := newReceiver(t, say("%s", head+"Retry-After: 5\r\nA-Odd: a\xffc\r\n\r\n"))
	c := newClient(t, Config{AllowTargets: allow(t, "loopback")})
	res := c.Send(t.Context(), request(r.url))
	count, size := 0, 0
	for name, values := range res.Header {
		for _, v := range values {
			count, size = count+1, size+len(name)+len(v)
			if !utf8.ValidString(v) {
				t.Errorf("kept %s: %q", name, v)
			}
		}
	}
	if count == 0 || count > MaxHeaders || size > MaxHeaderBytes {
		t.Errorf("kept %d values of %d bytes", count, size)
	}
	if res.RetryAfter != "5" {
		t.Errorf("RetryAfter = %q, want 5", res.RetryAfter)
	}
}

func TestCutIsOnCharacterBoundary(t *testing.T) {
	tests := []struct {
		in    string
		limit int
		want  int
	}{
		{"abcd", 3, 3}, {"ab€d", 3, 2}, {"ab€d", 4, 2}, {"ab€d", 5, 5}, {"a😀b", 4, 1}, {"a😀b", 5, 5},
		{"\x80\x80\x80\x80\x80\x80", 5, 5},
	}
	for _, tt := range tests {
		if got := cut([]byte(tt.in), tt.limit); got != tt.want {
			t.Errorf("cut(%q, %d) = %d, want %d", tt.in, tt.limit, got, tt.want)
		}
	}
}

func TestNothingListens(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	c := newClient(t, Config{AllowTargets: allow(t, "loopback")})
	res := c.Send(t.Context(), request("http://"+addr+"/?token=hunter2"))
	if res.Outcome != Connect || !strings.Contains(res.Error, addr) || strings.Contains(res.Error, "hunter2") {
		t.Errorf("%s: %s", res.Outcome, res.Error)
	}
}

func TestUnknownName(t *testing.T) {
	c := newClient(t, Config{Resolver: newNameServer(t, nil).resolver()})
	res := c.Send(t.Context(), request("http://nobody.example/?token=hunter2"))
	if res.Outcome != DNS || !strings.Contains(res.Error, "nobody.example") || strings.Contains(res.Error, "hunter2") {
		t.Errorf("%s: %s", res.Outcome, res.Error)
	}
}

func TestShutdownInterrupts(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := newReceiver(t, func(_ net.Conn, _ *http.Request, quit <-chan struct{}) bool {
		cancel()
		<-quit
		return false
	})
	c := newClient(t, Config{AllowTargets: allow(t, "loopback")})
	if res := c.Send(ctx, request(r.url)); res.Outcome != Interrupted || res.Error == "" {
		t.Errorf("%s: %s", res.Outcome, res.Error)
	}
}

func TestWhatCannotBeSent(t *testing.T) {
	c := newClient(t, Config{AllowTargets: allow(t, "all")})
	header := []Field{{Name: "X", Value: "a\r\nb: hunter2"}}
	for _, r := range []Request{
		{URL: "ftp://127.0.0.1/hunter2"}, {URL: "http://"}, {URL: ""}, {URL: "http://%zz/?hunter2"},
		{URL: "http://u:hunter2@127.0.0.1/"}, {URL: "unix:///var/run/docker.sock"}, {URL: "file:///etc/passwd"},
		{URL: "http://127.0.0.1:1/", Header: header}, {URL: "http://127.0.0.1:1/", Header: []Field{{Name: "a b", Value: "c"}}},
	} {
		if res := c.Send(t.Context(), r); res.Outcome != InvalidRequest || res.Error == "" || strings.Contains(res.Error, "hunter2") {
			t.Errorf("%q: %s (%s), want %s", r.URL, res.Outcome, res.Error, InvalidRequest)
		}
	}
}

// A receiver that refuses a large body before it has read it is heard.
func TestEarlyAnswer(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	t.Cleanup(func() { l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		t.Cleanup(func() { c.Close() })
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		say("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")(c, nil, nil) // and the body is left unread
	}()
	c := newClient(t, Config{AllowTargets: allow(t, "loopback")})
	req := request("http://" + l.Addr().String())
	req.Body = make([]byte, 10<<20)
	if res := c.Send(t.Context(), req); res.Status != 413 {
		t.Fatalf("%s: %s", res.Outcome, res.Error)
	}
}

func TestMemoryStaysFlatUnderHugeAnswers(t *testing.T) {
	r := newReceiver(t, flood(strings.Repeat("a", 64<<10), "HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n"))
	c := newClient(t, Config{AllowTargets: allow(t, "loopback")})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 8 {
				if res := c.Send(t.Context(), request(r.url)); res.Outcome != Success || len(res.Body) != MaxBody {
					t.Errorf("%s, %d bytes", res.Outcome, len(res.Body))
				}
			}
		})
	}
	wg.Wait()
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 32<<20 {
		t.Errorf("64 answers of 1 GB allocated %d MB", grown>>20)
	}
}

func TestHTTP2(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Proto", r.Proto)
		if _, err := io.Copy(w, r.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	c := newClient(t, Config{AllowTargets: allow(t, "loopback"), CAFile: writePEM(t, "CERTIFICATE", s.Certificate().Raw)})
	req := request(s.URL)
	res := c.Send(t.Context(), req)
	if res.Outcome != Success || res.Header.Get("Proto") != "HTTP/2.0" || !bytes.Equal(res.Body, req.Body) {
		t.Errorf("%s %s: %s", res.Outcome, res.Header.Get("Proto"), res.Error)
	}
}

// Whoever loses the right to call while a connection is being made sends nothing.
func TestWithheld(t *testing.T) {
	var got atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { got.Add(1) }))
	defer server.Close()
	for asked, name := range []string{"before the dial", "after the dial"} {
		c := newClient(t, Config{AllowTargets: allow(t, "loopback")})
		var times atomic.Int64
		res := c.Send(t.Context(), Request{URL: server.URL, Body: []byte("{}"), Allowed: func() bool { return times.Add(1) <= int64(asked) }})
		if res.Outcome != commands.OutcomeWithheld || got.Load() != 0 {
			t.Errorf("%s: %s, %d calls arrived", name, res.Outcome, got.Load())
		}
	}
	c := newClient(t, Config{AllowTargets: allow(t, "loopback")})
	if res := c.Send(t.Context(), Request{URL: server.URL, Allowed: func() bool { return true }}); res.Outcome != Success || got.Load() != 1 {
		t.Errorf("allowed: %s, %d calls arrived", res.Outcome, got.Load())
	}
}
