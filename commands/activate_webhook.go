package commands

import (
	"context"

	"github.com/medilab/webhooks/domain"
)

// ActivateWebhook lets a webhook's deliveries go on. Doing it again changes nothing.
func (c *Commands) ActivateWebhook(ctx context.Context, caller Caller, id domain.WebhookID, versions Versions) (domain.Webhook, error) {
	return c.changeWebhook(ctx, caller, id, versions, domain.DecideActivate)
}

// DeactivateWebhook makes a webhook's deliveries wait. Doing it again changes nothing.
func (c *Commands) DeactivateWebhook(ctx context.Context, caller Caller, id domain.WebhookID, versions Versions) (domain.Webhook, error) {
	return c.changeWebhook(ctx, caller, id, versions, domain.DecideDeactivate)
}
