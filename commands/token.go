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
	tokenShownChars = 8
)

// TokenHash is what the log keeps of a token: its SHA-256 in hex. A token is
// random and long, so that is enough.
func TokenHash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// CreateToken makes an API token. The token in clear is in the result and
// nowhere else. A zero expiry is none.
func (c *Commands) CreateToken(ctx context.Context, caller Caller, name string, scopes []domain.Scope, expiresAt time.Time) (domain.Token, domain.Secret, error) {
	unique, err := uuid.NewV7()
	if err != nil {
		return domain.Token{}, domain.Secret{}, domain.Internal("name a token", err)
	}
	random := make([]byte, 32)
	if _, err := rand.Read(random); err != nil {
		return domain.Token{}, domain.Secret{}, domain.Internal("make a token", err)
	}
	clear := tokenMark + base64.RawURLEncoding.EncodeToString(random)
	if !expiresAt.IsZero() {
		expiresAt = expiresAt.UTC().Truncate(time.Microsecond)
	}
	id := domain.TokenID(unique)
	created, err := domain.DecideCreateToken(domain.TokenCreated{
		ID: id, Name: name, Hash: TokenHash(clear), Prefix: clear[:tokenShownChars], Scopes: scopes, ExpiresAt: expiresAt,
	})
	if err != nil {
		return domain.Token{}, domain.Secret{}, err
	}
	appended, err := c.append(ctx, caller, id.Stream(), 0, created)
	if err != nil {
		return domain.Token{}, domain.Secret{}, Failed("create a token", err)
	}
	return domain.Token{}.Evolve(created, appended.RecordedAt), domain.NewSecret(clear), nil
}

// RevokeToken ends a token for good. Doing it again changes nothing.
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
