package http

import (
	"net/http"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

func (s *Server) statsRoutes() {
	s.api("GET", "/webhooks/system/stats", domain.ScopeWebhooksRead, s.handleSystemStats)
	s.api("GET", webhookPath+"/stats", domain.ScopeWebhooksRead, s.handleWebhookStats)
}

func (s *Server) handleSystemStats(x *exchange, r *http.Request) error {
	f, err := readStatsFilter(r)
	if err != nil {
		return err
	}
	stats, err := s.queries.SystemStats(r.Context(), f)
	if err != nil {
		return err
	}
	return x.answer(http.StatusOK, stats)
}

func (s *Server) handleWebhookStats(x *exchange, r *http.Request) error {
	f, err := readStatsFilter(r)
	if err != nil {
		return err
	}
	w, err := s.anyWebhookInPath(r)
	if err != nil {
		return err
	}
	stats, err := s.queries.Stats(r.Context(), w.ID, f)
	if err != nil {
		return err
	}
	return x.answer(http.StatusOK, stats)
}

func readStatsFilter(r *http.Request) (projections.StatsFilter, error) {
	q := readQuery(r)
	f := projections.StatsFilter{From: q.time("from"), To: q.time("to")}
	f.Bucket = projections.Bucket(q.choice("bucket", "", string(projections.BucketHour), string(projections.BucketDay)))
	return f, q.done()
}
