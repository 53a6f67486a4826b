package commands

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/medilab/webhooks/domain"
)

// Rotation is a request to replace a webhook's secret.
type Rotation struct {
	Secret  domain.Secret // the zero secret asks for a new random one
	Overlap time.Duration // how long the secret before signs too
	Versions
}

// RotateSecret replaces a webhook's secret. The secret in clear is in the result and nowhere
// else.
func (c *Commands) RotateSecret(ctx context.Context, caller Caller, id domain.WebhookID, asked Rotation) (domain.Webhook, domain.Secret, error) {
	if _, err := c.webhook(ctx, id); err != nil {
		return domain.Webhook{}, domain.Secret{}, err
	}
	if err := domain.CheckRotation(asked.Secret, asked.Overlap); err != nil {
		return domain.Webhook{}, domain.Secret{}, err
	}
	fresh := asked.Secret
	if fresh.IsZero() {
		random := make([]byte, 32)
		rand.Read(random) //nolint:errcheck // it never fails, see crypto/rand
		fresh = domain.GeneratedSecret(random)
	}
	sealed, err := c.Vault.Encrypt(id, SecretField, fresh.Reveal())
	if err != nil {
		return domain.Webhook{}, domain.Secret{}, domain.Internal("seal a secret", err)
	}
	w, err := c.changeWebhook(ctx, caller, id, asked.Versions, func(w domain.Webhook) ([]domain.Change, error) {
		return domain.DecideRotateSecret(w, sealed, fresh.PublicKey(), c.Log.Clock().Now(), asked.Overlap)
	})
	return w, fresh, err
}
