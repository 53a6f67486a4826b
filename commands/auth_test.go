package commands

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// login is a receiver and its token server, which answers the nth request for a token.
type login struct {
	answer func(n int, call Outgoing) Answer

	mu     sync.Mutex
	tokens []Outgoing
	calls  []Outgoing
}

func (l *login) Send(_ context.Context, call Outgoing) Answer {
	l.mu.Lock()
	if strings.HasPrefix(call.URL, "https://crm.example/") {
		defer l.mu.Unlock()
		l.calls = append(l.calls, call)
		return Answer{Outcome: domain.OutcomeSuccess, Status: 200}
	}
	l.tokens = append(l.tokens, call)
	n := len(l.tokens)
	l.mu.Unlock()
	return l.answer(n, call)
}

const clientSecret = "the-client-secret" //nolint:gosec // of a test

func (l *login) attempter() (*Attempter, domain.Webhook) {
	return &Attempter{Sender: l, Decrypter: decrypter{}, Clock: eventstore.NewClock()}, domain.Webhook{Version: 1, WebhookSettings: domain.WebhookSettings{
		ID: domain.WebhookID(uuid.New()), URL: "https://crm.example/", Timeout: 3, PayloadVersion: domain.PayloadV1,
		Auth: &domain.Auth{Type: domain.AuthOAuth2, TokenURL: "https://login.example/token", ClientID: "crm", ClientSecret: clientSecret},
	}}
}

// call makes one attempt of the webhook.
func call(t *testing.T, a *Attempter, w domain.Webhook) domain.Call {
	made, _ := a.Make(t.Context(), Attempt{Webhook: w, Number: 1, Event: domain.EventTriggered{EventType: "patient.created", EventData: []byte(`{}`)}})
	return made
}

// says is the answer of a token server.
func says(status int, body string) Answer {
	outcome := domain.OutcomeSuccess
	if status != http.StatusOK {
		outcome = "http_status"
	}
	return Answer{Outcome: outcome, Status: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(body), Error: fmt.Sprint("the receiver answered ", status)}
}

func headerOf(call Outgoing, name string) string {
	for _, h := range call.Header {
		if h.Name == name {
			return h.Value
		}
	}
	return ""
}

// A token is used until a little before it expires.
func TestAnAccessTokenExpires(t *testing.T) {
	for _, c := range []struct {
		expires string
		used    time.Duration // how long, at least
		over    time.Duration // and from when on another is taken; 0: never
	}{
		{`,"expires_in":3600`, 3589 * time.Second, 3591 * time.Second},
		{`,"expires_in":"100"`, 89 * time.Second, 91 * time.Second},
		{`,"expires_in":2`, 1700 * time.Millisecond, 1900 * time.Millisecond},
		{``, 1000 * time.Hour, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := &login{answer: func(n int, _ Outgoing) Answer {
				return says(200, fmt.Sprintf(`{"access_token":"token-%d"%s}`, n, c.expires))
			}}
			a, w := l.attempter()
			call(t, a, w)
			time.Sleep(c.used)
			call(t, a, w)
			if len(l.tokens) != 1 || headerOf(l.calls[1], "Authorization") != "Bearer token-1" {
				t.Errorf("%s: %d tokens after %s, sent %q", c.expires, len(l.tokens), c.used, headerOf(l.calls[1], "Authorization"))
			}
			if c.over == 0 {
				return
			}
			time.Sleep(c.over - c.used)
			call(t, a, w)
			if len(l.tokens) != 2 || headerOf(l.calls[2], "Authorization") != "Bearer token-2" {
				t.Errorf("%s: %d tokens after %s, sent %q", c.expires, len(l.tokens), c.over, headerOf(l.calls[2], "Authorization"))
			}
		})
	}
}

// slow decrypts in its time, so that many calls prepare at once.
type slow struct{}

func (slow) Decrypt(id domain.WebhookID, field string, sealed domain.Sealed) (string, error) {
	time.Sleep(time.Millisecond)
	return decrypter{}.Decrypt(id, field, sealed)
}

// Calls that wait for a token share one request, and what is left of their timeout.
func TestCallsShareATokenRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &login{answer: func(int, Outgoing) Answer {
			time.Sleep(time.Second)
			return says(200, `{"access_token":"token"}`)
		}}
		a, w := l.attempter()
		a.Decrypter = slow{}
		var group sync.WaitGroup
		for range 20 {
			group.Go(func() {
				if got := call(t, a, w); got.Outcome != domain.OutcomeSuccess {
					t.Errorf("%s: %s", got.Outcome, got.Error)
				}
			})
		}
		group.Wait()
		if len(l.tokens) != 1 || len(l.calls) != 20 || l.calls[0].Timeout != 2*time.Second {
			t.Errorf("%d requests, %d calls with a timeout of %s", len(l.tokens), len(l.calls), l.calls[0].Timeout)
		}
	})
}

