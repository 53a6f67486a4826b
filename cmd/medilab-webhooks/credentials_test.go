package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A server calls with tokens and certificates, and trusts the authority of MEDILAB_CA_FILE at
// the token server too.
func TestCredentialsOfAServer(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"access_token":"the-access-token","token_type":"Bearer","expires_in":60}`)
	})
	mux.HandleFunc("POST /hook", func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) != 1 && r.Header.Get("Authorization") != "Bearer the-access-token" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	receiver := httptest.NewUnstartedServer(mux)
	receiver.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	receiver.Config.ErrorLog = log.New(io.Discard, "", 0)
	receiver.StartTLS()
	t.Cleanup(receiver.Close)
	trusted := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(trusted, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: receiver.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("MEDILAB_CA_FILE", trusted)
	t.Setenv("MEDILAB_TOKEN", testToken)
	server, stop := serveHere(t)
	defer stop()
	certificate, key := newCertificate(t)
	for i, auth := range []any{
		nil,
		map[string]string{"type": "oauth2", "token_url": receiver.URL + "/token", "client_id": "a", "client_secret": "b"},
		map[string]string{"type": "certificate", "certificate": certificate, "private_key": key},
	} {
		body, err := json.Marshal(map[string]any{"name": "W", "url": receiver.URL + "/hook", "events": []string{"*"}, "auth": auth})
		if err != nil {
			t.Fatal(err)
		}
		post(t, server+"/api/v1/webhooks", string(body), "")
		said := post(t, fmt.Sprintf("%s/api/v1/webhooks/%d/test", server, i+1), `{"event_type":"patient.created","test_data":{}}`, "")
		if want := fmt.Sprintf(`"response_status":%d`, map[bool]int{true: 401, false: 200}[auth == nil]); !strings.Contains(said, want) {
			t.Errorf("webhook %d lacks %s: %s", i+1, want, said)
		}
	}
}

// A command calls with a webhook's certificate, and shows such calls where it makes none.
func TestCertificatesOnTheCommandLine(t *testing.T) {
	c := newAPICLI(t, http.StatusOK)
	receiver := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	receiver.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	receiver.Config.ErrorLog = log.New(io.Discard, "", 0)
	receiver.StartTLS()
	t.Cleanup(receiver.Close)
	trusted := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(trusted, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: receiver.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("MEDILAB_CA_FILE", trusted)
	certificate, key := newCertificate(t)
	file, err := json.Marshal(map[string]any{"webhooks": []any{map[string]any{
		"name": "Clinic", "url": receiver.URL, "events": []string{"visit.*"}, "secret": strings.Repeat("s", 32),
		"auth": map[string]string{"type": "certificate", "certificate": certificate, "private_key": key},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	c.run(0, string(file), "webhooks", "apply", "-f", "-")
	c.run(0, "", "webhooks", "test", "2", "--data", `{"patient_id":"17"}`)
	c.fold()
	if lines, _ := c.run(0, "", "subjects", "export", "17"); !strings.Contains(lines, `"payload":"{`) || !strings.Contains(lines, receiver.URL) {
		t.Errorf("exported %s", lines)
	}
}

// newCertificate returns a certificate that signs itself, and its key, in PEM form.
func newCertificate(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "clinic"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}))
}
