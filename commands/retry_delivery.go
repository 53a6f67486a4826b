package commands

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/medilab/webhooks/domain"
)

// RetryDelivery asks for an attempt now, also of what was delivered: it starts its count of
// retries again. A cancelled delivery is a Conflict. One that waits for others goes at once, by
// itself; one that went in a batch goes again with it.
func (c *Commands) RetryDelivery(ctx context.Context, caller Caller, id domain.DeliveryID) (domain.Delivery, error) {
	return c.changeDelivery(ctx, caller, id, func(d domain.Delivery, member *domain.Delivery) (domain.Change, error) {
		if member != nil {
			if reason := member.In(d).CancelReason; reason != d.CancelReason { // the batch left it out
				if d.CancelReason == domain.CancelReplayed { // then the event says how its data went
					_, err := c.dataOf(ctx, member.EventID)
					return nil, cmp.Or(err, nothingToDeliver(reason))
				}
				return nil, nothingToDeliver(reason)
			}
		}
		w, _ := c.Directory.Webhook(d.WebhookID)
		if d.Members != nil {
			batch := id
			if member != nil {
				batch = member.BatchID
			}
			events, left, err := BatchEvents(ctx, c.Log, batch, true)
			if err != nil && !errors.Is(err, ErrUnreadable) {
				return nil, Failed("read a batch", err)
			}
			if err == nil && len(events) == 0 && !slices.ContainsFunc(left, func(one domain.LeftOut) bool { return one.Reason != domain.CancelReplayed }) {
				return nil, domain.Conflict("each event of this batch was sent again by itself: there is nothing to deliver; cancel it if it holds up others")
			}
		}
		size := d.Size
		var data []byte
		if d.Members == nil {
			var err error
			if data, err = c.dataOf(ctx, d.EventID); err != nil {
				return nil, err
			}
			size = len(data)
		}
		retry, err := domain.DecideRetry(d, w, d.EventID, size)
		if err != nil {
			return nil, err
		}
		retry.Line = w.LineOf(data)
		return retry, nil
	})
}

// dataOf returns an event's data: its size bounds the queue's memory, and it decides the line.
func (c *Commands) dataOf(ctx context.Context, id domain.EventID) ([]byte, error) {
	events, err := c.Log.Load(ctx, id.Stream())
	if err != nil {
		return nil, Failed("look for an event", err)
	}
	for _, e := range events {
		if triggered, ok := e.Value.(domain.EventTriggered); ok {
			if triggered.Erased {
				return nil, nothingToDeliver(CancelGone(triggered.Content))
			}
			return triggered.EventData, nil
		}
	}
	return nil, domain.NotFound("event")
}

// nothingToDeliver refuses what is gone for the reason.
func nothingToDeliver(reason domain.CancelReason) error {
	if reason == domain.CancelExpired {
		return domain.Conflict("the data of this event has expired: there is nothing to deliver")
	}
	return domain.Conflict("the data of this event is erased: there is nothing to deliver")
}
