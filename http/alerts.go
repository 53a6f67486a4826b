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
		query: []queryParam{alertState, limit, cursor}, answer: listOf[projections.Alert], serve: s.listAlerts,
	}}
}

func (s *Server) listAlerts(x *request, r *http.Request) error {
	f := projections.AlertFilter{State: alertState.of(x), Limit: limit.of(x), Cursor: cursor.of(x)}
	if f.State == "all" {
		f.State = ""
	}
	return x.respond(s.queries.Alerts(r.Context(), f))
}
