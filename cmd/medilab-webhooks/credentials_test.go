package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/medilab/webhooks/cmd/testbed/testcert"
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
	receiver := askingForCertificates(t, tls.RequestClientCert, mux)
	t.Setenv("MEDILAB_TOKEN", testToken)
	server, stop := serveHere(t)
	defer stop()
	certificate, key := testcert.PEM(t, testcert.New(t, nil, nil))
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
	receiver := askingForCertificates(t, tls.RequireAnyClientCert, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	certificate, key := testcert.PEM(t, testcert.New(t, nil, nil))
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

// askingForCertificates returns a server over TLS, which MEDILAB_CA_FILE trusts from now on.
func askingForCertificates(t *testing.T, asked tls.ClientAuthType, handler http.Handler) *httptest.Server {
	t.Helper()
	receiver := httptest.NewUnstartedServer(handler)
	receiver.TLS = &tls.Config{ClientAuth: asked}
	receiver.Config.ErrorLog = log.New(io.Discard, "", 0)
	receiver.StartTLS()
	t.Cleanup(receiver.Close)
	t.Setenv("MEDILAB_CA_FILE", testcert.File(t, receiver.Certificate()))
	return receiver
}
