package commands

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

const (
	tokenMark       = "mlw_" // so that secret scanners know it
	sessionMark     = "mls_"
	tokenShownChars = 8
)

// TokenHash is what the log keeps of a token: its SHA-256 in hex. A token is
// random and long, so that is enough.
func TokenHash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// newToken returns the id of a token and the token in clear.
func newToken(mark string) (id domain.TokenID, clear string) {
	random := make([]byte, 32)
	_, _ = rand.Read(random) // it never fails
	return domain.TokenID(uuid.Must(uuid.NewV7())), mark + base64.RawURLEncoding.EncodeToString(random)
}

// CreateToken makes an API token. The token in clear is in the result and
// nowhere else. A zero expiry is none.
func (c *Commands) CreateToken(ctx context.Context, caller Caller, name string, scopes []domain.Scope, expiresAt time.Time) (domain.Token, domain.Secret, error) {
	id, clear := newToken(tokenMark)
	if !expiresAt.IsZero() {
		expiresAt = expiresAt.UTC().Truncate(time.Microsecond)
	}
	created, err := domain.DecideCreateToken(domain.TokenCreated{
		ID: id, Name: name, Hash: TokenHash(clear), Prefix: clear[:tokenShownChars], Scopes: scopes, ExpiresAt: expiresAt,
	})
	if err != nil {
		return domain.Token{}, domain.Secret{}, err
	}
	return c.startToken(ctx, caller, id, clear, created)
}

// StartSession makes a session, which s says whose it is and when it ends. What it is bound
// to is needed to find it by what is in the result, see SessionHash.
func (c *Commands) StartSession(ctx context.Context, caller Caller, s domain.SessionStarted, bound string) (domain.Token, domain.Secret, error) {
	id, clear := newToken(sessionMark)
	s.ID, s.Hash, s.ExpiresAt = id, SessionHash(clear, bound), s.ExpiresAt.UTC().Truncate(time.Microsecond)
	return c.startToken(ctx, caller, id, clear, s)
}

// SessionHash is what the log keeps of a session: nothing can be guessed from it.
func SessionHash(clear, bound string) string { return TokenHash(clear + bound) }

func (c *Commands) startToken(ctx context.Context, caller Caller, id domain.TokenID, clear string, change domain.Change) (domain.Token, domain.Secret, error) {
	appended, err := c.begin(ctx, caller, id.Stream(), change)
	return domain.Token{}.Evolve(change, appended.RecordedAt), domain.NewSecret(clear), Failed("create a token", err)
}

// RevokeToken ends a token or a session for good. Doing it again changes nothing.
func (c *Commands) RevokeToken(ctx context.Context, caller Caller, id domain.TokenID) error {
	if err := c.Directory.CatchUp(ctx); err != nil {
		return Failed("revoke a token", err)
	}
	_, err := c.Directory.Execute(ctx, func(context.Context) (eventstore.Unit, error) {
		token, _ := c.Directory.Token(id)
		changes, err := domain.DecideRevoke(token)
		return caller.unit(id.Stream(), token.Version, changes...), err
	})
	return Failed("revoke a token", err)
}
