package http

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
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
// another process, so the log is asked, for all strangers of the moment at once.
// One that is known may have been revoked: what was not heard of the others for
// too long is asked for too, and a node that is cut off from the log believes no
// token any more.
func (a authenticator) find(ctx context.Context, text string) (domain.Token, error) {
	hash, directory := commands.TokenHash(text), a.commands.Directory
	token, ok := directory.TokenByHash(hash)
	if ok && directory.Age() < tokenAge {
		return token, nil
	}
	if err := a.refresh.since(ctx, directory.CatchUp); err != nil {
		return domain.Token{}, commands.Failed("look up a token", err)
	}
	token, _ = directory.TokenByHash(hash)
	return token, nil
}

// tokenAge is how old may be what we know of a known token: a revoked one ends
// everywhere within a second.
const tokenAge = 900 * time.Millisecond

func bearer(r *http.Request) (string, bool) {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	return token, ok && strings.EqualFold(scheme, "Bearer") && token != ""
}

// refresher does something once for all who ask while it is done for others:
// one at a time, however many ask.
type refresher struct {
	asked atomic.Int64 // how many have asked

	mu     sync.Mutex
	served int64 // so many of them had asked when what was done last began
	err    error // what came of it
}

// refreshPatience bounds how long one who asks waits.
const refreshPatience = 2 * time.Second

// since does it, or takes what came of it for another, if that began after the call.
func (r *refresher) since(ctx context.Context, do func(context.Context) error) error {
	turn := r.asked.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.served >= turn {
		return r.err
	}
	r.served = r.asked.Load()
	// All of them wait for it, so it is not this one's leaving that ends it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), refreshPatience)
	defer cancel()
	r.err = do(ctx)
	return r.err
}
