package http_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/medilab/webhooks/cmd/testbed/testcert"
	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/http/sender"
)

// tokenServer issues access tokens for client credentials (RFC 6749, section 4.4), and is the
// receiver that takes them.
type tokenServer struct {
	*httptest.Server
	mu      sync.Mutex
	issued  []string
	valid   string   // the token that the receiver takes
	scopes  []string // that were asked for
	calls   []string // the Authorization of each call
	failing bool
}

const clientSecret = "the-client-secret-of-crm" //nolint:gosec // of a test

func newTokenServer(t *testing.T) *tokenServer {
	t.Helper()
	s := new(tokenServer)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", s.issue)
	mux.HandleFunc("POST /hook", s.receive)
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func (s *tokenServer) issue(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, secret, _ := r.BasicAuth()
	w.Header().Set("Content-Type", "application/json")
	switch {
	case r.FormValue("grant_type") != "client_credentials":
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error":"unsupported_grant_type"}`)
	case id != "crm" || secret != clientSecret || s.failing:
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintf(w, `{"error":"invalid_client","error_description":"not the secret: %s"}`, secret)
	default:
		s.valid = fmt.Sprintf("access-token-number-%d", len(s.issued)+1)
		s.issued = append(s.issued, s.valid)
		s.scopes = append(s.scopes, r.FormValue("scope"))
		fmt.Fprintf(w, `{"access_token":%q,"token_type":"bearer","expires_in":3600}`, s.valid)
	}
}

func (s *tokenServer) receive(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, r.Header.Get("Authorization"))
	if s.valid != "" && r.Header.Get("Authorization") != "Bearer "+s.valid {
		w.WriteHeader(http.StatusUnauthorized)
	}
	fmt.Fprintf(w, "you sent %s", r.Header.Get("Authorization"))
}

func (s *tokenServer) revoke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.valid = "another"
}

// saw returns how many tokens were issued, and the Authorization of the last call.
func (s *tokenServer) saw() (issued, calls int, last string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.calls) > 0 {
		last = s.calls[len(s.calls)-1]
	}
	return len(s.issued), len(s.calls), last
}

func (s *tokenServer) auth(secret string) string {
	return `{"type":"oauth2","token_url":"` + s.URL + `/token","client_id":"crm","client_secret":"` + secret + `","scope":"calls.write"}`
}

// quote is the text as JSON.
func quote(text string) string {
	data, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return string(data)
}

const testCall = "/api/v1/webhooks/1/test"

