package commands

import (
	"context"

	"github.com/medilab/webhooks/domain"
)

// ChangeWebhook changes the given fields and no others, of a webhook of one of the versions.
func (c *Commands) ChangeWebhook(ctx context.Context, caller Caller, id domain.WebhookID, spec domain.WebhookSpec, versions Versions) (domain.Webhook, error) {
	// What does not exist is not found, whatever was asked of it.
	if _, err := c.webhook(ctx, id); err != nil {
		return domain.Webhook{}, err
	}
	asked, err := c.CheckSpec(ctx, spec, false)
	if err != nil {
		return domain.Webhook{}, err
	}
	return c.changeWebhook(ctx, caller, id, versions, func(w domain.Webhook) ([]domain.Change, error) {
		sealing, err := c.seal(id, w, asked)
		if err != nil {
			return nil, err
		}
		return domain.DecideChange(w, asked, sealing)
	})
}
