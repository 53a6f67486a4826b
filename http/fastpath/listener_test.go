package fastpath_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log"
	"math/big"
	"net"
	nethttp "net/http"
	"strings"
	"testing"
	"time"

	"github.com/medilab/webhooks/http"
	"github.com/medilab/webhooks/http/fastpath"
	"github.com/medilab/webhooks/http/texts"
)

// serveListener serves what is not refused before: 400 with a text of the handler's own
// for /own, else 200 with the request's body. secure is nil for plain HTTP.
func serveListener(t *testing.T, secure *tls.Config, patience time.Duration) (addr string) {
	t.Helper()
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener := fastpath.NewListener(raw, fastpath.Config{TLS: secure, ReadTimeout: patience, Refuse: http.NewProbes(http.Config{}).Refuse})
	server := &nethttp.Server{
		TLSConfig: secure.Clone(), MaxHeaderBytes: 4 << 10, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0),
		Handler: nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
			w.Header().Set("X-Proto", r.Proto)
			if r.URL.Path == "/own" {
				w.Header().Set("Content-Type", "text/plain; charset=utf-8")
				w.Header().Set("Connection", "close")
				w.WriteHeader(400)
			}
			_, _ = io.Copy(w, r.Body)
		}),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		<-served
	})
	return raw.Addr().String()
}

func newCertificate(t *testing.T) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, pool
}

// What net/http refuses by itself is a problem like others, with its own status, in the language
// and with the request id that the request asks for; the connection ends.
func TestRefusalsOfTheServerAreProblems(t *testing.T) {
	config, pool := newCertificate(t)
	plain, secure := serveListener(t, nil, 0), serveListener(t, config, time.Minute)
	dials := map[string]func() (net.Conn, error){
		"HTTP":  func() (net.Conn, error) { return net.Dial("tcp", plain) },
		"HTTPS": func() (net.Conn, error) { return tls.Dial("tcp", secure, &tls.Config{RootCAs: pool}) },
		"HTTPS that names HTTP/1.1": func() (net.Conn, error) {
			return tls.Dial("tcp", secure, &tls.Config{RootCAs: pool, NextProtos: []string{"http/1.1"}})
		},
	}
	const unreadable, noForm = "The request cannot be read", "the request line or a header does not follow HTTP/1.1"
	for name, tt := range map[string]struct {
		line, rest string // what the request is
		status     int
		title      string
		detail     string
	}{
		"no HTTP":             {"no HTTP at all", "", 400, unreadable, noForm},
		"no host":             {"GET / HTTP/1.1", "", 400, unreadable, "missing required Host header"},
		"two hosts":           {"GET / HTTP/1.1", "Host: a\r\nHost: b\r\n", 400, unreadable, noForm},
		"a bad host":          {"GET / HTTP/1.1", "Host: a b\r\n", 400, unreadable, "malformed Host header"},
		"a bad header":        {"GET / HTTP/1.1", "Host: a\r\nX Y: a\r\n", 400, unreadable, "invalid header name"},
		"no colon":            {"GET / HTTP/1.1", "Host: a\r\nXY\r\n", 400, unreadable, noForm},
		"a bad value":         {"GET / HTTP/1.1", "Host: a\r\nX-A: a\x01\r\n", 400, unreadable, noForm},
		"two lengths":         {"POST / HTTP/1.1", "Host: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n", 400, unreadable, noForm},
		"large headers":       {"GET / HTTP/1.1", "Host: a\r\nX-A: " + strings.Repeat("a", 20<<10) + "\r\n", 431, "The headers of the request are too large", "the request line and the headers may have up to 64 KB in all"},
		"an unknown encoding": {"POST / HTTP/1.1", "Host: a\r\nTransfer-Encoding: rot13\r\n", 501, "The body comes in an unknown transfer encoding", "the only transfer encoding is chunked"},
		"an unknown version":  {"GET / HTTP/3.7", "Host: a\r\n", 505, "The request is of an unknown version of HTTP", "unsupported protocol version"},
		"an expectation":      {"POST / HTTP/1.1", "Host: a\r\nExpect: miracles\r\nContent-Length: 0\r\n", 417, "The request expects what there is not", "expect nothing but 100-continue"},
	} {
		for over, dial := range dials {
			check := func(fields, before string) (title, detail, id string) {
				conn, err := dial()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.WriteString(conn, before+tt.line+"\r\n"+fields+tt.rest+"\r\n"); err != nil {
					t.Fatal(err)
				}
				r := bufio.NewReader(conn)
				if before != "" {
					if first, err := nethttp.ReadResponse(r, nil); err != nil || first.StatusCode != 200 {
						t.Fatalf("%s over %s: %v, %v", name, over, first, err)
					}
				}
				response, err := nethttp.ReadResponse(r, nil)
				if err != nil {
					t.Fatalf("%s over %s: %v", name, over, err)
				}
				var got struct {
					Type, Title, Detail string
					Status              int
					RequestID           string `json:"request_id"`
				}
				if err := json.NewDecoder(response.Body).Decode(&got); err != nil {
					t.Errorf("%s over %s: %v", name, over, err)
				}
				if response.StatusCode != tt.status || got.Status != tt.status || !strings.HasPrefix(got.Type, "urn:medilab:problem:") ||
					got.RequestID == "" || response.Header.Get("X-Request-Id") != got.RequestID || response.Header.Get("Vary") != "Accept-Language" ||
					response.Header.Get("Content-Type") != "application/problem+json" || !response.Close {
					t.Errorf("%s over %s: %s %v %+v", name, over, response.Status, response.Header, got)
				}
				if err := conn.Close(); err != nil && tt.status != 431 {
					t.Error(err)
				}
				return got.Title, got.Detail, got.RequestID
			}
			if title, detail, id := check("", ""); title != tt.title || detail != tt.detail {
				t.Errorf("%s over %s: %q, %q, %s", name, over, title, detail, id)
			}
			wantTitle, _ := texts.Russian(tt.title)
			wantDetail, ok := texts.Russian(tt.detail)
			if !ok {
				t.Errorf("%q has no Russian", tt.detail)
			}
			if title, detail, id := check("Accept-Language: ru\r\nx-request-id: mine\r\n", ""); title != wantTitle || detail != wantDetail || id != "mine" {
				t.Errorf("%s over %s in Russian: %q, %q, %s", name, over, title, detail, id)
			}
			// What another request asked for is not taken for what this one asks for.
			if title, _, id := check("", "GET / HTTP/1.1\r\nHost: a\r\nAccept-Language: ru\r\nX-Request-Id: theirs\r\n\r\n"); title != tt.title || id == "theirs" {
				t.Errorf("%s over %s, after another: %q, %s", name, over, title, id)
			}
		}
	}
}

