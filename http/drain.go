package http

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/medilab/webhooks/domain"
)

// drainer counts the requests in flight, and rejects new ones while draining.
type drainer struct {
	inFlight atomic.Int64
	draining atomic.Bool
	once     sync.Once
	drained  chan struct{} // closed when draining and none is in flight
	stopping chan struct{} // closed when draining: what has no end ends now
}

func newDrainer() *drainer {
	return &drainer{drained: make(chan struct{}), stopping: make(chan struct{})}
}

// enter reports whether the request may proceed; leave must follow if so.
func (d *drainer) enter() bool {
	d.inFlight.Add(1)
	if d.draining.Load() {
		d.leave()
		return false
	}
	return true
}

func (d *drainer) leave() {
	if d.inFlight.Add(-1) == 0 {
		d.check()
	}
}

func (d *drainer) check() {
	if d.draining.Load() && d.inFlight.Load() == 0 {
		d.once.Do(func() { close(d.drained) })
	}
}

// isProbe reports whether the path is answered until the end.
func isProbe(path string) bool {
	return slices.Contains([]string{alivePath, readyPath, metricsPath}, path)
}

// Drain rejects new requests, except probes, and returns when those in flight are
// answered, or with ctx's error.
func (s *Server) Drain(ctx context.Context) error {
	if !s.drainer.draining.Swap(true) {
		close(s.drainer.stopping)
	}
	s.drainer.check()
	select {
	case <-s.drainer.drained:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for %d requests to end: %w", s.drainer.inFlight.Load(), context.Cause(ctx))
	}
}

// rejectDraining sends the client to another node, or to the next start of this one.
func (s *Server) rejectDraining(x *request, r *http.Request) {
	x.Header().Set("Connection", "close")
	s.fail(x, r, domain.Unavailable("the service is shutting down", nil))
}
