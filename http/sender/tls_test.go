package sender

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/medilab/webhooks/cmd/testbed/testcert"
)

func writePEM(t *testing.T, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), strings.ToLower(kind)+".pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// keyOf returns the certificate's private key in PKCS #8.
func keyOf(t *testing.T, cert tls.Certificate) []byte {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// tlsServer answers 200 over TLS.
func tlsServer(t *testing.T, config *tls.Config) string {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.TLS = config
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL
}

func TestTLSFailuresHaveNames(t *testing.T) {
	ca := testcert.NewAuthority(t, "Test CA")
	good := testcert.New(t, ca, nil)
	caFile := writePEM(t, "CERTIFICATE", ca.Certificate.Raw)
	tests := []struct {
		name   string
		cert   tls.Certificate
		change func(*tls.Config)
		noCA   bool
		want   Outcome
	}{
		{name: "good", cert: good, want: Success},
		{name: "TLS 1.2", cert: good, change: func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, want: Success},
		{name: "expired", cert: testcert.New(t, ca, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) }), want: TLSExpired},
		{name: "not yet valid", cert: testcert.New(t, ca, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }), want: TLSExpired},
		{name: "wrong host", cert: testcert.New(t, ca, func(c *x509.Certificate) { c.IPAddresses = nil; c.DNSNames = []string{"other.example"} }), want: TLSWrongHost},
		{name: "self-signed", cert: testcert.New(t, nil, nil), want: TLSSelfSigned},
		{name: "unknown authority", cert: good, noCA: true, want: TLSUntrusted},
		{name: "TLS 1.1", cert: good, change: func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, want: TLSOldProtocol},
		{name: "asks for a client certificate", cert: good, change: func(c *tls.Config) {
			// In TLS 1.3 the refusal comes after the handshake and may be overtaken by a reset.
			c.ClientAuth, c.MaxVersion = tls.RequireAnyClientCert, tls.VersionTLS12
		}, want: TLSFailed},
		{name: "not for servers", cert: testcert.New(t, ca, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), want: TLSFailed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			config := &tls.Config{Certificates: []tls.Certificate{tt.cert}}
			if tt.change != nil {
				tt.change(config)
			}
			cfg := Config{AllowTargets: allow(t, "loopback"), CAFile: caFile}
			if tt.noCA {
				cfg.CAFile = ""
			}
			res := newClient(t, cfg).Send(t.Context(), request(tlsServer(t, config)))
			if res.Outcome != tt.want || (res.Error == "") != (tt.want == Success) {
				t.Errorf("%s (%s), want %s", res.Outcome, res.Error, tt.want)
			}
		})
	}
}

func TestPlainHTTPOnATLSAddress(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n"); err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
		}
	}()
	c := newClient(t, Config{AllowTargets: allow(t, "loopback")})
	if res := c.Send(t.Context(), request("https://"+l.Addr().String())); res.Outcome != TLSFailed || !strings.Contains(res.Error, "does not speak TLS") {
		t.Errorf("%s: %s", res.Outcome, res.Error)
	}
}

func TestHandshakeThatNeverEndsIsATimeout(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	t.Cleanup(func() { l.Close() })
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		// Ends when the client gives the connection up, which is what is tested.
		if _, err := io.Copy(io.Discard, c); err != nil {
			return
		}
	}()
	c := newClient(t, Config{AllowTargets: allow(t, "loopback")})
	req := request("https://" + l.Addr().String())
	req.Timeout = short
	if res := c.Send(t.Context(), req); res.Outcome != Timeout {
		t.Errorf("%s: %s", res.Outcome, res.Error)
	}
	select {
	case <-closed:
	case <-time.After(20 * time.Second):
		t.Error("the connection outlived its call")
	}
}

func TestClientCertificateIsShown(t *testing.T) {
	ca := testcert.NewAuthority(t, "Test CA")
	pool := x509.NewCertPool()
	pool.AddCert(ca.Certificate)
	url := tlsServer(t, &tls.Config{Certificates: []tls.Certificate{testcert.New(t, ca, nil)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool})
	client := testcert.New(t, ca, nil)
	c := newClient(t, Config{
		AllowTargets: allow(t, "loopback"), CAFile: writePEM(t, "CERTIFICATE", ca.Certificate.Raw),
		ClientCertFile: writePEM(t, "CERTIFICATE", client.Certificate[0]), ClientKeyFile: writePEM(t, "PRIVATE KEY", keyOf(t, client)),
	})
	if res := c.Send(t.Context(), request(url)); res.Outcome != Success {
		t.Errorf("%s: %s", res.Outcome, res.Error)
	}
}

func TestFilesThatCannotBeUsed(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]Config{
		"no CA file": {CAFile: "/nonexistent"}, "empty CA file": {CAFile: empty}, "no client certificate": {ClientCertFile: "/nonexistent"},
		"no proxy": {Proxy: "nonsense"},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
