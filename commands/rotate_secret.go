package commands

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/medilab/webhooks/domain"
)

// RotateSecret replaces a webhook's secret; the one before signs beside it for
// the overlap. The zero secret asks for a new random one. The secret in clear is
// in the result and nowhere else.
func (c *Commands) RotateSecret(ctx context.Context, caller Caller, id domain.WebhookID, secret domain.Secret, overlap time.Duration) (domain.Webhook, domain.Secret, error) {
	if _, err := c.webhook(ctx, id); err != nil {
		return domain.Webhook{}, domain.Secret{}, err
	}
	if err := domain.CheckRotation(secret, overlap); err != nil {
		return domain.Webhook{}, domain.Secret{}, err
	}
	if secret.IsZero() {
		random := make([]byte, 32)
		if _, err := rand.Read(random); err != nil {
			return domain.Webhook{}, domain.Secret{}, domain.Internal("make a secret", err)
		}
		secret = domain.GeneratedSecret(random)
	}
	sealed, err := c.Vault.Encrypt(id, SecretField, secret.Reveal())
	if err != nil {
		return domain.Webhook{}, domain.Secret{}, domain.Internal("seal a secret", err)
	}
	w, err := c.changeWebhook(ctx, caller, id, nil, func(w domain.Webhook) ([]domain.Change, error) {
		return domain.DecideRotateSecret(w, sealed, c.Log.Clock().Now(), overlap)
	})
	if err != nil {
		return domain.Webhook{}, domain.Secret{}, err
	}
	return w, secret, nil
}
