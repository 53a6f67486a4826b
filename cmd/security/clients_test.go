package security

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// dial opens a connection and sends what is given, and no more.
func (p *product) dial(text string) net.Conn {
	p.Helper()
	conn, err := net.Dial("tcp", p.Addr)
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() { _ = conn.Close() })
	if _, err := io.WriteString(conn, text); err != nil {
		p.Fatal(err)
	}
	return conn
}

// Two hundred clients that begin and never end change nothing for others, and are
// let go after a while.
func TestHalfOpenClientsChangeNothing(t *testing.T) {
	p := start(t, newDatabase(t)...)
	const trigger = "POST /api/v1/webhooks/events/trigger HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + adminToken + "\r\nContent-Type: application/json\r\n"
	var silent []net.Conn
	for i := range 50 {
		silent = append(silent,
			p.dial(""), // nothing at all
			p.dial("GET /api/v1/webhooks HTTP/1.1\r\nX-A: "), // half a header
		)
		p.dial(trigger + "Content-Length: 1000000\r\n\r\n{\"event_type\":")                                                                    // half a body
		p.dial("GET /api/v1/audit/events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + adminToken + fmt.Sprint("\r\nX-N: ", i, "\r\n\r\n")) // reads no answer
	}
	for i := range 100 {
		p.api(202, "POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{}}`, nil)
		if i%10 == 0 {
			p.api(200, "GET", "/webhooks/?limit=10", "", nil)
			if status, _ := p.as("", "GET", "/healthz", ""); status != 200 {
				t.Errorf("alive: %d", status)
			}
		}
	}
	// Those who did not even end their headers are gone; no timer of ours decides when.
	const most = time.Minute // less than what a whole request may take
	deadline := time.Now().Add(most)
	for i, conn := range silent {
		if err := conn.SetReadDeadline(deadline); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, conn); err != nil {
			if timeout, ok := err.(net.Error); ok && timeout.Timeout() { //nolint:errorlint // it is the connection's own
				t.Fatalf("client %d holds its connection for more than %s", i, most)
			}
		}
	}
}

// What is too large is refused before it is read, and by the size that is read,
// whatever the length says; what cannot be read is a problem and never a failure.
func TestOversizedAndBrokenRequests(t *testing.T) {
	p := start(t, newDatabase(t)...)
	const path = "POST /api/v1/webhooks/events/trigger HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + adminToken + "\r\n"
	megabyte := strings.Repeat("1", 1<<20)
	for name, tt := range map[string]struct {
		send string
		want int
	}{
		"a length over the limit, and no body":  {path + "Content-Length: 10485761\r\n\r\n", 413},
		"chunks over the limit":                 {path + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("100000\r\n"+megabyte+"\r\n", 11), 413},
		"headers over the limit":                {path + "X-A: " + megabyte + "\r\n\r\n", 431},
		"a compressed body":                     {path + "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", 415},
		"another kind of body":                  {path + "Content-Type: text/xml\r\nContent-Length: 2\r\n\r\n{}", 415},
		"no length that can be":                 {path + "Content-Length: 99999999999999999999\r\n\r\n", 400},
		"no host":                               {"GET /healthz HTTP/1.1\r\n\r\n", 400},
		"no path":                               {"GET *?a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"a version of tomorrow":                 {"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505},
		"an expectation":                        {path + "Expect: 200-ok\r\nContent-Length: 2\r\n\r\n", 417},
		"a proxy's request":                     {"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: a\r\n\r\n", 404},
		"two lengths":                           {path + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400},
		"a length and chunks":                   {path + "Content-Length: 5\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 501},
		"no length that is a number":            {path + "Content-Length: -1\r\n\r\n", 400},
		"no HTTP":                               {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400},
		"nesting without end":                   {path + "Content-Length: 100000\r\n\r\n" + strings.Repeat("[", 100_000), 400},
		"a key twice":                           {path + "Content-Length: 19\r\n\r\n" + `{"a":1,"b":2,"a":3}`, 400},
		"bytes that are no UTF-8":               {path + "Content-Length: 9\r\n\r\n{\"a\":\"\xff\"}", 400},
		"a number that is none of this world":   {path + "Content-Length: 11\r\n\r\n{\"a\":1e999}", 400},
		"a header that smuggles another":        {path + "X-A: b\rX-B: c\r\nContent-Length: 2\r\n\r\n{}", 400},
		"a token in the query and not a header": {"GET /api/v1/webhooks?token=" + adminToken + " HTTP/1.1\r\nHost: a\r\n\r\n", 401},
	} {
		conn, err := net.Dial("tcp", p.Addr)
		if err != nil {
			t.Fatal(err)
		}
		// An answer that waits for a body which never comes would take longer.
		if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		sent := make(chan struct{})
		go func() { // the server may stop reading before all is sent
			defer close(sent)
			_, _ = io.WriteString(conn, tt.send)
		}()
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%s: no answer: %v", name, err)
		} else {
			if response.StatusCode != tt.want {
				t.Errorf("%s: %s, want %d", name, response.Status, tt.want)
			}
			if response.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s: answered as %s", name, response.Header.Get("Content-Type"))
			}
			_ = response.Body.Close()
		}
		_ = conn.Close()
		<-sent
	}
	p.api(202, "POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{}}`, nil)
}

// A revoked token ends on every node, tokens that are tried lock nobody out, and
// the log says who gave and took the rights.
func TestTokensOnTwoNodes(t *testing.T) {
	database := newDatabase(t)
	a := start(t, database...)
	b := start(t, database...)
	var made, other struct{ ID, Token string }
	decode(t, a.command("token", "create", "--name", "crm", "--scopes", "webhooks:read", "--json"), &made)
	decode(t, a.command("token", "create", "--name", "other", "--scopes", "webhooks:read", "--json"), &other)
	status := func(p *product, token string) int {
		got, _ := p.as(token, "GET", "/api/v1/webhooks", "")
		return got
	}
	for _, p := range []*product{a, b} { // at once, on a node that did not make it
		if got := status(p, made.Token); got != 200 {
			t.Errorf("a new token: %d", got)
		}
	}

	a.command("token", "revoke", made.ID)
	revoked := time.Now()
	for _, p := range []*product{a, b} {
		p.Until("the token is revoked", func() bool {
			asked := time.Now()
			got := status(p, made.Token)
			if late := asked.Sub(revoked); got == 200 && late > time.Second {
				t.Errorf("the token is accepted %s after it was revoked", late)
			}
			return got == 401
		})
	}
	t.Logf("revoked on both nodes after %s", time.Since(revoked))
	tries := make(chan int)
	for i := range 120 {
		go func() { tries <- status(a, fmt.Sprintf("mlw_wrong%d", i)) }()
	}
	for range 20 {
		if got := status(a, other.Token); got != 200 {
			t.Errorf("while others try tokens from the same address: %d", got)
		}
	}
	throttled := 0
	for range 120 {
		switch got := <-tries; got {
		case 401:
		case 429:
			throttled++
		default:
			t.Errorf("a wrong token: %d", got)
		}
	}
	if throttled == 0 {
		t.Error("nobody who tries tokens is held back")
	}

	log := a.command("audit", "log", "--type", "token.*", "--format", "ndjson")
	if strings.Count(log, `"actor":"command line (`) != 3 || strings.Contains(log, made.Token) {
		t.Errorf("the log has %s", log)
	}
}