// A handler's own answer is not taken for one of the server's, whatever it says.
func TestAnswersOfHandlersStayAsTheyAre(t *testing.T) {
	const text = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n400 Bad Request: no"
	config, pool := newCertificate(t)
	plain, secure := serveListener(t, nil, 0), serveListener(t, config, time.Minute)
	over2 := &nethttp.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	over1 := &nethttp.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(over1.CloseIdleConnections)
	t.Cleanup(over2.CloseIdleConnections)
	for url, via := range map[string]*nethttp.Transport{"http://" + plain: over1, "https://" + secure: over1, "https://" + secure + "/": over2} {
		for path, want := range map[string]int{"/own": 400, "/": 200} {
			request, err := nethttp.NewRequestWithContext(t.Context(), "POST", strings.TrimSuffix(url, "/")+path, strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			response, err := via.RoundTrip(request)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(response.Body)
			if err != nil || string(body) != text || response.StatusCode != want {
				t.Errorf("%s: %s %q, %v", url+path, response.Status, body, err)
			}
			if proto := response.Header.Get("X-Proto"); (proto == "HTTP/2.0") != (via == over2) {
				t.Errorf("%s: %s", url, proto)
			}
			if err := response.Body.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// Clients that begin a handshake and never end it are in nobody's way, are let go, and
// do not keep a server from ending; who speaks no TLS is told.
func TestHandshakesAreNobodyElsesMatter(t *testing.T) {
	config, pool := newCertificate(t)
	impatient := serveListener(t, config, 50*time.Millisecond)
	patient := serveListener(t, config, time.Hour) // the end of the test ends it
	for range 20 {
		for _, addr := range []string{impatient, patient} {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			if _, err := io.WriteString(conn, "\x16\x03\x01"); err != nil {
				t.Fatal(err)
			}
			if addr == impatient {
				if _, err := io.Copy(io.Discard, conn); err != nil && !strings.Contains(err.Error(), "reset") {
					t.Fatal(err) // it ends only when the server lets it go
				}
			}
		}
	}
	via := &nethttp.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(via.CloseIdleConnections)
	response, err := (&nethttp.Client{Transport: via}).Get("https://" + patient)
	if err != nil || response.StatusCode != 200 {
		t.Fatalf("%v, %v", response, err)
	}
	if err := response.Body.Close(); err != nil {
		t.Error(err)
	}

	conn, err := net.Dial("tcp", patient)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // its answer is all we want
	if _, err := io.WriteString(conn, "GET /"); err != nil {
		t.Fatal(err)
	}
	response, err = nethttp.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != 400 || response.Header.Get("Content-Type") != "application/problem+json" || !strings.Contains(string(body), "https://") {
		t.Errorf("%s %s, %v", response.Status, body, err)
	}
}
