package sender

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// authority signs the certificates of a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	key := newKey(t)
	return &authority{cert: sign(t, tmpl, tmpl, key, key), key: key}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t *testing.T, tmpl, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// leaf is a certificate for 127.0.0.1 unless change says otherwise; without an
// authority it signs itself.
func leaf(t *testing.T, ca *authority, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "receiver"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(tmpl)
	}
	key := newKey(t)
	parent, signer := tmpl, key
	if ca != nil {
		parent, signer = ca.cert, ca.key
	}
	cert := sign(t, tmpl, parent, key, signer)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

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
	ca := newAuthority(t)
	good := leaf(t, ca, nil)
	caFile := writePEM(t, "CERTIFICATE", ca.cert.Raw)
	tests := []struct {
		name   string
		cert   tls.Certificate
		change func(*tls.Config)
		noCA   bool
		want   Outcome
	}{
		{name: "good", cert: good, want: Success},
		{name: "TLS 1.2", cert: good, change: func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, want: Success},
		{name: "expired", cert: leaf(t, ca, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) }), want: TLSExpired},
		{name: "not yet valid", cert: leaf(t, ca, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }), want: TLSExpired},
		{name: "wrong host", cert: leaf(t, ca, func(c *x509.Certificate) { c.IPAddresses = nil; c.DNSNames = []string{"other.example"} }), want: TLSWrongHost},
		{name: "self-signed", cert: leaf(t, nil, nil), want: TLSSelfSigned},
		{name: "unknown authority", cert: good, noCA: true, want: TLSUntrusted},
		{name: "TLS 1.1", cert: good, change: func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, want: TLSOldProtocol},
		{name: "asks for a client certificate", cert: good, change: func(c *tls.Config) {
			// In TLS 1.3 the refusal comes after the handshake and may be overtaken by a reset.
			c.ClientAuth, c.MaxVersion = tls.RequireAnyClientCert, tls.VersionTLS12
		}, want: TLSFailed},
		{name: "not for servers", cert: leaf(t, ca, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), want: TLSFailed},
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
	ca := newAuthority(t)
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	url := tlsServer(t, &tls.Config{Certificates: []tls.Certificate{leaf(t, ca, nil)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool})
	client := leaf(t, ca, nil)
	c := newClient(t, Config{
		AllowTargets: allow(t, "loopback"), CAFile: writePEM(t, "CERTIFICATE", ca.cert.Raw),
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