// A token server that hangs costs a call its timeout, and no more.
func TestATokenServerThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &login{answer: func(_ int, call Outgoing) Answer {
			time.Sleep(call.Timeout)
			return Answer{Outcome: domain.OutcomeTimeout, Error: "the call did not end within its timeout of 3s"}
		}}
		a, w := l.attempter()
		start := time.Now()
		got := call(t, a, w)
		if got.Outcome != domain.OutcomeAuthFailed || time.Since(start) != 3*time.Second || got.Duration != 3_000_000 || got.BodyHash != nil {
			t.Errorf("after %s: %+v", time.Since(start), got)
		}
		if len(l.tokens) != 1 || len(l.calls) != 0 {
			t.Errorf("%d requests, %d calls", len(l.tokens), len(l.calls))
		}
	})
}

// Whatever a token server answers, the call log shows no secret.
func TestTokenServersThatFail(t *testing.T) {
	const failed = domain.OutcomeAuthFailed
	for _, c := range []struct {
		name   string
		answer Answer
		want   domain.Outcome
		has    string
	}{
		{"wrong secret", says(401, `{"error":"invalid_client","error_description":"`+clientSecret+`"}`), failed, "answered 401: invalid_client"},
		{"error of its own", says(400, `{"error":"`+clientSecret+`"}`), failed, "answered 400"},
		{"500", says(500, clientSecret), failed, "answered 500"},
		{"redirect", says(302, ""), failed, "answered 302"},
		{"error with 200", says(200, `{"error":"invalid_scope","access_token":"token"}`), failed, "answered 200: invalid_scope"},
		{"no JSON", says(200, "<html>"+clientSecret), failed, "no access token"},
		{"no token", says(200, `{"token":"`+clientSecret+`"}`), failed, "no access token"},
		{"another type", says(200, `{"access_token":"canary","token_type":"mac"}`), failed, "no bearer token"},
		{"a token with a line break", says(200, `{"access_token":"canary\r\nX-Forged: 1"}`), failed, "no bearer token"},
		{"too long", Answer{Outcome: domain.OutcomeSuccess, Status: 200, Body: []byte(`{"access_token":"canary"}`), Truncated: true}, failed, "too long"},
		{"refused address", Answer{Outcome: "refused_target", Error: "refused: 10.0.0.1 is a private address"}, failed, "private address"},
		{"reset", Answer{Outcome: "reset", Error: "the receiver closed the connection"}, failed, "the token server closed the connection"},
		{"no name server", Answer{Outcome: domain.LacksNameServer, Error: "nothing was sent: no name server"}, domain.LacksNameServer, "no name server"},
		{"shutdown", Answer{Outcome: domain.OutcomeInterrupted, Error: "shutting down"}, domain.OutcomeInterrupted, "shutting down"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := &login{answer: func(int, Outgoing) Answer { return c.answer }}
			a, w := l.attempter()
			got := call(t, a, w)
			if got.Outcome != c.want || !strings.Contains(got.Error, c.has) || len(l.calls) != 0 {
				t.Errorf("%s: %s, %d calls", got.Outcome, got.Error, len(l.calls))
			}
			if strings.Contains(got.Error, clientSecret) || strings.Contains(got.Error, "canary") {
				t.Errorf("shows a secret: %s", got.Error)
			}
		})
	}
}

// A token server may take the client's secret in the body alone.
func TestClientSecretInTheBody(t *testing.T) {
	l := &login{answer: func(n int, call Outgoing) Answer {
		if headerOf(call, "Authorization") != "" || !strings.Contains(string(call.Body), "client_secret="+clientSecret) {
			return says(400, `{"error":"invalid_request"}`)
		}
		return says(200, fmt.Sprintf(`{"access_token":"token-%d","expires_in":-1}`, n))
	}}
	a, w := l.attempter()
	for _, want := range []int{2, 3} { // the second time it is known
		if got := call(t, a, w); got.Outcome != domain.OutcomeSuccess || len(l.tokens) != want {
			t.Errorf("%s: %s, %d requests", got.Outcome, got.Error, len(l.tokens))
		}
	}
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("crm:"+clientSecret))
	if got := headerOf(l.tokens[0], "Authorization"); got != basic || string(l.tokens[0].Body) != "grant_type=client_credentials" {
		t.Errorf("first sent %q, %s", got, l.tokens[0].Body)
	}
}

// forgetful decrypts nothing.
type forgetful struct{}

func (forgetful) Decrypt(domain.WebhookID, string, domain.Sealed) (string, error) {
	return "", errors.New("no key")
}

func TestCredentialsThatCannotBeDecryptedWait(t *testing.T) {
	l := new(login)
	a, w := l.attempter()
	a.Decrypter = forgetful{}
	if got := call(t, a, w); got.Outcome != domain.LacksKey || !strings.Contains(got.Error, "client_secret") {
		t.Errorf("%s: %s", got.Outcome, got.Error)
	}
}
