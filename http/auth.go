package http

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/http/identity"
)

// authenticator identifies the caller by the token, and checks its scope.
type authenticator struct {
	commands *commands.Commands
	admin    [sha256.Size]byte
	hasAdmin bool
	actor    string             // of the administrator
	identity *identity.Provider // nil: none
	logins   *loginLimiter
}

// adminToken stands for the token from the environment.
var adminToken = domain.Token{Scopes: []domain.Scope{domain.ScopeAdmin}}

func newAuthenticator(config Config) authenticator {
	return authenticator{
		commands: config.Commands, admin: sha256.Sum256([]byte(config.AdminToken.Reveal())), hasAdmin: !config.AdminToken.IsZero(), actor: cmp.Or(config.AdminActor, commands.ActorAdmin),
		identity: config.Identity, logins: newLoginLimiter(),
	}
}

// authorize returns the caller, also one that is refused. Refusals of a network that fails
// too often are delayed.
func (a authenticator) authorize(r *http.Request, o *operation) (caller commands.Caller, token domain.Token, err error) {
	text, ok := bearer(r)
	if !ok {
		return caller, token, domain.Unauthorized("send the header Authorization: Bearer <token>")
	}
	caller, token, err = a.authenticate(r.Context(), text)
	switch {
	case err != nil:
		return caller, token, a.logins.delay(r, err)
	case o.scope != anyToken && !token.Allows(o.scope) && (o.orScope == "" || !token.Allows(o.orScope)):
		return caller, token, domain.Forbidden("the token needs the scope " + o.scopes())
	}
	return caller, token, nil
}

// authenticate returns the token with the text, and who has it: the administrator, somebody
// of the clinic's identity provider, or a service.
func (a authenticator) authenticate(ctx context.Context, text string) (caller commands.Caller, token domain.Token, err error) {
	if a.hasAdmin {
		sum := sha256.Sum256([]byte(text))
		if subtle.ConstantTimeCompare(sum[:], a.admin[:]) == 1 {
			return commands.Caller{Actor: a.actor}, adminToken, nil
		}
	}
	if a.identity != nil && identity.IsToken(text) {
		bearer, err := a.identity.Authenticate(ctx, text, a.commands.Now())
		switch {
		case errors.Is(err, identity.ErrRefused):
			return caller, token, domain.Unauthorized(err.Error())
		case err != nil:
			return caller, token, domain.Unavailable("the identity provider's keys cannot be had now; try again", err)
		}
		return commands.Caller{Actor: bearer.Actor}, domain.Token{Scopes: bearer.Scopes}, nil
	}
	if token, err = a.find(ctx, text); err == nil && !token.Valid(a.commands.Now()) {
		err = domain.Unauthorized("the token is unknown, expired or revoked")
	}
	return commands.TokenCaller(token), token, err
}

// find looks a token up by its hash: comparing hashes tells an attacker nothing about
// tokens. An unknown one may have just been created by another process, so the log is
// read, once for all that ask meanwhile. So it is if the others have not been heard of for
// tokenAge, as a known one may have been revoked: a node that is cut off from the log
// accepts no tokens.
func (a authenticator) find(ctx context.Context, text string) (domain.Token, error) {
	hash, directory := commands.TokenHash(text), a.commands.Directory
	token, ok := directory.TokenByHash(hash)
	if ok && directory.Age() < tokenAge {
		return token, nil
	}
	if err := directory.CatchUp(ctx); err != nil {
		return domain.Token{}, commands.Failed("look up a token", err)
	}
	token, _ = directory.TokenByHash(hash)
	return token, nil
}

// tokenAge is how old the knowledge of a token may be: a revoked one is refused everywhere
// within a second.
const tokenAge = 900 * time.Millisecond

func bearer(r *http.Request) (string, bool) {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	return token, ok && strings.EqualFold(scheme, "Bearer") && token != ""
}
