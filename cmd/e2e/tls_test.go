package e2e

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

// authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) authority {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	key := newKey(t)
	return authority{signed(t, template, template, key, key), key}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func signed(t *testing.T, template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

// certify makes a certificate of 127.0.0.1, unless change says otherwise; one without an
// authority is signed by itself.
func certify(t *testing.T, by authority, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "receiver"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(template)
	}
	key := newKey(t)
	parent, signer := template, key
	if by.key != nil {
		parent, signer = by.certificate, by.key
	}
	return tls.Certificate{Certificate: [][]byte{signed(t, template, parent, key, signer).Raw}, PrivateKey: key}
}

// Each way in which TLS fails has its name and its words in the call log.
func TestTLSFailures(t *testing.T) {
	t.Parallel()
	known, unknown, system := newAuthority(t, "The clinic's authority"), newAuthority(t, "Somebody's authority"), newAuthority(t, "The machine's authority")
	bundle := func(name string, a authority) string {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	good := certify(t, known, nil)
	cases := []struct {
		name           string
		certificate    tls.Certificate
		change         func(*tls.Config)
		outcome, words string
	}{
		{name: "good", certificate: good, outcome: "success"},
		{name: "good by the machine's own authorities", certificate: certify(t, system, nil), outcome: "success"},
		{name: "expired", certificate: certify(t, known, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) }), outcome: "tls_expired", words: "valid from"},
		{name: "not valid yet", certificate: certify(t, known, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }), outcome: "tls_expired", words: "valid from"},
		{name: "another host", certificate: certify(t, known, func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"other.example"} }), outcome: "tls_wrong_host", words: "127.0.0.1"},
		{name: "self-signed", certificate: certify(t, authority{}, nil), outcome: "tls_self_signed", words: "MEDILAB_CA_FILE"},
		{name: "an unknown authority", certificate: certify(t, unknown, nil), outcome: "tls_untrusted", words: "unknown authority"},
		{name: "TLS 1.1", certificate: good, change: func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, outcome: "tls_old_protocol", words: "1.2"},
		{name: "a client certificate", certificate: good, change: func(c *tls.Config) {
			// In TLS 1.3 the refusal comes after the handshake, and a reset may overtake it.
			c.ClientAuth, c.MaxVersion = tls.RequireAnyClientCert, tls.VersionTLS12
		}, outcome: "tls_failed", words: "TLS"},
		{name: "a certificate of a client", certificate: certify(t, known, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), outcome: "tls_failed", words: "certificate"},
	}
	p := start(t, "MEDILAB_CA_FILE="+bundle("ca.pem", known), "SSL_CERT_FILE="+bundle("system.pem", system))
	webhooks := make([]webhook, len(cases))
	for i, c := range cases {
		receiver := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		receiver.TLS = &tls.Config{Certificates: []tls.Certificate{c.certificate}}
		receiver.Config.ErrorLog = log.New(io.Discard, "", 0)
		if c.change != nil {
			c.change(receiver.TLS)
		}
		receiver.StartTLS()
		t.Cleanup(receiver.Close)
		webhooks[i] = p.register(receiver.URL, `{"max_retries":0}`)
	}
	p.trigger(`{"event_type":"visit.created","event_data":{}}`)
	for i, c := range cases {
		got := p.awaitCalls(webhooks[i].ID, 1)[0]
		if got.Outcome != c.outcome || (got.Error == nil) != (c.outcome == "success") || !strings.Contains(text(got.Error), c.words) || (got.ResponseStatus == nil) != (c.outcome != "success") {
			t.Errorf("%s: %s, %s", c.name, got.Outcome, text(got.Error))
		}
	}
}
