package commands

import (
	"context"

	"github.com/medilab/webhooks/domain"
)

// ChangeWebhook changes the given fields and no others. With
// ifVersion it does so only while that is the webhook's version.
func (c *Commands) ChangeWebhook(ctx context.Context, caller Caller, id domain.WebhookID, spec domain.WebhookSpec, ifVersion *int64) (domain.Webhook, error) {
	// What does not exist is not found, whatever was asked of it.
	if _, err := c.webhook(ctx, id); err != nil {
		return domain.Webhook{}, err
	}
	asked, err := c.CheckSpec(ctx, spec, false)
	if err != nil {
		return domain.Webhook{}, err
	}
	return c.changeWebhook(ctx, caller, id, ifVersion, func(w domain.Webhook) ([]domain.Change, error) {
		sealing, err := c.seal(id, w, asked)
		if err != nil {
			return nil, err
		}
		return domain.DecideChange(w, asked, sealing)
	})
}
