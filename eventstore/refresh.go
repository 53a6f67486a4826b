package eventstore

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Refresher runs something once for all who ask for it at the same time.
type Refresher struct {
	Run     func(context.Context) error
	Timeout time.Duration // of a run

	asked  atomic.Int64 // how many have asked
	mu     sync.Mutex
	served int64 // how many had asked when the last run began
	err    error // of the last run
}

// Refresh returns the result of a run that began after the call.
func (r *Refresher) Refresh(ctx context.Context) error {
	turn := r.asked.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.served >= turn {
		return r.err
	}
	r.served = r.asked.Load()
	// Others wait for it too, so it does not end when this caller leaves.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.Timeout)
	defer cancel()
	r.err = r.Run(ctx)
	return r.err
}
