package http

import (
	"net/http"
	"time"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

// The paths of probes, which need no token: they show no data of the clinic, and load
// balancers and Prometheus mostly have none. As anybody may ask, what they cost the
// database does not grow with the number of requests.
const (
	alivePath   = "/healthz"
	readyPath   = "/readyz"
	metricsPath = "/metrics"
)

func (s *Server) healthOperations() []operation {
	operations := []operation{{
		method: "GET", path: alivePath, id: "alive", summary: "Whether the process lives", scope: public, answer: answerOf[statusView],
		serve: func(x *request, _ *http.Request) error { return x.respond(statusView{Status: "ok"}, nil) },
	}, {
		method: "GET", path: readyPath, id: "ready", summary: "Whether it can serve", scope: public, answer: answerOf[statusView],
		unbounded: true, serve: s.getReady,
	}}
	if s.config.Metrics != nil {
		operations = append(operations, operation{
			method: "GET", path: metricsPath, id: "metrics", summary: "Metrics for Prometheus", scope: public, answer: text, media: "text/plain",
			unbounded: true, serve: s.getMetrics,
		})
	}
	return operations
}

type statusView struct {
	Status  string                   `json:"status"`
	Standby projections.StandbyState `json:"standby,omitempty"` // where queries go to one
}

// readyTimeout bounds a check of readiness, which is made once for all who ask meanwhile.
const readyTimeout = 2 * time.Second

func (s *Server) getReady(x *request, r *http.Request) error {
	if s.config.Ready != nil {
		if err := s.readiness.Refresh(r.Context()); err != nil {
			return domain.Unavailable("the service is not ready", err)
		}
	}
	view := statusView{Status: "ready"}
	if s.config.Standby != nil {
		view.Standby = s.config.Standby.State() // the primary answers while it is not ok
	}
	return x.respond(view, nil)
}

const maxScrapes = 4

func (s *Server) getMetrics(x *request, r *http.Request) error {
	if err := x.acquire(s.scrapes); err != nil {
		return err
	}
	s.config.Metrics.ServeHTTP(x, r)
	return nil
}
