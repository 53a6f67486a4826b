package http

import (
	"net/http"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

var alertState = choiceParam("state", "which alerts", "all", "all", projections.AlertOpen, projections.AlertResolved)

func (s *Server) alertOperations() []operation {
	return []operation{{
		method: "GET", path: "/webhooks/alerts", id: "listAlerts", summary: "List alerts, newest first", scope: domain.ScopeWebhooksRead,
		query: []queryParam{alertState, whose, limit, cursor}, answer: listOf[projections.Alert], serve: s.ofAsked(whose, s.listAlerts),
	}, {
		method: "POST", path: "/webhooks/alerts/{alert}/acknowledge", id: "acknowledgeAlert", summary: "Know of an open alert: it notifies no more", scope: domain.ScopeWebhooksWrite,
		answer: answerOf[projections.Alert], conflicts: true, serve: byID("alert", s.acknowledgeAlert),
	}}
}

func (s *Server) listAlerts(x *request, r *http.Request, w domain.Webhook) error {
	f := projections.AlertFilter{State: alertState.of(x), Webhook: w.ID, Limit: limit.of(x), Cursor: cursor.of(x)}
	if f.State == "all" {
		f.State = ""
	}
	return x.respond(s.queries.Alerts(r.Context(), f))
}

func (s *Server) acknowledgeAlert(x *request, r *http.Request, id domain.AlertID) error {
	alert, err := s.queries.Alert(r.Context(), id)
	if err != nil {
		return err
	}
	position, err := s.commands.AcknowledgeAlert(r.Context(), x.caller, alert.Key(), id)
	if err != nil {
		return err
	}
	if err := s.queries.WaitFor(r.Context(), position); err != nil {
		return domain.Unavailable("the alert is acknowledged, but cannot be shown yet", err)
	}
	return x.respond(s.queries.Alert(r.Context(), id))
}
