package commands

import (
	"context"

	"github.com/medilab/webhooks/domain"
)

// DeleteWebhook ends a webhook of one of the versions for good; its history stays.
func (c *Commands) DeleteWebhook(ctx context.Context, caller Caller, id domain.WebhookID, versions Versions) error {
	_, err := c.changeWebhook(ctx, caller, id, versions, domain.DecideDelete)
	return err
}
