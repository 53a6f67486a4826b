package e2e

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/cmd/testbed"
)

// oddly serves on loopback whatever answer writes to each request, and gives the address.
// done is closed when the test ends.
func oddly(t *testing.T, answer func(c net.Conn, done <-chan struct{})) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	serve := func(c net.Conn) {
		defer wg.Done()
		defer c.Close() //nolint:errcheck // it may be closed already
		stop := context.AfterFunc(ctx, func() { c.Close() })
		defer stop()
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			answer(c, ctx.Done())
		}
	}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Add(1)
			go serve(c)
		}
	})
	t.Cleanup(func() {
		cancel()
		l.Close() //nolint:errcheck // nobody uses it
		wg.Wait()
	})
	return "http://" + l.Addr().String()
}

type answering = func(c net.Conn, done <-chan struct{})

// says answers with these bytes and closes the connection.
func says(format string, args ...any) answering {
	return func(c net.Conn, _ <-chan struct{}) {
		fmt.Fprintf(c, format, args...) //nolint:errcheck // the caller may be gone
	}
}

// hangs answers with these bytes and then says nothing until the test ends.
func hangs(format string, args ...any) answering {
	return func(c net.Conn, done <-chan struct{}) {
		says(format, args...)(c, done)
		<-done
	}
}

// floods says the beginning, and then more again and again for as long as somebody reads.
func floods(beginning, more string) answering {
	return func(c net.Conn, _ <-chan struct{}) {
		text := beginning
		for {
			if _, err := io.WriteString(c, text); err != nil {
				return
			}
			text = more
		}
	}
}

// trickles says the beginning, and then a letter now and then for ever.
func trickles(beginning string) answering {
	return func(c net.Conn, done <-chan struct{}) {
		text := beginning
		ticker := time.NewTicker(50 * time.Millisecond)
		defer ticker.Stop()
		for {
			if _, err := io.WriteString(c, text); err != nil {
				return
			}
			select {
			case <-ticker.C:
			case <-done:
				return
			}
			text = "a"
		}
	}
}

// resets says the beginning and then breaks the connection.
func resets(beginning string) answering {
	return func(c net.Conn, done <-chan struct{}) {
		says("%s", beginning)(c, done)
		if tcp, ok := c.(*net.TCPConn); ok {
			tcp.SetLinger(0) //nolint:errcheck // then it is closed, which is as odd
		}
	}
}

