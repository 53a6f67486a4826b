package http

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
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
	cookies  cookies
}

// adminToken stands for the token from the environment.
var adminToken = domain.Token{Scopes: []domain.Scope{domain.ScopeAdmin}}

func newAuthenticator(config Config) authenticator {
	return authenticator{
		commands: config.Commands, admin: sha256.Sum256([]byte(config.AdminToken.Reveal())), hasAdmin: !config.AdminToken.IsZero(), actor: cmp.Or(config.AdminActor, commands.ActorAdmin),
		identity: config.Identity, logins: &loginLimiter{networks: map[netip.Prefix]*failedLogins{}}, cookies: newCookies(config.PublicURL),
	}
}

// authorize returns the caller, also one that is refused, and the token, which expires with the
// session if there is one.
func (a authenticator) authorize(r *http.Request, o *operation) (caller commands.Caller, token domain.Token, err error) {
	caller, token, session, err := a.identify(r)
	if session.Session && (token.ExpiresAt.IsZero() || session.ExpiresAt.Before(token.ExpiresAt)) {
		token.ExpiresAt = session.ExpiresAt
	}
	switch {
	case err != nil:
		return caller, token, err
	case o.scope != anyToken && !token.Allows(o.scope) && o.orScope == "":
		return caller, token, domain.Forbidden("the token needs the scope " + string(o.scope))
	case o.scope != anyToken && !token.Allows(o.scope) && !token.Allows(o.orScope):
		return caller, token, domain.Forbidden("the token needs the scope " + string(o.scope) + " or " + string(o.orScope))
	case o.alsoScope != "" && !token.Allows(o.alsoScope):
		return caller, token, domain.Forbidden("the token needs the scope " + string(o.alsoScope) + " as well")
	}
	return caller, token, nil
}

var (
	// errNobody refuses a request without credentials.
	errNobody = domain.Unauthorized("send the header Authorization: Bearer <token>")
	// errAnother refuses a request for a session that is not the cookie's.
	errAnother = domain.Unauthorized("somebody else has signed in; sign in again")
)

// identify returns who asks, by a token in the header or the cookie of a session, and the
// token. The session is zero if there is none. Refusals of a network that fails too often are
// delayed.
func (a authenticator) identify(r *http.Request) (caller commands.Caller, token, session domain.Token, err error) {
	defer func() {
		if err != errNobody { //nolint:errorlint // as it is
			err = a.logins.delay(r, err)
		}
	}()
	if text, ok := bearer(r); ok {
		caller, token, err = a.authenticate(r.Context(), text)
		return caller, token, session, err
	}
	clear := a.cookies.read(r, sessionCookie)
	if clear == "" || r.Header.Get("Authorization") != "" {
		return caller, token, session, errNobody
	}
	if err = a.cookies.checkOwn(r); err != nil {
		return caller, token, session, err
	}
	session, err = a.find(r.Context(), commands.SessionHash(clear, ""), commands.SessionHash(clear, a.bound()))
	if err != nil {
		return caller, token, session, err
	}
	now := a.commands.Now()
	caller, token = commands.Caller{Actor: session.Actor}, session
	if session.Of != (domain.TokenID{}) {
		token, _ = a.commands.Directory.Token(session.Of)
		caller = commands.TokenCaller(token)
	}
	if !session.Session || !session.Valid(now) || !token.Valid(now) {
		return commands.Caller{}, domain.Token{}, domain.Token{}, domain.Unauthorized("the session has ended; sign in again")
	}
	if meant, err := url.PathUnescape(r.Header.Get(sessionActor.name)); err != nil || meant != "" && meant != caller.Actor {
		return commands.Caller{}, domain.Token{}, domain.Token{}, errAnother
	}
	return caller, token, session, nil
}

// bound returns what sessions of the administrator are bound to, so that they end when the
// token in the environment changes.
func (a authenticator) bound() string { return hex.EncodeToString(a.admin[:]) }

// boundTo returns what the caller's sessions are bound to.
func (a authenticator) boundTo(caller commands.Caller, token domain.Token) string {
	if token.ID == (domain.TokenID{}) && caller.Actor == a.actor {
		return a.bound()
	}
	return ""
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
		return commands.Caller{Actor: bearer.Actor}, domain.Token{Scopes: bearer.Scopes, ExpiresAt: bearer.ExpiresAt}, nil
	}
	if token, err = a.find(ctx, commands.TokenHash(text)); err == nil && (token.Session || !token.Valid(a.commands.Now())) {
		err = domain.Unauthorized("the token is unknown, expired or revoked")
	}
	return commands.TokenCaller(token), token, err
}

// find looks a token up by a hash that it may have: comparing hashes tells an attacker nothing about
// tokens. An unknown one may have just been created by another process, so the log is
// read, once for all that ask meanwhile. So it is if the others have not been heard of for
// tokenAge, as a known one may have been revoked: a node that is cut off from the log
// accepts no tokens.
func (a authenticator) find(ctx context.Context, hashes ...string) (token domain.Token, err error) {
	directory, known := a.commands.Directory, false
	look := func() {
		for _, hash := range hashes {
			if one, ok := directory.TokenByHash(hash); ok {
				token, known = one, true
			}
		}
	}
	if look(); known && directory.Age() < tokenAge {
		return token, nil
	}
	if err := directory.CatchUp(ctx); err != nil {
		return domain.Token{}, commands.Failed("look up a token", err)
	}
	token = domain.Token{}
	look()
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
