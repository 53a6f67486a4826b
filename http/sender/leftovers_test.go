package sender

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/medilab/webhooks/cmd/testbed/testcert"
)

// newTLSReceiver is newReceiver over TLS, and a client that trusts it and knows that
// it speaks HTTP/1.1.
func newTLSReceiver(t *testing.T, change func(*tls.Config), answer func(net.Conn, *http.Request, <-chan struct{}) bool) (*Client, *receiver) {
	t.Helper()
	ca := testcert.NewAuthority(t, "Test CA")
	config := &tls.Config{Certificates: []tls.Certificate{testcert.New(t, ca, nil)}}
	if change != nil {
		change(config)
	}
	r := serveOn(t, tls.NewListener(togetherListener{listen(t, "127.0.0.1:0")}, config), answer)
	r.url = strings.Replace(r.url, "http:", "https:", 1)
	c := newClient(t, Config{AllowTargets: allow(t, "loopback"), CAFile: writePEM(t, "CERTIFICATE", ca.Certificate.Raw)})
	speakHTTP1(t, c, r.url)
	return c, r
}

// togetherListener accepts connections that send together what is written before the
// next read: several TLS records arrive at once.
type togetherListener struct{ net.Listener }

func (l togetherListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return &togetherConn{Conn: c}, err
}

type togetherConn struct {
	net.Conn
	mu      sync.Mutex // the end of a test closes what still reads
	written []byte
}

func (c *togetherConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.written = append(c.written, p...)
	return len(p), nil
}

func (c *togetherConn) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.Conn.Write(c.written)
	c.written = nil
	return err
}

func (c *togetherConn) Read(p []byte) (int, error) {
	if err := c.flush(); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *togetherConn) Close() error {
	return errors.Join(c.SetWriteDeadline(time.Time{}), c.flush(), c.Conn.Close()) // TLS let it pass
}

func speakHTTP1(t *testing.T, c *Client, url string) {
	t.Helper()
	e, err := c.endpoint(url)
	if err != nil {
		t.Fatal(err)
	}
	e.speaksHTTP1.Store(true)
}

// eachTransport runs a test over TCP and over both versions of TLS.
func eachTransport(t *testing.T, answer func(net.Conn, *http.Request, <-chan struct{}) bool, test func(t *testing.T, c *Client, r *receiver)) {
	t.Helper()
	t.Run("TCP", func(t *testing.T) {
		r := serveOn(t, togetherListener{listen(t, "127.0.0.1:0")}, answer)
		test(t, newClient(t, Config{AllowTargets: allow(t, "loopback")}), r)
	})
	for name, version := range map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			c, r := newTLSReceiver(t, func(config *tls.Config) { config.MaxVersion = version }, answer)
			test(t, c, r)
		})
	}
}

// What a receiver sends beyond its answer becomes nobody's answer, and no receiver
// that does so, or closes with its answer, spoils a call.
func TestLeftoversAreNobodys(t *testing.T) {
	const unasked = "HTTP/1.1 500 Unasked\r\nContent-Length: 0\r\n\r\n"
	for name, answer := range map[string]string{ // in two records, the first a header
		"second answer":     empty200 + unasked,
		"one byte too many": "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok!",
		"204 with a body":   "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nempty",
		"204 with a chunk":  "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		"304 with a body":   "HTTP/1.1 304 Not Modified\r\n\r\nsame",
		"large body of 204": "HTTP/1.1 204 No Content\r\n\r\n" + strings.Repeat("a", 20<<10),
	} {
		t.Run(name, func(t *testing.T) {
			first, rest, _ := strings.Cut(answer, "\r\n\r\n")
			eachTransport(t, twoRecords(first+"\r\n\r\n", rest), func(t *testing.T, c *Client, r *receiver) {
				for n := range 4 {
					res := c.Send(t.Context(), request(r.url))
					if res.Status == 0 || res.Status == 500 || res.Outcome != Success && res.Status != 304 {
						t.Fatalf("call %d: %s, status %d (%s)", n+1, res.Outcome, res.Status, res.Error)
					}
				}
				if n := r.requests.Load(); n != 4 {
					t.Errorf("the receiver saw %d requests, want 4", n)
				}
			})
		})
	}
}

