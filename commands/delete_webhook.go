package commands

import (
	"context"

	"github.com/medilab/webhooks/domain"
)

// DeleteWebhook ends a webhook for good; its history stays. With ifVersion it
// does so only while that is the webhook's version.
func (c *Commands) DeleteWebhook(ctx context.Context, caller Caller, id domain.WebhookID, ifVersion *int64) error {
	_, err := c.changeWebhook(ctx, caller, id, ifVersion, domain.DecideDelete)
	return err
}
