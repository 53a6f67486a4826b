package saga

import (
	"context"
	"slices"
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
	jobs    map[domain.ReplayID]*runningReplay
	begun   map[domain.ReplayID]time.Time // when last, of those that are not over
	failing map[domain.ReplayID]bool
	halts   int                      // since the session began
	running map[domain.ReplayID]bool // as the log said, and none was halted since
}

// runningReplay is a replay that runs here.
type runningReplay struct {
	wake    chan struct{} // a token: a delivery has ended
	leave   chan struct{} // closed when others are to have its place
	leaving bool
}

const (
	replayPoll = time.Second // for what other nodes' callers request
	// replaySlack is how far the clocks that name replays may be apart.
	replaySlack = 24 * time.Hour
	mostJobs    = 32               // at once
	mostRunning = 1_000            // are known to
	turn        = 10 * time.Second // of each, when there are more
	// countPatience is enough to count tens of thousands, and a small part of what more take.
	countPatience = 500 * time.Millisecond
)

func newReplayer(s *session, failed commands.FailedDeliveries) *replayer {
	return &replayer{
		s: s, wake: make(chan struct{}, 1), jobs: map[domain.ReplayID]*runningReplay{}, begun: map[domain.ReplayID]time.Time{}, failing: map[domain.ReplayID]bool{}, running: map[domain.ReplayID]bool{},
		all: commands.Replays{Log: s.log, Directory: s.directory, Queue: Queue{Pool: s.pool}, Pool: s.pool, Failed: failed, Patience: countPatience},
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
		eventstore.Wait(ctx, replayPoll, r.wake)
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
		for id, job := range r.begin(unfinished, now) {
			group.Go(func() { r.runJob(ctx, id, job) })
		}
		if !eventstore.Wait(ctx, pause, r.wake) {
			return nil
		}
	}
}

// begin returns the replays to run besides those that do: of those that wait the ones that
// began longest ago, or never. If there is no place for all, as many as wait have to leave
// when their turn is over.
func (r *replayer) begin(unfinished []domain.ReplayID, now time.Time) map[domain.ReplayID]*runningReplay {
	r.mu.Lock()
	defer r.mu.Unlock()
	longest := slices.Clone(unfinished)
	slices.SortStableFunc(longest, func(a, b domain.ReplayID) int { return r.begun[a].Compare(r.begun[b]) })
	begun := make(map[domain.ReplayID]time.Time, len(longest))
	jobs, waiting := map[domain.ReplayID]*runningReplay{}, 0
	for _, id := range longest {
		begun[id] = r.begun[id]
		switch {
		case r.jobs[id] != nil:
		case len(r.jobs) < mostJobs:
			jobs[id] = &runningReplay{wake: make(chan struct{}, 1), leave: make(chan struct{})}
			r.jobs[id], begun[id] = jobs[id], now
		default:
			waiting++
		}
	}
	r.begun = begun
	for _, id := range longest {
		if job := r.jobs[id]; job != nil && waiting > 0 && now.Sub(begun[id]) >= turn {
			waiting--
			if !job.leaving {
				job.leaving = true
				close(job.leave)
			}
		}
	}
	return jobs
}

func (r *replayer) runJob(ctx context.Context, id domain.ReplayID, job *runningReplay) {
	err := r.all.Run(ctx, id, job.wake, job.leave)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.jobs, id)
	if err == nil {
		delete(r.failing, id)
	} else if ctx.Err() == nil && !r.failing[id] { // once: it is tried again and again
		r.failing[id] = true
		r.s.logger.Warn("a replay does not go on, trying again", "replay", id.String(), "error", err)
	}
}

// ended wakes the replay of which a delivery may have ended; zero is none.
func (r *replayer) ended(id domain.ReplayID) {
	if id == (domain.ReplayID{}) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if job := r.jobs[id]; job != nil {
		eventstore.Signal(job.wake)
	}
}

// halt says that the replay was paused or cancelled: no call of it begins here before the log
// says that it runs again.
func (r *replayer) halt(id domain.ReplayID) {
	r.mu.Lock()
	r.halts++
	delete(r.running, id)
	r.mu.Unlock()
	r.ended(id)
	eventstore.Signal(r.wake)
}

// haltAny says that any replay may have been paused or cancelled.
func (r *replayer) haltAny() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.halts++
	clear(r.running)
}

// standing returns the replay as the log says it stands, the zero value if that is known to run: this
// node may have heard of no pause, as when it began after that.
func (r *replayer) standing(ctx context.Context, id domain.ReplayID) (domain.Replay, error) {
	if id == (domain.ReplayID{}) {
		return domain.Replay{}, nil
	}
	r.mu.Lock()
	running, halts := r.running[id], r.halts
	r.mu.Unlock()
	if running {
		return domain.Replay{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	replay, err := r.all.Load(ctx, id)
	if err != nil || replay.Stopped() {
		return replay, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.halts == halts {
		if len(r.running) >= mostRunning {
			clear(r.running)
		}
		r.running[id] = true
	}
	return replay, nil
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
