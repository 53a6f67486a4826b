package http

import (
	"context"
	"fmt"
	"slices"
)

// isProbe reports whether the path is answered until the end.
func isProbe(path string) bool {
	return slices.Contains([]string{alivePath, readyPath, metricsPath}, path)
}

// Drain rejects new requests, except probes, and returns when those in flight are
// answered, or with ctx's error. What has no end ends now.
func (s *Server) Drain(ctx context.Context) error {
	s.stop()
	drained := make(chan struct{})
	go func() {
		s.requests.Lock()
		defer s.requests.Unlock()
		close(drained)
	}()
	select {
	case <-drained:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for requests to end: %w", context.Cause(ctx))
	}
}
