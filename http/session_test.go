package http_test

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	api "github.com/medilab/webhooks/http"
	"github.com/medilab/webhooks/http/identity"
	"github.com/medilab/webhooks/migrations/testdb"
)

const sessionURL = "/api/v1/session"

// tab is a browser that works on the service by its cookies. It follows no redirect.
type tab struct {
	*service
	http *http.Client
}

func (s *service) tab() *tab {
	s.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return &tab{s, &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// on is the same browser on another service.
func (b *tab) on(other *service) *tab {
	b.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		b.t.Fatal(err)
	}
	jar.SetCookies(b.address(other), b.http.Jar.Cookies(b.address(b.service)))
	return &tab{other, &http.Client{Jar: jar}}
}

func (b *tab) address(s *service) *url.URL {
	b.t.Helper()
	u, err := url.Parse(s.url)
	if err != nil {
		b.t.Fatal(err)
	}
	return u
}

// send makes a request as the panel does, or with other headers: name and value by turns.
func (b *tab) send(method, path, body string, headers ...string) answer {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), method, b.url+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Requested-With", "panel")
	r.Header.Set("Origin", b.url)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
		if headers[i+1] == "" {
			r.Header.Del(headers[i])
		}
	}
	response, err := b.http.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // it was only read
	data, err := io.ReadAll(response.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	b.conforms(r, body, response, data)
	return answer{t: b.t, what: method + " " + path, status: response.StatusCode, header: response.Header, body: data}
}

func (b *tab) signIn(token string) answer {
	b.t.Helper()
	return b.send("POST", sessionURL, `{"token":"`+token+`"}`)
}

// A session acts as its token, with its rights; other sites cannot use it.
func TestSessions(t *testing.T) {
	s := newService(t)
	s.register("")
	b, token := s.tab(), s.tokenFor(domain.ScopeWebhooksRead, domain.ScopeWebhooksWrite)
	if got := b.send("GET", sessionURL, "").want(200); got.get("actor") != "null" || got.get("provider") != "false" {
		t.Errorf("nobody is %s", got.body)
	}
	b.send("GET", "/api/v1/webhooks", "").want(401)
	b.signIn("mlw_unknown").want(401)
	entered := b.signIn(token).want(201)
	b.send("GET", "/api/v1/webhooks", "", "X-Session-Actor", url.PathEscape(entered.text("actor"))).want(200)
	for _, other := range []string{"admin", "%zz"} {
		for _, asked := range [][2]string{{"POST", "/api/v1/webhooks/1/deactivate"}, {"GET", sessionURL}, {"DELETE", sessionURL}} {
			if refused := b.send(asked[0], asked[1], "", "X-Session-Actor", other).want(401); refused.header.Get("Set-Cookie") != "" {
				t.Errorf("%s %s for another ends the session", asked[0], asked[1])
			}
		}
	}
	cookie := entered.header.Get("Set-Cookie")
	for _, part := range []string{"medilab_session=mls_", "Path=/", "HttpOnly", "SameSite=Strict"} {
		if !strings.Contains(cookie, part) {
			t.Errorf("the cookie %q has no %s", cookie, part)
		}
	}
	if strings.Contains(cookie, "Secure") {
		t.Error("a browser that came by http does not keep the cookie")
	}
	behind := s.tab().send("POST", sessionURL, `{"token":"`+token+`"}`, "X-Forwarded-Proto", "https").want(201).header.Get("Set-Cookie")
	if !strings.HasPrefix(behind, "__Host-medilab_session=") || !strings.Contains(behind, "; Secure") {
		t.Errorf("by https the cookie is %q", behind)
	}
	actor := b.send("GET", sessionURL, "").want(200).text("actor")
	if !strings.HasPrefix(actor, "token:") || actor != entered.text("actor") {
		t.Errorf("%q is signed in, by %s", actor, entered.body)
	}

	b.send("GET", "/api/v1/webhooks", "").want(200)
	b.send("GET", "/api/v1/audit/events", "").want(403)
	for name, headers := range map[string][]string{
		"without the header":   {"X-Requested-With", ""},
		"of another site":      {"Origin", "https://evil.example"},
		"that the browser saw": {"Sec-Fetch-Site", "cross-site"},
		"of a neighbour":       {"Sec-Fetch-Site", "same-site"},
	} {
		if got := b.send("POST", "/api/v1/webhooks/1/deactivate", "", headers...); got.status != 403 {
			t.Errorf("a request %s: %d", name, got.status)
		}
		if got := b.send("DELETE", sessionURL, "", append(headers, "Accept-Language", "ru")...); got.status != 403 ||
			got.text("title") != "Запрос не разрешён" || !strings.Contains(got.text("detail"), "cookie") || strings.Contains(got.text("detail"), "request") {
			t.Errorf("signing out %s: %d", name, got.status)
		}
		if got := s.tab().send("POST", sessionURL, `{"token":"`+token+`"}`, headers...); got.status != 403 {
			t.Errorf("signing in %s: %d", name, got.status)
		}
	}
	b.send("POST", "/api/v1/webhooks/1/deactivate", "").want(200)
	if by := s.ask("GET", "/api/v1/webhooks/1/history", "").want(200).text("items", 0, "actor"); by != actor {
		t.Errorf("the log says that %q did it", by)
	}

	secret := b.http.Jar.Cookies(b.address(s))[0].Value
	s.token = secret
	s.ask("GET", "/api/v1/webhooks", "").want(401) // it is no token
	if got := b.send("GET", "/api/v1/webhooks", "", "Authorization", "Bearer mlw_unknown"); got.status != 401 {
		t.Errorf("a wrong token with a good cookie: %d", got.status)
	}
	if left := b.send("DELETE", sessionURL, "").want(204); !strings.Contains(left.header.Get("Set-Cookie"), "Max-Age=0") {
		t.Errorf("the browser keeps %v", left.header)
	}
	if got := b.send("GET", "/api/v1/webhooks", "", "Cookie", "medilab_session="+secret); got.status != 401 {
		t.Errorf("a copy of the cookie still counts: %d", got.status)
	}
	b.send("DELETE", sessionURL, "").want(204)
}

