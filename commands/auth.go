package commands

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"golang.org/x/sync/singleflight"

	"github.com/medilab/webhooks/domain"
)

// access is what the calls of one webhook say who makes them with. It lasts as long as the
// stored credentials do, whatever else of the webhook changes.
type access struct {
	auth   domain.Auth
	sender Sender // of a client certificate

	client clientcredentials.Config // of oauth2
	flight singleflight.Group
	mu     sync.Mutex
	cached accessToken
}

// accessToken is a token and when it is not used any more; zero: when it is refused.
type accessToken struct {
	text  string
	until time.Time
}

// grant is how one call is made.
type grant struct {
	sender  Sender
	header  []domain.Header
	redact  *redactor
	timeout time.Duration // that is left for the call
	token   string
}

// access returns what the webhook's calls need, or nil. What was made of the same
// credentials before is kept, with its token and its connections.
func (a *Attempter) access(w domain.Webhook, before *prepared) (*access, error) {
	if w.Auth == nil {
		return nil, nil
	}
	if before != nil && before.access != nil && before.access.auth == *w.Auth {
		return before.access, nil
	}
	clear := *w.Auth
	for _, s := range clear.Secrets() {
		text, err := a.Decrypter.Decrypt(w.ID, AuthField(s.Name), *s.Value)
		if err != nil {
			return nil, fmt.Errorf("the %s of auth cannot be decrypted: is the key set (MEDILAB_KEYS) the right one?", s.Name)
		}
		*s.Value = domain.Sealed(text)
	}
	to := &access{auth: *w.Auth}
	if clear.Type == domain.AuthCertificate {
		pair, refused := domain.ParseCertificate(string(clear.Certificate), string(clear.PrivateKey), time.Time{})
		if len(refused) > 0 {
			return nil, errors.New("the client certificate cannot be read")
		}
		if a.WithCertificate != nil {
			to.sender = a.WithCertificate(pair)
		}
		return to, nil
	}
	to.client = clientcredentials.Config{ClientID: clear.ClientID, ClientSecret: string(clear.ClientSecret), TokenURL: clear.TokenURL}
	if clear.Scope != "" {
		to.client.Scopes = []string{clear.Scope}
	}
	return to, nil
}

// grant returns how a call is made now. If failed has an outcome, it is the call's, which is
// not made.
func (p *prepared) grant(ctx context.Context, sender Sender) (by grant, failed Answer) {
	by = grant{sender: sender, redact: &p.redact, timeout: p.timeout}
	switch {
	case p.access == nil:
		return by, failed
	case p.access.sender != nil:
		by.sender = p.access.sender
		return by, failed
	}
	start := time.Now()
	by.token, failed = p.access.token(ctx, sender, start.Add(p.timeout))
	failed.Duration = time.Since(start)
	if by.timeout -= failed.Duration; failed.Outcome == "" && by.timeout <= 0 {
		failed.Outcome, failed.Error = domain.OutcomeAuthFailed, "nothing was sent: the access token came when the timeout was over"
	}
	by.header = []domain.Header{{Name: domain.HeaderAuthorization, Value: "Bearer " + by.token}}
	by.redact = p.redact.with(by.token)
	return by, failed
}

// drop drops a token that the receiver refused, unless another has taken its place.
func (a *access) drop(token string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cached.text == token {
		a.cached = accessToken{}
	}
}

// token returns the token in use, or takes a new one: one request for all calls that wait.
func (a *access) token(ctx context.Context, sender Sender, deadline time.Time) (string, Answer) {
	if token := a.current(); token != "" {
		return token, Answer{}
	}
	result, err, _ := a.flight.Do("", func() (any, error) {
		if token := a.current(); token != "" {
			return token, nil // of a flight that ended just now
		}
		return a.fetch(ctx, sender, deadline)
	})
	if err == nil {
		return result.(string), Answer{}
	}
	missed, ok := errors.AsType[tokenError](err)
	if !ok {
		missed.outcome = domain.OutcomeAuthFailed
	}
	return "", Answer{Outcome: missed.outcome, Error: cmp.Or(missed.text, "nothing was sent: "+err.Error())}
}

