package domain

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// An API token lets its bearer call us. Only its SHA-256 is kept.

// Scope is one right of a token.
type Scope string

// The scopes (contract section 2). Admin includes all.
const (
	ScopeWebhooksRead  Scope = "webhooks:read"
	ScopeWebhooksWrite Scope = "webhooks:write"
	ScopeEventsWrite   Scope = "events:write"
	ScopePayloadsRead  Scope = "payloads:read" // what events hold and receivers answer; without it answers are redacted
	ScopeReplaysWrite  Scope = "replays:write"
	ScopeAuditRead     Scope = "audit:read"
	ScopeAdmin         Scope = "admin"
)

// Scopes lists them all.
var Scopes = []Scope{ScopeWebhooksRead, ScopeWebhooksWrite, ScopeEventsWrite, ScopePayloadsRead, ScopeReplaysWrite, ScopeAuditRead, ScopeAdmin}

// ScopeNames lists the scopes in a text of any language.
func ScopeNames() string {
	names := make([]string, len(Scopes))
	for i, scope := range Scopes {
		names[i] = string(scope)
	}
	return strings.Join(names, ", ")
}

// Token is the state of one API token: the fold of its stream.
type Token struct {
	ID        TokenID
	Name      string
	Hash      string // hex SHA-256 of the token
	Prefix    string // what of the token may be shown
	Scopes    []Scope
	ExpiresAt time.Time // zero: never
	Revoked   bool
	CreatedAt time.Time
	Version   int64

	// Of a session.
	Session bool
	Of      TokenID // that was signed in by; zero: Actor and Scopes are the session's
	Actor   string
}

// Allows reports whether the token has the right.
func (t Token) Allows(scope Scope) bool {
	return slices.Contains(t.Scopes, scope) || slices.Contains(t.Scopes, ScopeAdmin)
}

// Valid reports whether the token may be used at the time.
func (t Token) Valid(at time.Time) bool {
	return t.Version > 0 && !t.Revoked && (t.ExpiresAt.IsZero() || at.Before(t.ExpiresAt))
}

// TokenCreated starts a token's stream.
type TokenCreated struct {
	ID        TokenID   `json:"id"`
	Name      string    `json:"name"`
	Hash      string    `json:"hash"`
	Prefix    string    `json:"prefix"`
	Scopes    []Scope   `json:"scopes"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
}

// TokenRevoked ends a token for good.
type TokenRevoked struct{}

func (TokenCreated) ChangeType() string { return "token.created" }
func (TokenRevoked) ChangeType() string { return "token.revoked" }

var _ = register(TokenCreated{}, TokenRevoked{})

// Evolve returns the token after a change that the log recorded at the time.
func (t Token) Evolve(change Change, at time.Time) Token {
	switch c := change.(type) {
	case TokenCreated:
		t = Token{ID: c.ID, Name: c.Name, Hash: c.Hash, Prefix: c.Prefix, Scopes: c.Scopes, ExpiresAt: c.ExpiresAt, CreatedAt: at, Version: t.Version}
	case SessionStarted:
		t = Token{ID: c.ID, Hash: c.Hash, Scopes: c.Scopes, ExpiresAt: c.ExpiresAt, CreatedAt: at, Version: t.Version, Session: true, Of: c.Token, Actor: c.Actor}
	case TokenRevoked, SessionEnded:
		t.Revoked = true
	default:
		return t
	}
	t.Version++
	return t
}

// DecideCreateToken checks what a new token may do.
func DecideCreateToken(c TokenCreated) (Change, error) {
	if n := utf8.RuneCountInString(c.Name); n < 1 || n > MaxNameLength {
		return nil, Invalid("name", fmt.Sprintf("must have 1 to %d characters", MaxNameLength))
	}
	if problem := textProblem(c.Name); problem != "" {
		return nil, Invalid("name", problem)
	}
	if len(c.Scopes) == 0 {
		return nil, Invalid("scopes", "must name at least one scope")
	}
	for _, s := range c.Scopes {
		if !slices.Contains(Scopes, s) {
			return nil, Invalid("scopes", "unknown scope "+string(s)+": use "+ScopeNames())
		}
	}
	return c, nil
}

// DecideRevoke ends the token; revoking it again makes no event.
func DecideRevoke(t Token) ([]Change, error) {
	if t.Version == 0 {
		return nil, NotFound("token")
	}
	if t.Revoked {
		return nil, nil
	}
	if t.Session {
		return []Change{SessionEnded{}}, nil
	}
	return []Change{TokenRevoked{}}, nil
}

// A session is a token that a sign-in makes: it ends soon, and its bearer, a browser, acts
// as who signed in.

// SessionStarted starts the stream of a session.
type SessionStarted struct {
	ID        TokenID   `json:"id"`
	Hash      string    `json:"hash"`
	Token     TokenID   `json:"token,omitzero"`  // it was signed in by: the session acts with its rights, and ends with it
	Actor     string    `json:"actor,omitempty"` // of who has no token here
	Scopes    []Scope   `json:"scopes,omitempty"`
	ExpiresAt time.Time `json:"expires_at"`
}

// SessionEnded ends a session for good.
type SessionEnded struct{}

func (SessionStarted) ChangeType() string { return "session.started" }
func (SessionEnded) ChangeType() string   { return "session.ended" }

var _ = register(SessionStarted{}, SessionEnded{})