// twoRecords sends the second part in a TLS record of its own.
func twoRecords(first, second string) func(net.Conn, *http.Request, <-chan struct{}) bool {
	return func(c net.Conn, _ *http.Request, _ <-chan struct{}) bool {
		_, err := io.WriteString(c, first)
		if err == nil {
			_, err = io.WriteString(c, second)
		}
		return err == nil
	}
}

// A leftover that arrives whole or in part while the connection is idle is found.
func TestLeftoverOfAnIdleConnection(t *testing.T) {
	said := make(chan struct{}, 2)
	eachTransport(t, func(c net.Conn, req *http.Request, quit <-chan struct{}) bool {
		defer func() { said <- struct{}{} }()
		defer func() {
			if over, ok := c.(*tls.Conn); ok {
				c = over.NetConn()
			}
			c.(*togetherConn).flush()
		}()
		return twoRecords(empty200, "HTTP/1.1 500 Unasked\r\nContent-Length: 0\r\n\r\n")(c, req, quit)
	}, func(t *testing.T, c *Client, r *receiver) {
		for n := range 2 {
			if res := c.Send(t.Context(), request(r.url)); res.Outcome != Success {
				t.Fatalf("call %d: %s (%s)", n+1, res.Outcome, res.Error)
			}
			<-said
		}
		if n := r.conns.Load(); n != 2 {
			t.Errorf("%d connections, want 2: the first had something left to say", n)
		}
	})
}

// A receiver that goes on talking is found out before its first connection is reused.
func TestLeftoverThatComesLater(t *testing.T) {
	answered := make(chan struct{})
	r := newReceiver(t, func(c net.Conn, req *http.Request, quit <-chan struct{}) bool {
		if !say(empty200)(c, req, quit) {
			return false
		}
		<-answered
		return say("HTTP/1.1 500 Unasked\r\nContent-Length: 0\r\n\r\n")(c, req, quit)
	})
	c := newClient(t, Config{AllowTargets: allow(t, "loopback")})
	c.http1.settle = time.Hour // the leftover ends it
	for n := range 3 {
		if res := c.Send(t.Context(), request(r.url)); res.Outcome != Success {
			t.Fatalf("call %d: %s (%s)", n+1, res.Outcome, res.Error)
		}
		if n == 0 {
			close(answered)
		}
	}
	if n := r.conns.Load(); n != 3 {
		t.Errorf("%d connections, want 3", n)
	}
}

// Half a TLS record is a leftover as well: its other half would come later.
func TestHalfARecordIsALeftover(t *testing.T) {
	said := make(chan struct{}, 2)
	c, r := newTLSReceiver(t, nil, func(c net.Conn, req *http.Request, quit <-chan struct{}) bool {
		defer func() { said <- struct{}{} }()
		record := []byte{23, 3, 3, 0, 100} // application data, 100 bytes
		below := c.(*tls.Conn).NetConn().(*togetherConn)
		return say(empty200)(c, req, quit) && say("%s", record)(below, req, quit) && below.flush() == nil
	})
	for range 2 {
		if res := c.Send(t.Context(), request(r.url)); res.Outcome != Success {
			t.Fatalf("%s (%s)", res.Outcome, res.Error)
		}
		<-said
	}
	if n := r.conns.Load(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}

// A connection that the receiver closes properly with its answer fails no call.
func TestCloseNotifyWithTheAnswer(t *testing.T) {
	eachTransport(t, sayAndClose(empty200), func(t *testing.T, c *Client, r *receiver) {
		for n := range 4 {
			if res := c.Send(t.Context(), request(r.url)); res.Outcome != Success {
				t.Fatalf("call %d: %s (%s)", n+1, res.Outcome, res.Error)
			}
		}
	})
}

// Connections that hold nothing are reused over TLS, whatever the handshake leaves
// in them: TLS 1.3 sends session tickets after it.
func TestQuietConnectionsAreReused(t *testing.T) {
	eachTransport(t, say(empty200), func(t *testing.T, c *Client, r *receiver) {
		for range 5 {
			if res := c.Send(t.Context(), request(r.url)); res.Outcome != Success {
				t.Fatalf("%s (%s)", res.Outcome, res.Error)
			}
		}
		if n := r.conns.Load(); n != 1 {
			t.Errorf("%d connections for five calls, want 1", n)
		}
	})
}
