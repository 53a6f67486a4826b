package http

import (
	"net/http"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

func (s *Server) alertRoutes() {
	s.api("GET", "/webhooks/alerts", domain.ScopeWebhooksRead, s.handleAlertList)
}

func (s *Server) handleAlertList(x *exchange, r *http.Request) error {
	q := readQuery(r)
	f := projections.AlertFilter{Limit: q.limit(), Cursor: q.text("cursor")}
	if state := q.choice("state", "all", string(projections.AlertOpen), string(projections.AlertResolved)); state != "all" {
		f.State = projections.AlertState(state)
	}
	if err := q.done(); err != nil {
		return err
	}
	list, err := s.queries.Alerts(r.Context(), f)
	if err != nil {
		return err
	}
	return x.answer(http.StatusOK, newPage(list.Items, list.NextCursor))
}
