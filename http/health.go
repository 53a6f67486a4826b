package http

import (
	"net/http"

	"github.com/medilab/webhooks/domain"
)

// The health and metrics routes need no token: they tell no data of the clinic,
// and what asks for them (a load balancer, Prometheus) mostly has none. As anybody
// may ask, what they cost the database does not grow with how many do.
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

// handleReady asks once for all who ask meanwhile, within refreshPatience.
func (s *Server) handleReady(x *exchange, r *http.Request) error {
	if s.config.Ready != nil {
		if err := s.readiness.since(r.Context(), s.config.Ready); err != nil {
			return domain.Unavailable("the service is not ready", err)
		}
	}
	return x.answer(http.StatusOK, statusView{"ready"})
}

// maxScrapes bounds how many read the metrics at once.
const maxScrapes = 4

func (s *Server) handleMetrics(x *exchange, r *http.Request) error {
	select {
	case s.scrapes <- struct{}{}:
		defer func() { <-s.scrapes }()
	default:
		return domain.Throttled("too many others are reading the metrics; try again")
	}
	s.config.Metrics.ServeHTTP(x, r)
	return nil
}

type statusView struct {
	Status string `json:"status"`
}
