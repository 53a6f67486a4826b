package commands

import (
	"context"

	"github.com/medilab/webhooks/domain"
)

// CancelDelivery ends a pending delivery: no attempt follows. One that ended
// already is a Conflict, and so is one of several in a batch.
func (c *Commands) CancelDelivery(ctx context.Context, caller Caller, id domain.DeliveryID) (domain.Delivery, error) {
	return c.changeDelivery(ctx, caller, id, func(d domain.Delivery, member *domain.Delivery) (_ domain.Change, err error) {
		waits := id
		if member != nil {
			if _, err = domain.DecideCancel(member.In(d), member.EventID, d.WebhookID, domain.CancelRequested); err != nil {
				return nil, err
			}
			waits, err = member.BatchID, domain.CheckCancelMember(*member, d)
		}
		if err == nil {
			d.Waiting, err = c.Queue.Waits(ctx, waits)
		}
		if err != nil {
			return nil, err
		}
		return domain.DecideCancel(d, d.EventID, d.WebhookID, domain.CancelRequested)
	})
}