// A token is taken once, used until the receiver refuses it, and shown nowhere.
func TestCallsWithAnAccessToken(t *testing.T) {
	s, tokens := newService(t), newTokenServer(t)
	s.work()
	made := s.registerAt(tokens.URL+"/hook", `,"auth":`+tokens.auth(clientSecret))
	if want := tokens.auth("***"); made.get("auth") != want {
		t.Fatalf("auth is %s, want %s", made.get("auth"), want)
	}
	event := s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{}}`).want(202).text("event_id")
	s.until("delivered", func() bool { return s.deliveryState(event) == "delivered" })
	call := s.ask("POST", testCall, `{"event_type":"patient.created","test_data":{}}`).want(200)
	if issued, calls, last := tokens.saw(); issued != 1 || calls != 2 || last != "Bearer access-token-number-1" || tokens.scopes[0] != "calls.write" {
		t.Fatalf("%d tokens of scope %q, %d calls, the last with %q", issued, tokens.scopes, calls, last)
	}

	tokens.revoke()
	if refused := s.ask("POST", testCall, `{"event_type":"patient.created","test_data":{}}`).want(200); refused.get("response_status") != "401" {
		t.Fatalf("got %s", refused.body)
	}
	if issued, _, _ := tokens.saw(); issued != 1 {
		t.Fatalf("%d tokens", issued)
	}
	again := s.ask("POST", testCall, `{"event_type":"patient.created","test_data":{}}`).want(200)
	if _, _, last := tokens.saw(); again.get("response_status") != "200" || last != "Bearer access-token-number-2" {
		t.Fatalf("got %s, sent %q", again.body, last)
	}
	// Other changes of the webhook keep the token.
	s.ask("PATCH", "/api/v1/webhooks/1", `{"description":"changed"}`).want(200)
	s.ask("POST", testCall, `{"event_type":"patient.created","test_data":{}}`).want(200)
	if issued, _, _ := tokens.saw(); issued != 2 {
		t.Fatalf("%d tokens", issued)
	}

	details := s.ask("GET", "/api/v1/webhooks/1/calls/"+call.text("call_id"), "").want(200)
	if got := details.text("request_headers", "Authorization"); got != "***" {
		t.Errorf("Authorization is shown as %q", got)
	}
	if got := details.text("response_body"); got != "you sent Bearer ***" {
		t.Errorf("the answer is kept as %q", got)
	}
	s.shows(t, clientSecret, "access-token-number")
}

// shows fails the test if the log or an answer holds one of the secrets.
func (s *service) shows(t *testing.T, secrets ...string) {
	t.Helper()
	for _, path := range []string{"/api/v1/audit/events", "/api/v1/webhooks/1", "/api/v1/webhooks/1?as_of=1", "/api/v1/webhooks/1/history", "/api/v1/webhooks/1/calls"} {
		got := s.ask("GET", path, "").want(200)
		for _, secret := range secrets {
			if strings.Contains(string(got.body), secret) {
				t.Errorf("%s shows %q", path, secret)
			}
		}
	}
}

// Without a token the receiver is not called, and the call log says why.
func TestCallsWithoutAnAccessToken(t *testing.T) {
	s, tokens := newService(t), newTokenServer(t)
	s.work()
	const wrong = "a-secret-that-is-wrong"
	s.registerAt(tokens.URL+"/hook", `,"max_retries":0,"auth":`+tokens.auth(wrong))
	event := s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{}}`).want(202).text("event_id")
	s.until("failed", func() bool { return s.deliveryState(event) == "failed" })
	s.settled()
	call := s.ask("GET", "/api/v1/webhooks/1/calls", "").want(200)
	if call.text("items", 0, "error") != "nothing was sent: the token server answered 401: invalid_client" || call.get("items", 0, "response_status") != "null" {
		t.Errorf("got %s", call.body)
	}
	details := s.ask("GET", "/api/v1/webhooks/1/calls/"+call.text("items", 0, "call_id"), "").want(200)
	if details.get("outcome") != `"auth_failed"` || details.get("payload") != "null" {
		t.Errorf("got %s", details.body)
	}
	s.ask("GET", "/api/v1/webhooks/1/calls/"+call.text("items", 0, "call_id")+"/receipt", "").want(409)
	if issued, calls, _ := tokens.saw(); issued != 0 || calls != 0 {
		t.Errorf("%d tokens, %d calls", issued, calls)
	}
	s.shows(t, wrong)

	// Token servers are called at the addresses alone that webhooks may call.
	s.ask("PATCH", "/api/v1/webhooks/1", `{"auth":`+strings.ReplaceAll(tokens.auth(wrong), tokens.URL, "http://10.0.0.1")+`}`).want(200)
	if got := s.ask("POST", testCall, `{"event_type":"patient.created","test_data":{}}`).want(200); !strings.Contains(got.text("error"), "MEDILAB_ALLOW_TARGETS") {
		t.Errorf("got %s", got.body)
	}

	s.ask("PATCH", "/api/v1/webhooks/1", `{"auth":`+tokens.auth(wrong)+`}`).want(200)

	// The right secret holds from the next attempt on.
	changed := s.ask("PATCH", "/api/v1/webhooks/1", `{"auth":`+tokens.auth(clientSecret)+`}`).want(200)
	if got := s.ask("POST", testCall, `{"event_type":"patient.created","test_data":{}}`).want(200); got.get("response_status") != "200" {
		t.Errorf("got %s", got.body)
	}
	if same := s.ask("PUT", "/api/v1/webhooks/1", `{"auth":`+changed.get("auth")+`}`).want(200); same.get("version") != changed.get("version") {
		t.Errorf("what was read changes the webhook: %s", same.body)
	}
	elsewhere := s.ask("PATCH", "/api/v1/webhooks/1", `{"auth":`+strings.ReplaceAll(tokens.auth("***"), tokens.URL, "http://127.0.0.1:1")+`}`)
	if elsewhere.refusing("auth.client_secret"); !strings.Contains(string(elsewhere.body), "kept only for the token_url") {
		t.Errorf("with another token_url: %s", elsewhere.body)
	}
	history := s.ask("GET", "/api/v1/webhooks/1/history", "").want(200)
	if got, want := history.get("items", 0, "changes", 0), `{"field":"auth","was":`+tokens.auth("***")+`,"became":`+tokens.auth("***")+`}`; got != want {
		t.Errorf("history has %s, want %s", got, want)
	}
	if cleared := s.ask("PATCH", "/api/v1/webhooks/1", `{"auth":null}`).want(200); cleared.get("auth") != "null" {
		t.Errorf("got %s", cleared.body)
	}
	s.ask("POST", testCall, `{"event_type":"patient.created","test_data":{}}`).want(200)
	if _, _, last := tokens.saw(); last != "" {
		t.Errorf("sent %q", last)
	}
}