func (a *access) current() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cached.until.IsZero() || time.Now().Before(a.cached.until) {
		return a.cached.text
	}
	return ""
}

// fetch takes a new token from the token server. Its errors are safe to show.
func (a *access) fetch(ctx context.Context, sender Sender, deadline time.Time) (string, error) {
	client := &http.Client{
		Transport:     &tokenTransport{sender: sender, deadline: deadline},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	start := time.Now()
	token, err := a.client.Token(context.WithValue(ctx, oauth2.HTTPClient, client))
	if err != nil {
		return "", explainToken(err)
	}
	unsendable := func(r rune) bool { return r <= ' ' || r > '~' }
	if token.Type() != "Bearer" || strings.ContainsFunc(token.AccessToken, unsendable) {
		return "", errors.New("the token server's answer holds no bearer token that can be sent in a header")
	}
	got := accessToken{text: token.AccessToken}
	if !token.Expiry.IsZero() {
		const most, part = 10 * time.Second, 10
		lifetime := token.Expiry.Sub(start)
		got.until = token.Expiry.Add(-min(most, lifetime/part)) // a call takes time
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cached = got
	return got.text, nil
}

// tokenErrors are the error codes of RFC 6749, section 5.2. What else a token server says
// is not shown: it may repeat the secret.
var tokenErrors = []string{"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope"}

func explainToken(err error) error {
	if none, ok := errors.AsType[tokenError](err); ok {
		return none
	}
	answered, ok := errors.AsType[*oauth2.RetrieveError](err)
	switch {
	case !ok:
		return errors.New("the token server's answer holds no access token")
	case slices.Contains(tokenErrors, answered.ErrorCode):
		return fmt.Errorf("the token server answered %d: %s", answered.Response.StatusCode, answered.ErrorCode)
	}
	return fmt.Errorf("the token server answered %d", answered.Response.StatusCode)
}

// tokenError means that a token server gave no answer: the outcome of the call that needs the
// token, and a text for it.
type tokenError struct {
	outcome domain.Outcome
	text    string
}

func (e tokenError) Error() string { return e.text }

// tokenTransport makes the calls to a token server as calls to receivers are made.
type tokenTransport struct {
	sender   Sender
	deadline time.Time
	failed   error // of the first call: a second one is not made
}

// RoundTrip implements http.RoundTripper.
func (t *tokenTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if t.failed != nil {
		return nil, t.failed
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	header := []domain.Header{{Name: "User-Agent", Value: domain.UserAgent}, {Name: "Accept", Value: "application/json"}}
	for name := range r.Header {
		header = append(header, domain.Header{Name: name, Value: r.Header.Get(name)})
	}
	left := max(time.Until(t.deadline), time.Nanosecond) // 0 is the sender's default
	answer := t.sender.Send(r.Context(), Outgoing{URL: r.URL.String(), Header: header, Body: body, Timeout: left, Fresh: true})
	if answer.Status == 0 || answer.Truncated {
		t.failed = noAnswer(answer)
		return nil, t.failed
	}
	return &http.Response{
		StatusCode: answer.Status, Header: answer.Header, Request: r,
		Body: io.NopCloser(bytes.NewReader(answer.Body)), ContentLength: int64(len(answer.Body)),
	}, nil
}

// noAnswer returns what comes of a token server's missing answer. What this server lacks is
// no failure of the receiver's side.
func noAnswer(answer Answer) error {
	switch {
	case answer.Outcome.IsLack(), answer.Outcome == domain.OutcomeInterrupted:
		return tokenError{answer.Outcome, answer.Error}
	case answer.Outcome == domain.OutcomeSuccess:
		answer.Error = "its answer is too long"
	}
	text := strings.ReplaceAll(answer.Error, "the receiver", "the token server")
	return tokenError{domain.OutcomeAuthFailed, "nothing was sent: the token server gave no access token: " + text}
}
