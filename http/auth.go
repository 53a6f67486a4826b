package http

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/http/identity"
)

// authenticator tells who calls by the token, and whether they may.
type authenticator struct {
	commands *commands.Commands
	admin    [sha256.Size]byte
	hasAdmin bool
	identity *identity.Provider // nil: none
	refresh  *refresher
	failures *failures
}

// adminActor is who calls with the token from the environment.
const adminActor = "admin"

func newAuthenticator(config Config) authenticator {
	return authenticator{
		commands: config.Commands, admin: sha256.Sum256([]byte(config.AdminToken.Reveal())), hasAdmin: !config.AdminToken.IsZero(),
		identity: config.Identity, refresh: new(refresher), failures: newFailures(),
	}
}

// authorize gives the name of who calls, also when they are refused. Those who
// fail too often wait longer for it.
func (a authenticator) authorize(r *http.Request, scope domain.Scope) (actor string, err error) {
	text, ok := bearer(r)
	if !ok {
		return "", domain.Unauthorized("send the header Authorization: Bearer <token>")
	}
	if actor, err = a.recognise(r, text, scope); err != nil {
		err = a.failures.slow(r, err)
	}
	return actor, err
}

func (a authenticator) recognise(r *http.Request, text string, scope domain.Scope) (actor string, err error) {
	if a.hasAdmin {
		sum := sha256.Sum256([]byte(text))
		if subtle.ConstantTimeCompare(sum[:], a.admin[:]) == 1 {
			return adminActor, nil
		}
	}
	if a.identity != nil && identity.IsToken(text) {
		return a.recogniseJWT(r.Context(), text, scope)
	}
	token, err := a.find(r.Context(), text)
	if err != nil {
		return "", err
	}
	if !token.Valid(a.commands.Now()) {
		return token.Name, domain.Unauthorized("the token is unknown, expired or revoked")
	}
	if scope != anyToken && !token.Allows(scope) {
		return token.Name, domain.Forbidden("the token needs the scope " + string(scope))
	}
	return token.Name, nil
}

// recogniseJWT asks the clinic's identity provider's keys.
func (a authenticator) recogniseJWT(ctx context.Context, text string, scope domain.Scope) (actor string, err error) {
	bearer, err := a.identity.Authenticate(ctx, text, a.commands.Now())
	switch {
	case errors.Is(err, identity.ErrRefused):
		return "", domain.Unauthorized(err.Error())
	case err != nil:
		return "", domain.Unavailable("the identity provider's keys cannot be had now; try again", err)
	case scope != anyToken && !(domain.Token{Scopes: bearer.Scopes}).Allows(scope):
		return bearer.Actor, domain.Forbidden("the token needs the scope " + string(scope))
	}
	return bearer.Actor, nil
}

// find looks a token up by its hash: comparing hashes tells an attacker nothing
// about tokens. One that is not known may have been created a moment ago by
// another process, so the log is asked, though not for every stranger.
func (a authenticator) find(ctx context.Context, text string) (domain.Token, error) {
	hash := commands.TokenHash(text)
	token, ok := a.commands.Directory.TokenByHash(hash)
	if ok {
		return token, nil
	}
	if err := a.refresh.once(ctx, a.commands.Directory.CatchUp); err != nil {
		return domain.Token{}, commands.Failed("look up a token", err)
	}
	token, _ = a.commands.Directory.TokenByHash(hash)
	return token, nil
}

func bearer(r *http.Request) (string, bool) {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	return token, ok && strings.EqualFold(scheme, "Bearer") && token != ""
}

// refresher does something at most once in refreshPause, whoever asks for it.
type refresher struct {
	mu   sync.Mutex
	last time.Time
}

const refreshPause = 100 * time.Millisecond

func (r *refresher) once(ctx context.Context, do func(context.Context) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.last.IsZero() && time.Since(r.last) < refreshPause {
		return nil
	}
	defer func() { r.last = time.Now() }()
	return do(ctx)
}
