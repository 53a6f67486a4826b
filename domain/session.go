package domain

import "time"

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