// A session is good on every node and after a restart, and ends everywhere with its token.
func TestSessionsEndWithTheirToken(t *testing.T) {
	t.Parallel()
	database := testdb.New(t)
	a, c := newServiceOn(t, database), newServiceOn(t, database)
	caller := commands.Caller{Actor: "test"}
	token, text, err := a.commands.CreateToken(t.Context(), caller, "crm", []domain.Scope{domain.ScopeWebhooksRead}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	b := a.tab()
	b.signIn(text.Reveal()).want(201)
	elsewhere := b.on(c)
	elsewhere.send("GET", "/api/v1/webhooks", "").want(200)
	r, err := http.NewRequestWithContext(t.Context(), "GET", c.url+"/api/v1/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	live, err := elsewhere.http.Do(r)
	if err != nil || live.StatusCode != 200 {
		t.Fatalf("no stream: %v, %v", live, err)
	}
	defer live.Body.Close() //nolint:errcheck // it was only read

	if err := a.commands.RevokeToken(t.Context(), caller, token.ID); err != nil {
		t.Fatal(err)
	}
	b.send("GET", "/api/v1/webhooks", "").want(401)
	harness.Until(t, "the session ends at the other node", func() bool {
		return elsewhere.send("GET", "/api/v1/webhooks", "").status == 401
	})
	if got := elsewhere.send("GET", sessionURL, "").want(200); got.get("actor") != "null" {
		t.Errorf("%s is signed in", got.body)
	}
	for lines := bufio.NewScanner(live.Body); lines.Scan(); {
	} // until it ends
}

// A session of the token in the environment ends when that is another one, and one of a token
// that expires ends with it.
func TestSessionsAreBound(t *testing.T) {
	s := newService(t)
	b := s.tab()
	if got := b.signIn(adminToken).want(201); got.text("actor") != "admin" {
		t.Errorf("%s is signed in", got.body)
	}
	b.send("GET", "/api/v1/audit/events", "").want(200)
	other := *s
	front := api.NewServer(api.Config{Commands: s.commands, Queries: s.queries, AdminToken: domain.NewSecret("another-admin-token-0123456789abcdef")})
	server := httptest.NewServer(front.Handler())
	defer server.Close()
	other.url = server.URL
	b.on(&other).send("GET", "/api/v1/webhooks", "").want(401)

	soon := s.commands.Now().Add(time.Minute).Truncate(time.Second)
	_, text, err := s.commands.CreateToken(t.Context(), commands.Caller{Actor: "test"}, "crm", []domain.Scope{domain.ScopeAdmin}, soon)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.tab().signIn(text.Reveal()).want(201).text("expires_at"); got != soon.UTC().Format("2006-01-02T15:04:05.000000Z") {
		t.Errorf("it ends at %s, its token at %s", got, soon)
	}
}

// Guesses at the cookie of a session are failed logins, though who is nobody may ask who that is.
func TestGuessedSessionsAreFailedLogins(t *testing.T) {
	t.Parallel()
	s := newService(t)
	var asking sync.WaitGroup
	var throttled atomic.Bool
	for range 80 {
		asking.Go(func() {
			if s.tab().send("GET", sessionURL, "", "Cookie", "medilab_session=mls_guessed").status == http.StatusTooManyRequests {
				throttled.Store(true)
			}
		})
	}
	asking.Wait()
	if !throttled.Load() {
		t.Error("so many at once are not throttled")
	}
	s.tab().send("GET", sessionURL, "").want(200)
}

// Somebody signs in at a real provider, by authorization code with PKCE, state and nonce.
func TestSignInAtTheProvider(t *testing.T) {
	s := newService(t)
	b := s.tab()
	provider := httptest.NewUnstartedServer(nil)
	issuer := "http://" + provider.Listener.Addr().String()
	provider.Config.Handler = exampleop.SetupServer(issuer, storage.NewStorage(storage.NewUserStore(issuer)), slog.New(slog.DiscardHandler), false)
	provider.Start()
	defer provider.Close()
	signIn, err := identity.NewSignIn(identity.SignInConfig{
		Config:   identity.Config{Issuer: issuer, Claim: "custom_claim.client", Scopes: map[string][]domain.Scope{"medilab": {domain.ScopeAdmin}}},
		ClientID: "medilab", ClientSecret: domain.NewSecret("secret of the client"), Ask: "profile custom_scope",
	})
	if err != nil {
		t.Fatal(err)
	}
	front := api.NewServer(api.Config{Commands: s.commands, Queries: s.queries, AdminToken: domain.NewSecret(adminToken), SignIn: signIn})
	server := httptest.NewServer(front.Handler())
	defer server.Close()
	s.url, s.handler = server.URL, front.Handler()
	s.description = describe(t, s.handler)
	storage.RegisterClients(storage.WebClient("medilab", "secret of the client", s.url+sessionURL+"/callback"))
	if got := b.send("GET", sessionURL, "").want(200); got.get("provider") != "true" {
		t.Errorf("the provider is not offered: %s", got.body)
	}

	// login leads the browser through the provider's pages, and returns where they lead back to.
	login := func(b *tab, password string) string {
		t.Helper()
		page := b.send("GET", sessionURL+"/provider", "").want(302).header.Get("Location")
		for _, part := range []string{"code_challenge_method=S256", "code_challenge=", "state=", "nonce="} {
			if !strings.Contains(page, part) {
				t.Fatalf("%s has no %s", page, part)
			}
		}
		form := b.get(page).Header.Get("Location") // .../login/username?authRequestID=...
		at, err := url.Parse(issuer + strings.TrimPrefix(form, issuer))
		if err != nil {
			t.Fatal(err)
		}
		values := url.Values{"username": {"test-user2"}, "password": {password}, "id": {at.Query().Get("authRequestID")}}
		answer, err := b.http.PostForm(issuer+"/login/username", values)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close() //nolint:errcheck // it was only read
		back := answer.Header.Get("Location")
		if strings.HasPrefix(back, "/") {
			back = issuer + back
		}
		if answer.StatusCode != 302 {
			return ""
		}
		return strings.TrimPrefix(b.get(back).Header.Get("Location"), s.url)
	}
	if login(b, "wrong") != "" {
		t.Fatal("the provider lets everybody in")
	}
	back := login(b, "verysecure")
	stranger := s.tab()
	for name, wrong := range map[string]string{"another browser": back, "no code": sessionURL + "/callback?state=x"} {
		if got := stranger.send("GET", wrong, "").want(302); got.header.Get("Location") != "/admin?sign_in=refused" {
			t.Errorf("%s: %v", name, got.header)
		}
	}
	stranger.send("GET", "/api/v1/webhooks", "").want(401)
	if got := b.send("GET", back, "").want(302); got.header.Get("Location") != "/admin" {
		t.Fatalf("led to %s", got.header.Get("Location"))
	}
	if got := b.send("GET", sessionURL, "").want(200); got.text("actor") != "jwt:id2" || got.text("scopes", 0) != "admin" {
		t.Errorf("%s is signed in", got.body)
	}
	b.send("POST", "/api/v1/webhooks/", `{"name":"CRM","url":"http://127.0.0.1:9/hook","events":["*"]}`).want(201)
	b.send("DELETE", sessionURL, "").want(204)
	b.send("GET", "/api/v1/webhooks", "").want(401)
	if got := b.send("GET", back, "").want(302); got.header.Get("Location") != "/admin?sign_in=refused" {
		t.Errorf("a code counts twice: %v", got.header)
	}

	provider.Close()
	back = strings.Replace(back, "code=", "code=x", 1)
	b.http.Jar.SetCookies(b.address(s), []*http.Cookie{{Name: "medilab_sign_in", Value: stateOf(t, back) + ".nonce.verifier", Path: "/"}})
	if got := b.send("GET", back, "").want(302); got.header.Get("Location") != "/admin?sign_in=unavailable" {
		t.Errorf("without the provider: %v", got.header)
	}
}

func stateOf(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query().Get("state")
}

// get returns the answer of another site.
func (b *tab) get(address string) *http.Response {
	b.t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), "GET", address, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	response, err := b.http.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := response.Body.Close(); err != nil {
		b.t.Error(err)
	}
	return response
}