func gzipped(t *testing.T, size int) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(bytes.Repeat([]byte("a"), size)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Whatever a receiver does is one named outcome in the call log, told in words, with what
// there was of an answer; the timeout covers the whole call, and memory stays flat.
func TestOddReceivers(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 10<<10)
	bomb := gzipped(t, 100<<20)
	const ok = "HTTP/1.1 200 OK\r\n"
	is := func(text string) *string { return &text }
	cases := []struct {
		name    string
		answer  answering
		url     string // instead
		outcome string
		status  int
		words   string
		body    *string // nil: not looked at
		cut     bool
	}{
		{name: "empty 200", answer: says(ok + "Content-Length: 0\r\n\r\n"), outcome: "success", status: 200, body: is("")},
		{name: "204", answer: says("HTTP/1.1 204 No Content\r\n\r\n"), outcome: "success", status: 204, body: is("")},
		{name: "299", answer: says("HTTP/1.1 299 Odd\r\nContent-Length: 2\r\n\r\nok"), outcome: "success", status: 299, body: is("ok")},
		{name: "until close", answer: says("HTTP/1.0 200 OK\r\n\r\nok"), outcome: "success", status: 200, body: is("ok")},
		{name: "300", answer: says("HTTP/1.1 300 Many\r\nContent-Length: 0\r\n\r\n"), outcome: "http_status", status: 300, words: "300"},
		{name: "301", answer: says("HTTP/1.1 301 Moved\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"), outcome: "http_status", status: 301, words: "never followed"},
		{name: "302", answer: says("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"), outcome: "http_status", status: 302, words: "never followed"},
		{name: "307", answer: says("HTTP/1.1 307 Temporary\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"), outcome: "http_status", status: 307, words: "never followed"},
		{name: "308", answer: says("HTTP/1.1 308 Permanent\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"), outcome: "http_status", status: 308, words: "never followed"},
		{name: "304", answer: says("HTTP/1.1 304 Not Modified\r\n\r\n"), outcome: "http_status", status: 304, words: "304"},
		{name: "400", answer: says("HTTP/1.1 400 Bad\r\nContent-Length: 2\r\n\r\nno"), outcome: "http_status", status: 400, words: "400", body: is("no")},
		{name: "599", answer: says("HTTP/1.1 599 Odd\r\nContent-Length: 0\r\n\r\n"), outcome: "http_status", status: 599, words: "599"},
		{name: "101", answer: hangs("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"), outcome: "http_status", status: 101, words: "101"},
		{name: "1xx, then 200", answer: says("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + ok + "Content-Length: 2\r\n\r\nok"), outcome: "success", status: 200, body: is("ok")},
		{name: "1xx alone", answer: hangs("HTTP/1.1 102 Processing\r\n\r\n"), outcome: "timeout", words: "timeout of 1s"},
		{name: "1xx for ever", answer: floods("", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"), outcome: "bad_response", words: "headers"},
		{name: "silent", answer: hangs(""), outcome: "timeout", words: "timeout of 1s"},
		{name: "trickling header", answer: trickles(ok + "X: "), outcome: "timeout", words: "timeout of 1s"},
		{name: "trickling body", answer: trickles(ok + "\r\n"), outcome: "timeout", status: 200, words: "did not end", cut: true},
		{name: "never closing", answer: hangs(ok + "Content-Length: 9\r\n\r\nhalf"), outcome: "timeout", status: 200, words: "did not end", body: is("half"), cut: true},
		{name: "endless body", answer: floods(ok+"\r\n", long), outcome: "success", status: 200, body: is(long), cut: true},
		{name: "endless error", answer: floods("HTTP/1.1 500 Oops\r\n\r\n", long), outcome: "http_status", status: 500, words: "500", body: is(long), cut: true},
		{name: "endless header", answer: floods(ok, "X-Filler: "+strings.Repeat("a", 100)+"\r\n"), outcome: "bad_response", words: "headers"},
		{name: "1 GB", answer: floods(ok+"Content-Length: 1073741824\r\n\r\n", long), outcome: "success", status: 200, body: is(long), cut: true},
		{name: "exactly 10 KB", answer: says(ok+"Content-Length: 10240\r\n\r\n%s", long), outcome: "success", status: 200, body: is(long)},
		{name: "10 KB and one", answer: says(ok+"Content-Length: 10241\r\n\r\n%s", long+"b"), outcome: "success", status: 200, body: is(long), cut: true},
		{name: "cut within a letter", answer: says(ok+"Content-Length: 10241\r\n\r\n%s", long[1:]+"я"), outcome: "success", status: 200, body: is(long[1:]), cut: true},
		{name: "cut within a sign of four bytes", answer: says(ok+"Content-Length: 10241\r\n\r\n%s", long[3:]+"😀"), outcome: "success", status: 200, body: is(long[3:]), cut: true},
		{name: "letters up to the limit", answer: says(ok+"Content-Length: 10240\r\n\r\n%s", strings.Repeat("я", 5<<10)), outcome: "success", status: 200, body: is(strings.Repeat("я", 5<<10))},
		{name: "compressed", answer: says(ok+"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", len(bomb), bomb), outcome: "success", status: 200, cut: true},
		{name: "binary and NUL", answer: says(ok + "Content-Length: 6\r\n\r\na\x00\xff\x00b\x00"), outcome: "success", status: 200, body: is("a\x00\uFFFD\x00b\x00")},
		{name: "closed at once", answer: says(""), outcome: "reset", words: "closed the connection"},
		{name: "reset at once", answer: resets(""), outcome: "reset", words: "closed the connection"},
		{name: "closed in the header", answer: says(ok + "Content-Length: 9\r\n"), outcome: "reset", words: "closed the connection"},
		{name: "closed in the body", answer: says(ok + "Content-Length: 9\r\n\r\nhalf"), outcome: "reset", status: 200, words: "before its answer was complete", body: is("half"), cut: true},
		{name: "reset in the body", answer: resets(ok + "Content-Length: 9\r\n\r\nhalf"), outcome: "reset", status: 200, words: "before its answer was complete", cut: true},
		{name: "no HTTP", answer: says("SSH-2.0-OpenSSH_9.2\r\n"), outcome: "bad_response", words: "not valid HTTP"},
		{name: "broken chunk", answer: says(ok + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n"), outcome: "bad_response", status: 200, words: "not valid HTTP", cut: true},
		{name: "nobody listens", url: "http://" + harness.FreeAddress(t), outcome: "connect", words: "could not connect"},
		{name: "a private network", url: "http://10.1.2.3/", outcome: "refused_target", words: "10.1.2.3"},
		{name: "no TLS", answer: says("HTTP/1.1 400 Bad Request\r\n\r\n"), url: "https", outcome: "tls_failed", words: "does not speak TLS"},
	}
	p := start(t)
	webhooks := make([]webhook, len(cases))
	for i, c := range cases {
		url := c.url
		if c.answer != nil {
			if url = oddly(t, c.answer); c.url == "https" {
				url = plainly(t)
			}
		}
		webhooks[i] = p.register(url, `{"max_retries":0,"timeout":1,"events":["visit.created"]}`)
	}
	event := p.trigger(`{"event_type":"visit.created","event_data":{}}`)
	for i, c := range cases {
		calls := p.awaitCalls(webhooks[i].ID, 1)
		d := p.details(webhooks[i].ID, calls[0])
		success := c.outcome == "success"
		if d.Outcome != c.outcome || (d.Status == "success") != success || (d.ResponseStatus != nil) != (c.status != 0) || c.status != 0 && *d.ResponseStatus != c.status {
			t.Errorf("%s: %+v, want %s %d (%s)", c.name, d.call, c.outcome, c.status, text(d.Error))
			continue
		}
		if (d.Error == nil) != success || !strings.Contains(text(d.Error), c.words) {
			t.Errorf("%s: the error is %q, want %q", c.name, text(d.Error), c.words)
		}
		if c.body != nil && (d.ResponseBody == nil || *d.ResponseBody != *c.body) {
			t.Errorf("%s: %d bytes are kept, want %d: %.40q", c.name, len(text(d.ResponseBody)), len(*c.body), text(d.ResponseBody))
		}
		if d.ResponseTruncated != c.cut {
			t.Errorf("%s: truncated is %v", c.name, d.ResponseTruncated)
		}
		if c.outcome == "timeout" && d.DurationMS < 1000 {
			t.Errorf("%s: given up after %v ms", c.name, d.DurationMS)
		}
		if strings.HasPrefix(c.words, "never") && d.ResponseHeaders["Location"] == "" {
			t.Errorf("%s: the call log has no Location: %v", c.name, d.ResponseHeaders)
		}
	}
	for _, d := range p.deliveries(event) {
		if d.State == "pending" {
			t.Errorf("a delivery without retries is %+v", d)
		}
	}

	// The same again, to see that what is left of them does not add up.
	peak := p.memory("VmHWM")
	const most = 400 << 20
	huge := p.register(oddly(t, floods(ok+"Content-Length: 1073741824\r\n\r\n", long)), `{"max_retries":0,"events":["visit.updated"]}`)
	const again = 300
	p.triggerAll("visit.updated", numbered(0, again)...)
	p.Until("all calls ended", func() bool {
		var stats struct {
			Total int `json:"total_calls"`
		}
		p.api(200, "GET", "/webhooks/"+huge.ID+"/stats", "", &stats)
		return stats.Total == again
	})
	t.Logf("the peak of memory is %d MB, and %d MB after %d answers of 1 GB", peak>>20, p.memory("VmHWM")>>20, again)
	if now := p.memory("VmHWM"); now > most {
		t.Errorf("the server took %d MB, at first %d MB", now>>20, peak>>20)
	}
}

// plainly speaks plain HTTP to whoever connects, and gives an https address.
func plainly(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() }) //nolint:errcheck // nobody uses it
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") //nolint:errcheck // the caller may be gone
			t.Cleanup(func() { c.Close() })                       //nolint:errcheck // it may be closed already
		}
	}()
	return "https://" + l.Addr().String()
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// memory reads a figure of the server's process, in bytes.
func (p *product) memory(name string) int64 {
	p.Helper()
	figure, err := testbed.Memory(p.Pid(), name)
	if errors.Is(err, fs.ErrNotExist) {
		p.Skip("this system does not tell a process's memory")
	}
	if err != nil {
		p.Fatal(err)
	}
	return figure
}

// A receiver that says when to come again, or never.
func TestReceiversThatAskForPatience(t *testing.T) {
	t.Parallel()
	p := start(t)
	later := time.Now().Add(2 * time.Hour).UTC()
	cases := []struct {
		name        string
		status      int
		retryAfter  string
		least, most time.Duration // of the wait; 0: none follows
	}{
		{"429 in seconds", 429, "7200", 7200 * time.Second, 2*time.Hour + 30*time.Minute},
		{"503 in seconds", 503, "7200", 7200 * time.Second, 2*time.Hour + 30*time.Minute},
		{"429 at a date", 429, later.Format(http.TimeFormat), time.Hour, 2*time.Hour + 30*time.Minute},
		{"503 at a date", 503, later.Format(http.TimeFormat), time.Hour, 2*time.Hour + 30*time.Minute},
		{"it shortens nothing", 503, "1", 100 * time.Second, 110 * time.Second},
		{"a date gone by", 429, "Wed, 21 Oct 2015 07:28:00 GMT", 100 * time.Second, 110 * time.Second},
		{"no time at all", 429, "soon", 100 * time.Second, 110 * time.Second},
		{"not more than a day", 503, "99999999999999999999", 24 * time.Hour, 24*time.Hour + time.Minute},
		{"not on others", 500, "7200", 100 * time.Second, 110 * time.Second},
		{"gone", 410, "7200", 0, 0},
	}
	webhooks := make([]webhook, len(cases))
	for i, c := range cases {
		in := harness.Receive(t, func(w http.ResponseWriter, _ harness.Call) {
			w.Header().Set("Retry-After", c.retryAfter)
			w.WriteHeader(c.status)
		})
		webhooks[i] = p.register(in.URL, `{"retry_delay":100,"max_retries":3}`)
	}
	event := p.trigger(`{"event_type":"visit.created","event_data":{}}`)
	for i, c := range cases {
		got := p.awaitCalls(webhooks[i].ID, 1)[0]
		if c.least == 0 {
			if got.NextAttemptAt != nil || !strings.Contains(text(got.Error), "410") {
				t.Errorf("%s: %+v %s", c.name, got, text(got.Error))
			}
			continue
		}
		if got.NextAttemptAt == nil {
			t.Errorf("%s: no attempt follows %+v", c.name, got)
			continue
		}
		// created_at is when the end was recorded, right after the wait began.
		const recording = 10 * time.Second
		if wait := got.NextAttemptAt.Sub(got.CreatedAt); wait < c.least-recording || wait > c.most {
			t.Errorf("%s: the next attempt follows after %v", c.name, wait)
		}
	}
	ends := 0
	for _, d := range p.deliveries(event) {
		if d.State == "failed" && text(d.Reason) == "gone" {
			ends++
		} else if d.State != "pending" {
			t.Errorf("a delivery is %+v, %s", d, text(d.Reason))
		}
	}
	if ends != 1 {
		t.Errorf("%d deliveries ended by 410, want 1", ends)
	}
}
