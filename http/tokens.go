package http

import (
	"net/http"
	"slices"
	"time"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
)

func (s *Server) tokenOperations() []operation {
	return []operation{{
		method: "GET", path: "/tokens", id: "listTokens", summary: "API tokens and sessions of the panel, newest first", scope: domain.ScopeAdmin,
		query: []queryParam{limit, cursor}, answer: listOf[tokenView], serve: s.listTokens,
	}, {
		method: "POST", path: "/tokens", id: "createToken", summary: "Make a token; it is shown this once", scope: domain.ScopeAdmin,
		body: newToken, status: http.StatusCreated, answer: answerOf[createdTokenView], serve: s.createToken,
	}, {
		method: "DELETE", path: "/tokens/{token}", id: "revokeToken", summary: "End a token or a session for good", scope: domain.ScopeAdmin,
		status: http.StatusNoContent, serve: byID("token", s.revokeToken),
	}}
}

type tokenView struct {
	ID        domain.TokenID `json:"id"`
	Kind      string         `json:"kind"` // token, session
	Name      string         `json:"name"` // of a session: its actor
	Prefix    string         `json:"prefix"`
	Scopes    []domain.Scope `json:"scopes"`
	State     string         `json:"state"` // valid, expired, revoked
	CreatedAt moment         `json:"created_at"`
	ExpiresAt moment         `json:"expires_at"`
}

type createdTokenView struct {
	tokenView
	Token string `json:"token"`
}

func (s *Server) viewToken(t domain.Token) tokenView {
	v := tokenView{ID: t.ID, Kind: "token", Name: t.Name, Prefix: t.Prefix, Scopes: t.Scopes, CreatedAt: moment(t.CreatedAt), ExpiresAt: moment(t.ExpiresAt)}
	if t.Session {
		v.Kind, v.Name = "session", t.Actor
	}
	if of, ok := s.commands.Directory.Token(t.Of); ok && t.Session {
		v.Name, v.Scopes, t.Revoked = commands.TokenCaller(of).Actor, of.Scopes, t.Revoked || !of.Valid(s.commands.Now())
	}
	v.State = TokenState(t, s.commands.Now())
	return v
}

// TokenState returns whether a token is valid, expired or revoked.
func TokenState(t domain.Token, now time.Time) string {
	switch {
	case t.Revoked:
		return "revoked"
	case !t.Valid(now):
		return "expired"
	}
	return "valid"
}

func (s *Server) listTokens(x *request, r *http.Request) error {
	if err := s.commands.Directory.CatchUp(r.Context()); err != nil {
		return commands.Failed("list tokens", err)
	}
	tokens := s.commands.Directory.Tokens()
	slices.Reverse(tokens)
	views := make([]tokenView, len(tokens))
	for i, t := range tokens {
		views[i] = s.viewToken(t)
	}
	return x.respond(pageOf(views, x), nil)
}

type tokenRequest struct {
	name    string
	scopes  []domain.Scope
	expires time.Time
}

var newToken = object[tokenRequest]{name: "NewToken", limit: maxManagementBody, fields: []field[tokenRequest]{
	plain("name", jsonText, func(t *tokenRequest) *string { return &t.name }, schema{"description": "who uses it; stands in the log as the actor"}).must(),
	plain("scopes", textsType[domain.Scope](), func(t *tokenRequest) *[]domain.Scope { return &t.scopes }, schema{}).must(),
	plain("expires_at", jsonTime, func(t *tokenRequest) *time.Time { return &t.expires }, schema{"description": "left out: never"}),
}}

func (s *Server) createToken(x *request, r *http.Request) error {
	var asked tokenRequest
	if err := newToken.read(x, r, &asked, noRules); err != nil {
		return err
	}
	if !asked.expires.IsZero() && !asked.expires.After(s.commands.Now()) {
		return domain.Invalid("expires_at", "must be a time to come")
	}
	token, clear, err := s.commands.CreateToken(r.Context(), x.caller, asked.name, asked.scopes, asked.expires)
	return x.respond(createdTokenView{s.viewToken(token), clear.Reveal()}, err)
}

func (s *Server) revokeToken(x *request, r *http.Request, id domain.TokenID) error {
	return x.respond(nil, s.commands.RevokeToken(r.Context(), x.caller, id))
}
