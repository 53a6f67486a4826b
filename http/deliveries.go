package http

import (
	"context"
	"net/http"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

var deliveryState = choiceParam("state", "where deliveries stand", "", domain.DeliveryPending, domain.DeliveryDelivered, domain.DeliveryFailed, domain.DeliveryWithdrawn)
var attemptsMin = countParam("attempts_min", "so many attempts or more", 0, countSchema)

func (s *Server) deliveryOperations() []operation {
	return []operation{{
		method: "GET", path: "/webhooks/deliveries", id: "listAllDeliveries", summary: "Deliveries of all events, the newest event first: with state=failed, what never arrived", scope: domain.ScopeWebhooksRead, orScope: domain.ScopeAuditRead,
		query: []queryParam{deliveryState, whose, eventType, responseStatus, attemptsMin, from, to, limit, cursor}, answer: listOf[projections.Delivery], serve: s.ofAsked(whose, s.listAllDeliveries),
	}, {
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
	return byID("delivery", func(x *request, r *http.Request, id domain.DeliveryID) error {
		d, err := change(r.Context(), x.caller, id)
		view := deliveryChangeView{
			ID: id, EventID: d.EventID, WebhookID: d.WebhookID, State: d.State, Attempts: d.Attempts, NextAttemptAt: moment(d.NextAttemptAt),
		}
		if d.BatchID != (domain.DeliveryID{}) {
			view.BatchID = &d.BatchID
		}
		return x.respond(view, err)
	})
}

func (s *Server) listAllDeliveries(x *request, r *http.Request, w domain.Webhook) error {
	f := projections.DeliveryFilter{
		State: deliveryState.of(x), Webhook: w.ID, EventType: string(eventType.of(x)), Answer: responseStatus.of(x), Attempts: attemptsMin.of(x),
		From: from.of(x), To: to.of(x), Limit: limit.of(x), Cursor: cursor.of(x),
	}
	return s.respondShared(x, r, func(ctx context.Context) ([]byte, error) {
		page, err := s.queries.ListDeliveries(ctx, f, s.commands.Queue)
		return s.encodeDeliveries(ctx, page, err)
	})
}

// encodeDeliveries returns a page of deliveries, with what each waits behind.
func (s *Server) encodeDeliveries(ctx context.Context, page projections.Page[projections.Delivery], err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	shown := make([]*projections.Delivery, len(page.Items))
	for i := range page.Items {
		shown[i] = &page.Items[i]
	}
	err = s.addWaitingBehind(ctx, shown)
	return append(appendPage(nil, page, appendDelivery), '\n'), err
}
