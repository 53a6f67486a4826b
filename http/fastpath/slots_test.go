package fastpath_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/medilab/webhooks/http/fastpath"
)

// crowded is a server for few connections. A request to /hold is held until release.
type crowded struct {
	addr    string
	dial    func() (net.Conn, error)
	held    chan struct{} // a token for each
	release func()        // answers them, and later ones
}

const fewConns = 8

func newCrowded(t *testing.T, secure bool) *crowded {
	t.Helper()
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &crowded{addr: raw.Addr().String(), held: make(chan struct{}, 8*fewConns)}
	released, release := context.WithCancel(context.Background())
	c.release = release
	c.dial = func() (net.Conn, error) { return net.Dial("tcp", c.addr) }
	handler := nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if r.URL.Path == "/hold" {
			c.held <- struct{}{}
			<-released.Done()
		}
		_, _ = io.WriteString(w, "ok")
	})
	config := fastpath.Config{MaxConns: fewConns, ReadTimeout: time.Minute, IdleTimeout: time.Minute, Handler: handler, Paths: []string{"/hold", "/fast"}}
	server := &nethttp.Server{Handler: handler, ConnState: fastpath.ConnState}
	if secure {
		certificate, pool := newCertificate(t)
		config.TLS, server.TLSConfig = certificate, certificate.Clone()
		c.dial = func() (net.Conn, error) { return tls.Dial("tcp", c.addr, &tls.Config{RootCAs: pool}) }
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(fastpath.NewListener(raw, config)) }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		<-served
	})
	t.Cleanup(c.release) // first
	return c
}

// ask makes a request on a connection and returns the status.
func ask(conn net.Conn, request string) (int, error) {
	if _, err := io.WriteString(conn, request+" HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"); err != nil {
		return 0, err
	}
	return readStatus(conn)
}

func readStatus(conn net.Conn) (int, error) {
	resp, err := nethttp.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// Clients that wait, in whatever state, keep nobody out, and lose nothing that is under way.
func TestIdleConnectionsMakeRoom(t *testing.T) {
	for _, secure := range []bool{false, true} {
		c := newCrowded(t, secure)
		open := func() net.Conn {
			t.Helper()
			conn, err := c.dial()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
			return conn
		}
		var busy []net.Conn
		for _, request := range []string{"POST /hold", "GET /hold"} { // by the fast path, and by net/http
			conn := open()
			if _, err := fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", request); err != nil {
				t.Fatal(err)
			}
			<-c.held
			busy = append(busy, conn)
		}
		for i := range 5 * fewConns {
			conn := open()
			switch i % 4 {
			case 0: // says nothing
			case 1:
				if status, err := ask(conn, "POST /fast"); status != 200 {
					t.Fatal(status, err)
				}
			case 2:
				if status, err := ask(conn, "GET /healthz"); status != 200 {
					t.Fatal(status, err)
				}
			case 3: // never ends its request
				if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\n"); err != nil {
					t.Fatal(err)
				}
			}
		}
		if status, err := ask(open(), "GET /healthz"); status != 200 {
			t.Errorf("nobody else gets in: %v", err)
		}
		c.release()
		for _, conn := range busy {
			if status, err := readStatus(conn); status != 200 {
				t.Errorf("a request was cut off: %v", err)
			}
		}
	}
}

// When all are at work, new connections are refused at once, and come in later.
func TestBusyConnectionsAreKept(t *testing.T) {
	c := newCrowded(t, false)
	var busy []net.Conn
	for range fewConns {
		conn, err := c.dial()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		<-c.held
		busy = append(busy, conn)
	}
	if conn, err := c.dial(); err == nil {
		if status, err := ask(conn, "GET /healthz"); err == nil {
			t.Errorf("one too many is answered %d", status)
		}
		_ = conn.Close()
	}
	c.release()
	for _, conn := range busy {
		if status, err := readStatus(conn); status != 200 {
			t.Errorf("a request was cut off: %v", err)
		}
	}
	conn, err := c.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if status, err := ask(conn, "GET /healthz"); status != 200 {
		t.Errorf("afterwards: %v", err)
	}
}

// A connection of HTTP/2 is at work while it has a stream.
func TestHTTP2ConnectionsMakeRoomToo(t *testing.T) {
	c := newCrowded(t, true)
	//lint:ignore SA1019 its connections are those that the test opened
	client := func() *http2.ClientConn {
		t.Helper()
		conn, err := tls.Dial("tcp", c.addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}) //nolint:gosec // ours
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		//lint:ignore SA1019 as above
		h2, err := new(http2.Transport).NewClientConn(conn)
		if err != nil {
			t.Fatal(err)
		}
		return h2
	}
	//lint:ignore SA1019 as above
	get := func(h2 *http2.ClientConn, path string) error {
		r, err := nethttp.NewRequestWithContext(t.Context(), nethttp.MethodGet, "https://a"+path, nil)
		if err != nil {
			return err
		}
		resp, err := h2.RoundTrip(r)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	}
	busy, answered := client(), make(chan error, 1)
	go func() { answered <- get(busy, "/hold") }()
	<-c.held
	for range 3 * fewConns {
		if err := get(client(), "/healthz"); err != nil {
			t.Fatal(err)
		}
	}
	c.release()
	if err := <-answered; err != nil {
		t.Errorf("a request was cut off: %v", err)
	}
}
