package saga

import (
	"context"
	"errors"
	"time"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// replayer goes on with replays until they are completed. The node with the lease does it
// for all; one that takes over begins where the log says the node before had come.
type replayer struct {
	s     *session
	all   commands.Replays
	wake  chan struct{}
	since domain.ReplayID // all before are completed
}

const (
	replayPoll = time.Second // for what other nodes' callers request
	// replaySlack is how far the clocks that name replays may be apart.
	replaySlack = 24 * time.Hour
)

func newReplayer(s *session) *replayer {
	return &replayer{s: s, all: commands.Replays{Log: s.log, Directory: s.directory, Queue: Queue{Pool: s.pool}, Pool: s.pool}, wake: make(chan struct{}, 1)}
}

func (r *replayer) run(ctx context.Context) {
	failing := false
	for {
		idle, err := r.step(ctx)
		if err != nil && ctx.Err() == nil && !failing {
			r.s.logger.Warn("a replay does not go on, trying again", "error", err)
		}
		failing = err != nil
		pause := replayPoll
		if idle {
			pause = r.s.log.Pace(replayPoll)
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// step goes on with every replay that there is, and reports whether there is none.
func (r *replayer) step(ctx context.Context) (idle bool, err error) {
	now := r.s.clock.Now()
	unfinished, err := r.all.Unfinished(ctx, r.since)
	if err != nil {
		return false, err
	}
	if len(unfinished) == 0 {
		r.since = replaysSince(now.Add(-replaySlack))
		return true, nil
	}
	_, owned, err := r.s.log.AcquireLease(ctx, r.s.node, "replays", eventstore.LeaseTime)
	if err != nil || !owned {
		return false, err
	}
	var failed []error
	for _, id := range unfinished {
		failed = append(failed, r.all.Continue(ctx, id))
	}
	return false, errors.Join(failed...)
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