// What is sealed with an old key is sealed again, and opens as before.
func TestCredentialsAreResealed(t *testing.T) {
	s, tokens := newService(t), newTokenServer(t)
	s.registerAt(tokens.URL+"/hook", `,"auth":`+tokens.auth(clientSecret))
	w, _ := s.commands.Directory.Webhook(s.commands.Directory.Webhooks()[0].ID)
	before := w.Auth.ClientSecret
	if _, err := s.commands.Vault.Rotate(); err != nil {
		t.Fatal(err)
	}
	resealed, err := s.commands.ResealSecrets(context.Background(), commands.Caller{Actor: "test"}, func(int, int) {})
	if err != nil || resealed.Webhooks != 1 || len(resealed.Unreadable) != 0 {
		t.Fatalf("%+v, %v", resealed, err)
	}
	w, _ = s.commands.Directory.Webhook(w.ID)
	if w.Auth.ClientSecret == before || !s.commands.Vault.IsCurrent(w.Auth.ClientSecret) || !s.commands.Directory.Decrypts(s.commands.Vault) {
		t.Error("the client secret is sealed as before")
	}
	if got := s.ask("POST", testCall, `{"event_type":"patient.created","test_data":{}}`).want(200); got.get("response_status") != "200" {
		t.Errorf("got %s", got.body)
	}
}

func TestCredentialRules(t *testing.T) {
	s := newService(t)
	const fine = `"name":"a","url":"http://a.example/","events":["*"]`
	refuse := func(auth string, fields ...string) {
		t.Helper()
		s.ask("POST", "/api/v1/webhooks", `{`+fine+`,"auth":`+auth+`}`).refusing(fields...)
	}
	refuse(`"x"`, "auth")
	refuse(`{}`, "auth.type")
	refuse(`{"type":"basic"}`, "auth.type")
	refuse(`{"type":"oauth2","token_url":"http://a/","client_id":"a","client_secret":"b","token":1}`, "auth.token")
	refuse(`{"type":"oauth2"}`, "auth.token_url", "auth.client_id", "auth.client_secret")
	refuse(`{"type":"oauth2","token_url":"ftp://a/","client_id":"\u0000","client_secret":"***","private_key":"x"}`, "auth.token_url", "auth.client_id", "auth.client_secret", "auth.private_key")
	refuse(`{"type":"certificate","scope":"x"}`, "auth.certificate", "auth.private_key", "auth.scope")

	now := time.Now()
	certificate, key := clientCertificate(t, "a", now.Add(time.Hour))
	_, other := clientCertificate(t, "b", now.Add(time.Hour))
	expired, expiredKey := clientCertificate(t, "c", now.Add(-time.Hour))
	refuse(certificateAuth("no PEM", key), "auth.certificate")
	refuse(certificateAuth(certificate+key, key), "auth.certificate")
	refuse(certificateAuth(certificate, "no PEM"), "auth.private_key")
	refuse(certificateAuth(certificate, other), "auth.private_key")
	refuse(certificateAuth(expired, expiredKey), "auth.certificate")
	if s.head() != 0 {
		t.Error("something was kept")
	}

	const oauth2 = `{"type":"oauth2","token_url":"https://a.example/token","client_id":"a","client_secret":"b"}`
	const header = `"headers":{"AUTHORIZATION":"Bearer own"}`
	s.ask("POST", "/api/v1/webhooks", `{`+fine+`,`+header+`,"auth":`+oauth2+`}`).refusing("headers.Authorization")
	s.register(header + `,"auth":` + certificateAuth(certificate, key))
	change := func(body string) answer { t.Helper(); return s.ask("PATCH", "/api/v1/webhooks/1", body) }
	change(`{"auth":` + oauth2 + `}`).refusing("auth")
	change(`{"auth":` + certificateAuth("***", other) + `}`).refusing("auth.private_key")
	if same := change(`{"auth":` + certificateAuth("\n"+strings.TrimSpace(certificate), strings.TrimSpace(key)) + `}`).want(200); same.get("version") != "1" {
		t.Errorf("white space changes the webhook: %s", same.body)
	}
	if same := change(`{"auth":` + certificateAuth("***", key) + `}`).want(200); same.get("version") != "1" || same.get("auth") != `{"type":"certificate","certificate":"***","private_key":"***"}` {
		t.Errorf("got %s", same.body)
	}
	change(`{"headers":{},"auth":` + strings.ReplaceAll(oauth2, `"b"`, `"***"`) + `}`).refusing("auth.client_secret")
	change(`{"headers":{},"auth":` + oauth2 + `}`).want(200)
	change(`{` + header + `}`).refusing("headers.Authorization")
}

