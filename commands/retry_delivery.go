package commands

import (
	"context"

	"github.com/medilab/webhooks/domain"
)

// RetryDelivery asks for an attempt now, whatever became of the delivery: it
// starts its count of retries again. One that waits for others goes at once, by
// itself; one that went in a batch goes again with it.
func (c *Commands) RetryDelivery(ctx context.Context, caller Caller, id domain.DeliveryID) (domain.Delivery, error) {
	return c.changeDelivery(ctx, caller, id, func(d domain.Delivery, _ *domain.Delivery) (domain.Change, error) {
		w, _ := c.Directory.Webhook(d.WebhookID)
		size := d.Size
		if d.Members == nil {
			var err error
			if size, err = c.sizeOf(ctx, d.EventID); err != nil {
				return nil, err
			}
		}
		return domain.DecideRetry(d, w, d.EventID, size)
	})
}

// sizeOf returns the bytes of an event's data, by which the queue bounds its memory.
func (c *Commands) sizeOf(ctx context.Context, id domain.EventID) (int, error) {
	events, err := c.Log.Load(ctx, id.Stream())
	if err != nil {
		return 0, Failed("look for an event", err)
	}
	for _, e := range events {
		if triggered, ok := e.Value.(domain.EventTriggered); ok {
			return len(triggered.EventData), nil
		}
	}
	return 0, domain.NotFound("event")
}
