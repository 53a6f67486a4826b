package http

import (
	"context"
	"net/http"
	"time"

	"github.com/medilab/webhooks/domain"
)

// The health and metrics routes need no token: they tell no data of the clinic,
// and what asks for them (a load balancer, Prometheus) mostly has none.
func (s *Server) healthRoutes() {
	s.route("GET", "/healthz", public, s.handleAlive)
	s.route("GET", readyPath, public, s.handleReady)
	if s.config.Metrics != nil {
		s.route("GET", "/metrics", public, s.handleMetrics)
	}
}

const readyPath = "/readyz"

func (s *Server) handleAlive(x *exchange, _ *http.Request) error {
	return x.answer(http.StatusOK, statusView{"ok"})
}

// readyTimeout is how long a load balancer is kept waiting.
const readyTimeout = 2 * time.Second

func (s *Server) handleReady(x *exchange, r *http.Request) error {
	if s.config.Ready != nil {
		ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
		defer cancel()
		if err := s.config.Ready(ctx); err != nil {
			return domain.Unavailable("the service is not ready", err)
		}
	}
	return x.answer(http.StatusOK, statusView{"ready"})
}

func (s *Server) handleMetrics(x *exchange, r *http.Request) error {
	s.config.Metrics.ServeHTTP(x, r)
	return nil
}

type statusView struct {
	Status string `json:"status"`
}
