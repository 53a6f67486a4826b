package http

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/http/identity"
)

const (
	sessionPath  = "/session"
	callbackPath = sessionPath + "/callback"
	panelPath    = "/admin"

	// sessionTime is how long a session lasts, unless its token ends before.
	sessionTime = 12 * time.Hour
	// flowTime is how long signing in at the identity provider may take.
	flowTime = 10 * time.Minute

	sessionCookie = "medilab_session"
	flowCookie    = "medilab_sign_in"
)

func (s *Server) sessionOperations() []operation {
	operations := []operation{{
		method: "GET", path: sessionPath, id: "getSession", summary: "Who asks, and how people sign in", scope: public, identifies: true, answer: answerOf[sessionView],
		serve: s.getSession,
	}, {
		method: "POST", path: sessionPath, id: "startSession", summary: "Sign in: exchange a token for the cookie of a session, which ends with the token, and after twelve hours", scope: public, identifies: true,
		header: []headerParam{ownRequest}, body: signIn, status: http.StatusCreated, answer: answerOf[sessionView], serve: s.startSession,
	}, {
		method: "DELETE", path: sessionPath, id: "endSession", summary: "Sign out", scope: public, identifies: true,
		header: []headerParam{ownRequest}, status: http.StatusNoContent, serve: s.endSession,
	}}
	if s.config.SignIn == nil {
		return operations
	}
	return append(operations, operation{
		method: "GET", path: sessionPath + "/provider", id: "signInAtProvider", summary: "Lead a browser to the identity provider, to sign in there", scope: public,
		status: http.StatusFound, serve: s.signInAtProvider,
	}, operation{
		method: "GET", path: callbackPath, id: "signedInAtProvider", summary: "Where the identity provider leads the browser back to, and this to the panel", scope: public,
		query: []queryParam{textParam("code", "of the provider"), textParam("state", "of the request")}, status: http.StatusFound, serve: s.signedInAtProvider,
	})
}

// sessionView is who asks; nobody if all of it is null.
type sessionView struct {
	ID        *domain.TokenID `json:"id"` // of the session; null: there is a token
	Actor     *string         `json:"actor"`
	Scopes    []domain.Scope  `json:"scopes"`
	ExpiresAt moment          `json:"expires_at"`
	// Provider is whether people can sign in at the identity provider, ReasonRequired whether
	// reading payloads needs a reason.
	Provider       bool `json:"provider"`
	ReasonRequired bool `json:"reason_required"`
}

func (s *Server) viewSession(caller commands.Caller, token, session domain.Token) sessionView {
	v := sessionView{Provider: s.config.SignIn != nil, ReasonRequired: s.config.ReasonRequired, Scopes: append([]domain.Scope{}, token.Scopes...), ExpiresAt: moment(token.ExpiresAt)}
	if caller.Actor != "" {
		v.Actor = &caller.Actor
	}
	if session.Session {
		v.ID, v.ExpiresAt = &session.ID, moment(session.ExpiresAt)
	}
	return v
}

func (s *Server) getSession(x *request, r *http.Request) error {
	caller, token, session, err := s.auth.identify(r)
	if errors.Is(err, domain.KindUnauthorized) && !errors.Is(err, errAnother) && r.Header.Get("Authorization") == "" {
		if s.auth.cookies.read(r, sessionCookie) != "" {
			s.auth.cookies.set(x, r, sessionCookie, "", 0)
		}
		return x.respond(s.viewSession(caller, domain.Token{}, domain.Token{}), nil)
	}
	if err != nil {
		return err
	}
	x.caller.Actor = caller.Actor
	return x.respond(s.viewSession(caller, token, session), nil)
}

var signIn = object[string]{name: "SignIn", limit: maxManagementBody, fields: []field[string]{
	plain("token", jsonText, func(token *string) *string { return token }, schema{"description": "of this service, or of the identity provider", "writeOnly": true}).must(),
}}

