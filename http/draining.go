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

// door counts the requests under way, and lets nobody in once it is shut.
type door struct {
	inside  atomic.Int64
	shut    atomic.Bool
	once    sync.Once
	emptied chan struct{} // closed when it is shut and nobody is inside
}

func newDoor() *door { return &door{emptied: make(chan struct{})} }

// enter tells whether the request may go on; leave follows every one that may.
func (d *door) enter() bool {
	d.inside.Add(1)
	if d.shut.Load() {
		d.leave()
		return false
	}
	return true
}

func (d *door) leave() {
	if d.inside.Add(-1) == 0 && d.shut.Load() {
		d.once.Do(func() { close(d.emptied) })
	}
}

// probes are answered to the end: who asks them acts on what they say.
var probes = []string{"/healthz", readyPath, "/metrics"}

func isProbe(path string) bool { return slices.Contains(probes, path) }

// Drain refuses every request from now on but those for the process's health, and
// returns when those under way are answered, or with ctx's error. It is called once.
func (s *Server) Drain(ctx context.Context) error {
	s.door.shut.Store(true)
	if s.door.inside.Load() == 0 {
		s.door.once.Do(func() { close(s.door.emptied) })
	}
	select {
	case <-s.door.emptied:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for %d requests to end: %w", s.door.inside.Load(), context.Cause(ctx))
	}
}

// refuse answers who comes while the server is shutting down: another machine, or
// the next start of this one, takes the request.
func (s *Server) refuse(x *exchange, r *http.Request) {
	x.Header().Set("Connection", "close")
	s.fail(x, r, domain.Unavailable("the service is shutting down", nil))
}