// clientCertificate returns a certificate and its key in PEM form.
func clientCertificate(t *testing.T, name string, until time.Time) (certificate, key string) {
	t.Helper()
	return testcert.PEM(t, testcert.New(t, nil, func(c *x509.Certificate) {
		c.Subject.CommonName, c.NotBefore, c.NotAfter = name, until.Add(-24*time.Hour), until
	}))
}

func certificateAuth(certificate, key string) string {
	return `{"type":"certificate","certificate":` + quote(certificate) + `,"private_key":` + quote(key) + `}`
}

// Each webhook calls as itself, also when several have the same receiver.
func TestCallsWithAClientCertificate(t *testing.T) {
	var mu sync.Mutex
	var names []string
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		names = append(names, r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)

	s := newService(t)
	s.trust(server.Certificate())
	until := time.Now().Add(time.Hour)
	for _, name := range []string{"a", "b"} {
		certificate, key := clientCertificate(t, name, until)
		s.registerAt(server.URL, `,"auth":`+certificateAuth(certificate, key))
		s.shows(t, quote(key)[30:60])
	}
	s.registerAt(server.URL, "")
	test := func(number, status string) {
		t.Helper()
		if got := s.ask("POST", "/api/v1/webhooks/"+number+"/test", `{"event_type":"patient.created","test_data":{}}`).want(200); got.get("response_status") != status {
			t.Errorf("webhook %s: %s", number, got.body)
		}
	}
	for range 2 {
		test("1", "200")
		test("2", "200")
		test("3", "null")
	}
	certificate, key := clientCertificate(t, "new a", until)
	s.ask("PATCH", "/api/v1/webhooks/1", `{"auth":`+certificateAuth(certificate, key)+`}`).want(200)
	test("1", "200")
	mu.Lock()
	defer mu.Unlock()
	if want := []string{"a", "b", "a", "b", "new a"}; !slices.Equal(names, want) {
		t.Errorf("calls by %q, want %q", names, want)
	}
}

// trust makes the service's calls trust the certificate.
func (s *service) trust(certificate *x509.Certificate) {
	s.t.Helper()
	targets, err := sender.ParseTargets("loopback")
	if err != nil {
		s.t.Fatal(err)
	}
	client, err := sender.New(sender.Config{AllowTargets: targets, CAFile: testcert.File(s.t, certificate)})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(client.Close)
	s.commands.Attempter.Sender, s.commands.Attempter.WithCertificate = client, client.WithCertificate
}
