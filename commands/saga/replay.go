package saga

import (
	"context"
	"sync"
	"time"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// replayer works on the replays that are not over. The node with the lease does it for
// all; one that takes over begins where the log says the node before had come.
type replayer struct {
	s     *session
	all   commands.Replays
	wake  chan struct{}
	since domain.ReplayID // all before are completed

	mu      sync.Mutex
	jobs    map[domain.ReplayID]chan struct{} // that run here; a token: a delivery has ended
	failing map[domain.ReplayID]bool
}

const (
	replayPoll = time.Second // for what other nodes' callers request
	// replaySlack is how far the clocks that name replays may be apart.
	replaySlack = 24 * time.Hour
	mostJobs    = 32 // at once
)

func newReplayer(s *session, failed commands.FailedDeliveries) *replayer {
	return &replayer{
		s: s, wake: make(chan struct{}, 1), jobs: map[domain.ReplayID]chan struct{}{}, failing: map[domain.ReplayID]bool{},
		all: commands.Replays{Log: s.log, Directory: s.directory, Queue: Queue{Pool: s.pool}, Pool: s.pool, Failed: failed},
	}
}

// run works on replays while this node has the lease, until ctx ends.
func (r *replayer) run(ctx context.Context) {
	failing := false
	for ctx.Err() == nil {
		work, stop := context.WithCancel(ctx)
		var group sync.WaitGroup
		err := r.runJobs(work, &group)
		stop()
		group.Wait()
		if err != nil && ctx.Err() == nil && !failing {
			r.s.logger.Warn("replays do not go on, trying again", "error", err)
		}
		failing = err != nil
		r.rest(ctx, replayPoll)
	}
}

// runJobs starts what is to run until the lease is lost or ctx ends.
func (r *replayer) runJobs(ctx context.Context, group *sync.WaitGroup) error {
	for {
		now := r.s.clock.Now()
		unfinished, err := r.all.Unfinished(ctx, r.since)
		if err != nil {
			return err
		}
		pause := replayPoll
		if len(unfinished) == 0 {
			r.since = replaysSince(now.Add(-replaySlack))
			pause = r.s.log.Pace(replayPoll)
		} else if _, owned, err := r.s.log.AcquireLease(ctx, r.s.node, "replays", eventstore.LeaseTime); err != nil || !owned {
			return err
		}
		for _, id := range unfinished {
			if wake := r.begin(id); wake != nil {
				group.Go(func() { r.runJob(ctx, id, wake) })
			}
		}
		if !r.rest(ctx, pause) {
			return nil
		}
	}
}

// rest reports whether ctx goes on after the pause, which a request ends.
func (r *replayer) rest(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-r.wake:
	case <-timer.C:
	}
	return ctx.Err() == nil
}

// begin returns what wakes the replay, or nil when it runs here already, or too many do.
func (r *replayer) begin(id domain.ReplayID) chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, runs := r.jobs[id]; runs || len(r.jobs) == mostJobs {
		return nil
	}
	wake := make(chan struct{}, 1)
	r.jobs[id] = wake
	return wake
}

func (r *replayer) runJob(ctx context.Context, id domain.ReplayID, wake <-chan struct{}) {
	err := r.all.Run(ctx, id, wake)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil && ctx.Err() == nil && !r.failing[id] { // once: it is tried again and again
		r.s.logger.Warn("a replay does not go on, trying again", "replay", id.String(), "error", err)
	}
	r.failing[id] = err != nil
	delete(r.jobs, id)
}

// ended wakes the replay of which a delivery may have ended; zero is none.
func (r *replayer) ended(id domain.ReplayID) {
	if id == (domain.ReplayID{}) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if wake := r.jobs[id]; wake != nil {
		signal(wake)
	}
}

// replaysSince is below the id of every replay that was requested at the time or
// later: a UUIDv7 begins with its milliseconds.
func replaysSince(at time.Time) (id domain.ReplayID) {
	ms := at.UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (8 * (5 - i)))
	}
	return id
}
