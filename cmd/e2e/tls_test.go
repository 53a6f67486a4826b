package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/medilab/webhooks/cmd/testbed/testcert"
)

// Each way in which TLS fails has its name and its words in the call log.
func TestTLSFailures(t *testing.T) {
	t.Parallel()
	known, unknown, system := testcert.NewAuthority(t, "The clinic's authority"), testcert.NewAuthority(t, "Somebody's authority"), testcert.NewAuthority(t, "The machine's authority")
	good := testcert.New(t, known, nil)
	cases := []struct {
		name           string
		certificate    tls.Certificate
		change         func(*tls.Config)
		outcome, words string
	}{
		{name: "good", certificate: good, outcome: "success"},
		{name: "good by the machine's own authorities", certificate: testcert.New(t, system, nil), outcome: "success"},
		{name: "expired", certificate: testcert.New(t, known, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) }), outcome: "tls_expired", words: "valid from"},
		{name: "not valid yet", certificate: testcert.New(t, known, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }), outcome: "tls_expired", words: "valid from"},
		{name: "another host", certificate: testcert.New(t, known, func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"other.example"} }), outcome: "tls_wrong_host", words: "127.0.0.1"},
		{name: "self-signed", certificate: testcert.New(t, nil, nil), outcome: "tls_self_signed", words: "MEDILAB_CA_FILE"},
		{name: "an unknown authority", certificate: testcert.New(t, unknown, nil), outcome: "tls_untrusted", words: "unknown authority"},
		{name: "TLS 1.1", certificate: good, change: func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, outcome: "tls_old_protocol", words: "1.2"},
		{name: "a client certificate", certificate: good, change: func(c *tls.Config) {
			// In TLS 1.3 the refusal comes after the handshake, and a reset may overtake it.
			c.ClientAuth, c.MaxVersion = tls.RequireAnyClientCert, tls.VersionTLS12
		}, outcome: "tls_failed", words: "TLS"},
		{name: "a certificate of a client", certificate: testcert.New(t, known, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), outcome: "tls_failed", words: "certificate"},
	}
	p := start(t, "MEDILAB_CA_FILE="+testcert.File(t, known.Certificate), "SSL_CERT_FILE="+testcert.File(t, system.Certificate))
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
