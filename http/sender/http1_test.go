package sender

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/medilab/webhooks/cmd/testbed/testcert"
)

const empty200 = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

// A receiver that closes its connection between two calls costs neither of them.
func TestConnectionClosedWhileIdle(t *testing.T) {
	var first sync.Once
	closed := make(chan struct{})
	r := newReceiver(t, func(c net.Conn, req *http.Request, quit <-chan struct{}) bool {
		goOn := say(empty200)(c, req, quit)
		first.Do(func() {
			goOn = false
			c.Close()
			close(closed)
		})
		return goOn
	})
	c := newClient(t, Config{AllowTargets: allow(t, "loopback")})
	for n := range 3 {
		if res := c.Send(t.Context(), request(r.url)); res.Outcome != Success {
			t.Fatalf("call %d: %s (%s)", n+1, res.Outcome, res.Error)
		}
		<-closed
	}
	if requests, conns := r.requests.Load(), r.conns.Load(); requests != 3 || conns != 2 {
		t.Errorf("%d requests on %d connections, want 3 on 2", requests, conns)
	}
}

// What comes unasked over an idle connection is never taken for the next answer.
func TestUnaskedAnswerIsNobodys(t *testing.T) {
	said := make(chan struct{}, 2)
	r := newReceiver(t, func(c net.Conn, req *http.Request, quit <-chan struct{}) bool {
		defer func() { said <- struct{}{} }()
		return say(empty200)(c, req, quit) && say("HTTP/1.1 500 Unasked\r\nContent-Length: 0\r\n\r\n")(c, req, quit)
	})
	c := newClient(t, Config{AllowTargets: allow(t, "loopback")})
	for n := range 2 {
		if res := c.Send(t.Context(), request(r.url)); res.Outcome != Success {
			t.Fatalf("call %d: %s (%s)", n+1, res.Outcome, res.Error)
		}
		<-said
	}
	if n := r.conns.Load(); n != 2 {
		t.Errorf("%d connections, want 2: the first had something left to say", n)
	}
}

// A connection whose answer was not read to its end is not used again.
func TestHalfReadConnectionIsClosed(t *testing.T) {
	r := newReceiver(t, func(c net.Conn, req *http.Request, quit <-chan struct{}) bool {
		return say("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", MaxBody+2, strings.Repeat("a", MaxBody+2))(c, req, quit)
	})
	c := newClient(t, Config{AllowTargets: allow(t, "loopback")})
	for range 2 {
		if res := c.Send(t.Context(), request(r.url)); res.Outcome != Success || !res.Truncated {
			t.Fatalf("%s (%s)", res.Outcome, res.Error)
		}
	}
	if n := r.conns.Load(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}

// A receiver that speaks HTTP/1.1 over TLS is asked for HTTP/2 once.
func TestHTTP1OverTLS(t *testing.T) {
	var mu sync.Mutex
	conns := map[net.Conn]bool{}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(w, r.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
	}))
	s.Config.ConnState = func(c net.Conn, state http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		if state == http.StateNew {
			conns[c] = true
		}
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	c := newClient(t, Config{AllowTargets: allow(t, "loopback"), CAFile: writePEM(t, "CERTIFICATE", s.Certificate().Raw)})
	for range 10 {
		req := request(s.URL)
		if res := c.Send(t.Context(), req); res.Outcome != Success || string(res.Body) != string(req.Body) {
			t.Fatalf("%s (%s) %q", res.Outcome, res.Error, res.Body)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(conns) != 2 { // the one that HTTP/2 was asked for, and ours
		t.Errorf("%d connections for ten calls", len(conns))
	}
}

// Our own connections verify certificates like the transport's.
func TestHTTP1OverTLSIsVerified(t *testing.T) {
	url := tlsServer(t, &tls.Config{Certificates: []tls.Certificate{testcert.New(t, nil, nil)}})
	c := newClient(t, Config{AllowTargets: allow(t, "loopback")})
	endpoint, err := c.endpoint(url)
	if err != nil {
		t.Fatal(err)
	}
	endpoint.speaksHTTP1.Store(true)
	if res := c.Send(t.Context(), request(url)); res.Outcome != TLSSelfSigned {
		t.Errorf("%s (%s)", res.Outcome, res.Error)
	}
}

// Idle connections are closed before receivers would, and their number is bounded.
func TestIdleConnectionsEnd(t *testing.T) {
	t.Parallel()
	const most = 3
	ended := make(chan struct{}, 2*most)
	both := make(chan struct{})
	var arrived sync.WaitGroup
	arrived.Add(2 * most)
	go func() { arrived.Wait(); close(both) }()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		arrived.Done()
		<-both // all at once, each on a connection of its own
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			ended <- struct{}{}
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	c := newClient(t, Config{AllowTargets: allow(t, "loopback"), MaxInFlight: most})
	var calls sync.WaitGroup
	for range 2 * most {
		calls.Go(func() {
			if res := c.Send(context.Background(), request(s.URL)); res.Outcome != Success {
				t.Errorf("%s (%s)", res.Outcome, res.Error)
			}
		})
	}
	calls.Wait()
	if n := idleOf(c); n != most {
		t.Errorf("%d connections are kept, want %d", n, most)
	}
	for range 2 * most { // half at once, half when they have been idle for long
		select {
		case <-ended:
		case <-time.After(10 * idleTimeout):
			t.Fatal("idle connections stay")
		}
	}
	if n := idleOf(c); n != 0 {
		t.Errorf("%d connections are kept, and all have ended", n)
	}
}

func idleOf(c *Client) int {
	c.http1.mu.Lock()
	defer c.http1.mu.Unlock()
	return c.http1.count
}
