package main

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	nethttp "net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/medilab/webhooks/http"
	"github.com/medilab/webhooks/http/fastpath"
)

// serveBehind answers requests with the client's address, on a listener that takes it from
// trusted proxies.
func serveBehind(t *testing.T, trusted string, secure *tls.Config) (address string) {
	t.Helper()
	proxies, err := http.ParseProxies(trusted)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	answer := nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		w.Header().Set("Content-Length", "15")
		_, _ = io.WriteString(w, (r.RemoteAddr + strings.Repeat(" ", 15))[:15]) // else the client misses it
	})
	slow := nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if r.URL.Path == "/fast" {
			w.WriteHeader(nethttp.StatusTeapot) // it should not have come here
		}
		answer(w, r)
	})
	web := &nethttp.Server{Handler: slow, ConnState: fastpath.ConnState, TLSConfig: secure}
	front := fastpath.NewListener(behindProxies(raw, proxies), fastpath.Config{Handler: answer, Paths: []string{"/fast"}, ReadTimeout: 5e9, IdleTimeout: 5e9, TLS: secure})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = web.Serve(front) // closed below
	}()
	t.Cleanup(func() {
		_ = web.Close()
		<-done
	})
	return raw.Addr().String()
}

// ask sends a PROXY header, if any, and a request of each way of serving, and returns who the
// server takes for the client; "" where it closes the connection.
func ask(t *testing.T, address, header string, secure *tls.Config) (clients [2]string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // all was read
	if _, err := io.WriteString(conn, header); err != nil {
		t.Fatal(err)
	}
	if secure != nil {
		conn = tls.Client(conn, secure)
	}
	in := bufio.NewReader(conn)
	for i, request := range []string{"POST /fast HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}", "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"} {
		if _, err := io.WriteString(conn, request); err != nil {
			return clients
		}
		answer, err := nethttp.ReadResponse(in, nil)
		if err != nil {
			return clients
		}
		body, err := io.ReadAll(answer.Body)
		if err != nil || answer.StatusCode != 200 {
			return clients
		}
		clients[i] = strings.TrimSpace(string(body))
	}
	return clients
}

func TestPROXYHeaders(t *testing.T) {
	const (
		v1    = "PROXY TCP4 203.0.113.7 192.0.2.1 1234 443\r\n"
		local = "PROXY UNKNOWN\r\n"
	)
	v2 := "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xcb\x00\x71\x07\xc0\x00\x02\x01\x04\xd2\x01\xbb"
	trusting, wary := serveBehind(t, "127.0.0.0/8", nil), serveBehind(t, "10.0.0.0/8", nil)
	client := "203.0.113.7:123"
	for header, want := range map[string][2]string{v1: {client, client}, v2: {client, client}, "": {}, "PROXY TCP4 nonsense\r\n": {}} {
		if got := ask(t, trusting, header, nil); got != want {
			t.Errorf("after %q a trusted proxy's client is %q, want %q", header, got, want)
		}
	}
	if got := ask(t, trusting, local, nil); !strings.HasPrefix(got[0], "127.0.0.1:") || !strings.HasPrefix(got[1], "127.0.0.1:") {
		t.Errorf("the proxy's own check is from %q", got)
	}
	if got := ask(t, wary, "", nil); !strings.HasPrefix(got[0], "127.0.0.1:") || !strings.HasPrefix(got[1], "127.0.0.1:") {
		t.Errorf("a client that is no proxy is %q", got)
	}
	if got := ask(t, wary, v1, nil); got != ([2]string{}) {
		t.Errorf("a client that is no proxy becomes %q", got)
	}

	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeCertificate(t, certFile, keyFile, 1)
	certificate, err := loadCertificate(certFile, keyFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	secure := serveBehind(t, "127.0.0.0/8", certificate.config())
	if got := ask(t, secure, v2, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}); got != ([2]string{client, client}) { //nolint:gosec // whoever it is
		t.Errorf("over TLS the client is %q", got)
	}
}