func (s *Server) startSession(x *request, r *http.Request) error {
	var text string
	if err := s.auth.cookies.checkOwn(r); err != nil {
		return err
	}
	if err := signIn.read(x, r, &text, noRules); err != nil {
		return err
	}
	caller, token, err := s.auth.authenticate(r.Context(), strings.TrimSpace(text))
	if err != nil {
		return s.auth.logins.delay(r, err)
	}
	session, err := s.enter(x, r, caller, token)
	return x.respond(s.viewSession(caller, token, session), err)
}

// enter starts a session of the caller, who has the token, and sets its cookie.
func (s *Server) enter(x *request, r *http.Request, caller commands.Caller, token domain.Token) (domain.Token, error) {
	started := domain.SessionStarted{Token: token.ID, ExpiresAt: s.commands.Now().Add(sessionTime)}
	if !token.ExpiresAt.IsZero() && token.ExpiresAt.Before(started.ExpiresAt) {
		started.ExpiresAt = token.ExpiresAt
	}
	if token.ID == (domain.TokenID{}) {
		started.Actor, started.Scopes = caller.Actor, token.Scopes
	}
	caller.RequestID, x.caller.Actor = x.caller.RequestID, caller.Actor
	session, clear, err := s.commands.StartSession(r.Context(), caller, started, s.auth.boundTo(caller, token))
	if err == nil {
		s.auth.cookies.set(x, r, sessionCookie, clear.Reveal(), 0)
	}
	return session, err
}

// endSession signs out. Nobody is signed in any more, unless it was meant for another session.
func (s *Server) endSession(x *request, r *http.Request) error {
	caller, _, session, err := s.auth.identify(r)
	if err == nil && session.Session {
		caller.RequestID, x.caller.Actor = x.caller.RequestID, caller.Actor
		err = s.commands.RevokeToken(r.Context(), caller, session.ID)
	}
	if errors.Is(err, errAnother) || err != nil && !errors.Is(err, domain.KindUnauthorized) && !errors.Is(err, domain.KindNotFound) {
		return err
	}
	s.auth.cookies.set(x, r, sessionCookie, "", 0)
	return x.respond(nil, nil)
}

func (s *Server) signInAtProvider(x *request, r *http.Request) error {
	flow := identity.NewFlow()
	page, err := s.config.SignIn.Begin(r.Context(), flow, s.auth.cookies.origin(r)+apiRoot+callbackPath)
	if err != nil {
		return domain.Unavailable("the identity provider does not answer; try again", err)
	}
	s.auth.cookies.set(x, r, flowCookie, strings.Join([]string{flow.State, flow.Nonce, flow.Verifier}, "."), flowTime)
	x.Header().Set("Location", page)
	return x.respond(nil, nil)
}

// signedInAtProvider starts the session of who signed in at the identity provider. The panel
// says what went wrong.
func (s *Server) signedInAtProvider(x *request, r *http.Request) error {
	parts := append(strings.Split(s.auth.cookies.read(r, flowCookie), "."), "", "", "")
	flow := identity.Flow{State: parts[0], Nonce: parts[1], Verifier: parts[2]}
	s.auth.cookies.set(x, r, flowCookie, "", 0)
	bearer, err := s.config.SignIn.Finish(r.Context(), flow, s.auth.cookies.origin(r)+apiRoot+callbackPath, r.URL.Query(), s.commands.Now)
	problem := ""
	switch {
	case errors.Is(err, identity.ErrRefused):
		problem, x.err = "refused", s.auth.logins.delay(r, domain.Unauthorized(err.Error()))
	case err != nil:
		problem, x.err = "unavailable", err
	case len(bearer.Scopes) == 0:
		problem = "rights"
	default: // the provider's own token ends within minutes; it was to prove who this is
		_, err := s.enter(x, r, commands.Caller{Actor: bearer.Actor}, domain.Token{Scopes: bearer.Scopes})
		if err != nil {
			problem, x.err = "unavailable", err
		}
	}
	page := panelPath
	if problem != "" {
		page += "?sign_in=" + problem
	}
	x.Header().Set("Location", page)
	return x.respond(nil, nil)
}
