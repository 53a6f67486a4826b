package commands

import (
	"context"
	"runtime"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
)

// RegisterWebhook makes a webhook of what the caller asks for.
func (c *Commands) RegisterWebhook(ctx context.Context, caller Caller, spec domain.WebhookSpec) (domain.Webhook, error) {
	asked, err := c.CheckSpec(ctx, spec, true)
	if err != nil {
		return domain.Webhook{}, err
	}
	id := domain.WebhookID(uuid.Must(uuid.NewV7()))
	sealing, err := c.seal(id, domain.Webhook{}, asked)
	if err != nil {
		return domain.Webhook{}, err
	}
	var number int64
	if err := c.Pool.QueryRow(ctx, `SELECT nextval('medilab.webhook_number')`).Scan(&number); err != nil {
		return domain.Webhook{}, Failed("number a webhook", err)
	}
	registered := domain.DecideRegister(id, number, asked, sealing)
	appended, err := c.begin(ctx, caller, id.Stream(), registered)
	runtime.KeepAlive(asked) // with the filter that is in use from here on
	return domain.Webhook{}.Evolve(registered, appended.RecordedAt), Failed("register a webhook", err)
}
