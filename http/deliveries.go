package http

import (
	"context"
	"net/http"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
)

func (s *Server) deliveryOperations() []operation {
	return []operation{{
		method: "POST", path: "/webhooks/deliveries/{delivery}/retry", id: "retryDelivery", summary: "Attempt a delivery now", scope: domain.ScopeWebhooksWrite,
		status: http.StatusAccepted, answer: answerOf[deliveryChangeView], conflicts: true, serve: s.changeDelivery(s.commands.RetryDelivery),
	}, {
		method: "POST", path: "/webhooks/deliveries/{delivery}/cancel", id: "cancelDelivery", summary: "Never attempt a delivery again", scope: domain.ScopeWebhooksWrite,
		status: http.StatusAccepted, answer: answerOf[deliveryChangeView], conflicts: true, serve: s.changeDelivery(s.commands.CancelDelivery),
	}}
}

// deliveryChangeView is a delivery after the change. The attempt, if one follows, is made
// by a worker.
type deliveryChangeView struct {
	ID            domain.DeliveryID    `json:"delivery_id"`
	EventID       domain.EventID       `json:"event_id"`
	WebhookID     domain.WebhookID     `json:"webhook_id"`
	BatchID       *domain.DeliveryID   `json:"batch_id"` // null: not part of a batch
	State         domain.DeliveryState `json:"state"`
	Attempts      int                  `json:"attempts"`
	NextAttemptAt moment               `json:"next_attempt_at"`
}

func (s *Server) changeDelivery(change func(context.Context, commands.Caller, domain.DeliveryID) (domain.Delivery, error)) handler {
	return func(x *request, r *http.Request) error {
		id, err := pathID[domain.DeliveryID](r, "delivery")
		if err != nil {
			return err
		}
		d, err := change(r.Context(), x.caller, id)
		view := deliveryChangeView{
			ID: id, EventID: d.EventID, WebhookID: d.WebhookID, State: d.State, Attempts: d.Attempts, NextAttemptAt: moment(d.NextAttemptAt),
		}
		if d.BatchID != (domain.DeliveryID{}) {
			view.BatchID = &d.BatchID
		}
		return x.respond(view, err)
	}
}
