package commands

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// Rotation is a request to replace a webhook's secret.
type Rotation struct {
	Secret  domain.Secret // the zero secret asks for a new random one
	Overlap time.Duration // how long the secret before signs too
	Key     string        // with the same key it is done once; "": none
}

var errRotated = errors.New("the key was used")

// RotateSecret replaces a webhook's secret. The secret in clear is in the result and nowhere
// else. Asked for again with the same key, it returns the same and changes nothing.
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
	var also []func(domain.Webhook) eventstore.Write
	var used domain.IdempotencyKeyUsed
	stream := domain.KeyStream(caller.Actor, asked.Key)
	if asked.Key != "" {
		also = append(also, func(w domain.Webhook) eventstore.Write {
			reserved := domain.IdempotencyKeyUsed{EventIDs: []domain.EventID{}, WebhookVersion: w.Version + 1, BodyHash: asked.hash(id)}
			return eventstore.Write{Stream: stream, Events: newEvents(reserved), Metadata: caller.metadata()}
		})
	}
	w, err := c.changeWebhook(ctx, caller, id, nil, func(w domain.Webhook) ([]domain.Change, error) {
		if asked.Key != "" {
			reserved, before, err := c.usedKey(ctx, caller, stream)
			if used = before; err != nil || reserved != nil {
				return nil, errors.Join(err, errRotated)
			}
		}
		return domain.DecideRotateSecret(w, sealed, fresh.PublicKey(), c.Log.Clock().Now(), asked.Overlap)
	}, also...)
	switch {
	case used.BodyHash != "":
		return c.rotated(ctx, id, asked, used)
	case err != nil:
		return domain.Webhook{}, domain.Secret{}, err
	}
	return w, fresh, nil
}

// rotated returns what the rotation that used the key returned.
func (c *Commands) rotated(ctx context.Context, id domain.WebhookID, asked Rotation, used domain.IdempotencyKeyUsed) (w domain.Webhook, secret domain.Secret, err error) {
	if used.BodyHash != asked.hash(id) {
		return w, secret, errOtherBody
	}
	events, err := c.Log.Load(ctx, id.Stream())
	if err != nil {
		return w, secret, Failed("look up a rotation", err)
	}
	for _, e := range events {
		if change, ok := e.Value.(domain.Change); ok && e.Version <= used.WebhookVersion {
			w = w.Evolve(change, e.RecordedAt)
		}
	}
	text, err := c.Vault.Decrypt(id, SecretField, w.Secret)
	if err != nil {
		return w, secret, domain.Internal("open a secret", err)
	}
	if secret = domain.NewSecret(text); !asked.Secret.IsZero() && !asked.Secret.Equal(secret) {
		return w, domain.Secret{}, errOtherBody
	}
	return w, secret, nil
}

// hash is the same for the same request, the secret aside: a hash would help to guess it.
func (r Rotation) hash(id domain.WebhookID) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "rotate-secret %s %s %t", uuid.UUID(id), r.Overlap, r.Secret.IsZero()))
	return hex.EncodeToString(sum[:])
}
