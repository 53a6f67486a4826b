package http

import (
	"context"
	"net/http"

	"github.com/gorilla/mux"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
)

// deliveryPath matches a delivery's id in a path.
const deliveryPath = "/webhooks/deliveries/{delivery:[0-9A-Fa-f-]+}"

func (s *Server) deliveryRoutes() {
	s.api("POST", deliveryPath+"/retry", domain.ScopeWebhooksWrite, s.changeDelivery(s.commands.RetryDelivery))
	s.api("POST", deliveryPath+"/cancel", domain.ScopeWebhooksWrite, s.changeDelivery(s.commands.CancelDelivery))
}

// changeDelivery answers with the delivery as it stands after the change; the
// attempt itself, if one follows, is made by whoever works on the queue.
func (s *Server) changeDelivery(change func(context.Context, commands.Caller, domain.DeliveryID) (domain.Delivery, error)) handler {
	return func(x *exchange, r *http.Request) error {
		id, ok := parseUUID(mux.Vars(r)["delivery"])
		if !ok {
			return domain.NotFound("delivery")
		}
		d, err := change(r.Context(), x.caller, domain.DeliveryID(id))
		if err != nil {
			return err
		}
		return x.answer(http.StatusAccepted, deliveryView{
			ID: domain.DeliveryID(id), EventID: d.EventID, WebhookID: d.WebhookID, State: d.State,
			BatchID: idOrNil(d.BatchID), Attempts: d.Attempts, NextAttemptAt: moment(d.NextAttemptAt),
		})
	}
}

type deliveryView struct {
	ID            domain.DeliveryID    `json:"delivery_id"`
	EventID       domain.EventID       `json:"event_id"`
	WebhookID     domain.WebhookID     `json:"webhook_id"`
	BatchID       *domain.DeliveryID   `json:"batch_id"` // null: it goes by itself
	State         domain.DeliveryState `json:"state"`
	Attempts      int                  `json:"attempts"`
	NextAttemptAt moment               `json:"next_attempt_at"`
}

func idOrNil(id domain.DeliveryID) *domain.DeliveryID {
	if id == (domain.DeliveryID{}) {
		return nil
	}
	return &id
}
