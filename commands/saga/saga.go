// Package saga drives every delivery to its end: it queues what an append decides,
// claims what is due, calls, records, and schedules the next attempt. Its steps are
// Watermill handlers; its state is the log and the queue.
package saga

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// Config is what the saga needs. All but the roles, Parts, Beside, Attempted and GaveUp is
// required.
type Config struct {
	Log       *eventstore.Log
	Pool      *pgxpool.Pool
	Directory *commands.Directory
	Attempter *commands.Attempter
	Logger    *slog.Logger
	Failed    commands.FailedDeliveries
	Grace     time.Duration // how long a shutdown waits for calls in flight
	Name      string        // of this node, for people

	// The roles.
	Dispatch bool // whether this process works on replays
	Deliver  bool // whether it makes calls
	// Parts add handlers to the router, and Beside runs next to it, under
	// this node's lease, until its end.
	Parts  []Part
	Beside []Worker
	// Attempted is called with every call that this node made; nil: nobody is.
	Attempted func(call domain.Call)
	// GaveUp is called with every delivery that this node gave up; nil: nobody is.
	GaveUp func(reason domain.GaveUp)
}

// Part adds handlers to the router of a node.
type Part func(ctx context.Context, router *message.Router, node *eventstore.Node) error

// Worker works for a node until ctx ends.
type Worker func(ctx context.Context, node *eventstore.Node)

// Saga is this process's part in delivering. Before Run it takes no deliveries. Its
// Queue and its Observe belong to the log.
type Saga struct {
	workers int
	session atomic.Pointer[session]
}

// New returns the saga of a process that makes as many calls at once.
func New(workers int) *Saga { return &Saga{workers: workers} }

// beginClaims begins the claims of a batch, and forgets those of a batch that was not
// committed. It returns the lanes that claim, nil when this process takes nothing.
func (s *Saga) beginClaims() *lanes {
	if s == nil {
		return nil
	}
	now := s.session.Load()
	if now == nil || now.claimer == nil {
		return nil
	}
	now.lanes.beginClaims()
	if !now.node.Valid() {
		return nil
	}
	return now.lanes
}

// Observe is the log's Observer.
func (s *Saga) Observe(batch []eventstore.Event) {
	now := s.session.Load()
	if now == nil {
		return
	}
	for i := range batch {
		switch c := batch[i].Value.(type) {
		case domain.EventTriggered:
			if len(c.Recipients) > 0 {
				dispatched, _ := domain.DispatchOf(domain.EventID(streamID(batch[i].Stream)), c)
				now.dispatched(dispatched, c, batch[i].RecordedAt)
			}
		case domain.EventDispatched:
			now.dispatched(c, domain.EventTriggered{}, batch[i].RecordedAt)
		case domain.DeliverySucceeded:
			now.ended(c.Call)
		case domain.DeliveryAttemptFailed:
			now.ended(c.Call)
		case domain.DeliveryCancelled:
			now.lanes.cancelled(domain.DeliveryID(streamID(batch[i].Stream)))
			now.queued(c.WebhookID)
		case domain.DeliveryBatched:
			now.queued(c.WebhookID)
		case domain.DeliveryRetryRequested:
			now.lanes.unpause(c.WebhookID)
			now.queued(c.WebhookID)
		case domain.WebhookDeleted:
			eventstore.Signal(now.deleted)
		case domain.WebhookActivated:
			now.reconsider(domain.WebhookID(streamID(batch[i].Stream)), batch[i].RecordedAt)
		case domain.ReplayRequested, domain.ReplayResumed:
			eventstore.Signal(now.replays.wake)
		case domain.ReplayPaused, domain.ReplayCancelled:
			now.replays.halt(domain.ReplayID(streamID(batch[i].Stream)))
		}
	}
}

// ended notes the end of a call: another delivery may follow it.
func (s *session) ended(call domain.Call) {
	if call.Ordered {
		s.lanes.endedInLine(call.WebhookID)
	}
	s.replays.ended(call.ReplayID)
}

// Announced takes in what other processes announced: webhooks with deliveries that are
// free to claim, replays that stop, and that some are to begin.
func (s *Saga) Announced(keys []string) {
	now := s.session.Load()
	if now == nil {
		return
	}
	for _, key := range keys {
		if id, err := uuid.Parse(key); err == nil {
			now.queued(domain.WebhookID(id))
			continue
		}
		switch kind, id, err := domain.ParseStream(key); {
		case key == eventstore.AnnouncedReading:
			continue
		case key == eventstore.AnnouncedAll:
			now.look()
			now.replays.haltAny()
		case err == nil && kind == "replay":
			now.replays.halt(domain.ReplayID(id))
		}
		eventstore.Signal(now.replays.wake)
	}
}

// TailLost ends the work on what the log may not have any more. A new session begins.
func (s *Saga) TailLost() {
	if now := s.session.Load(); now != nil {
		now.node.Forfeit()
	}
}

// Figures of this node's deliveries, for metrics.
func (s *Saga) Figures() commands.DeliveryFigures {
	if now := s.session.Load(); now != nil {
		return now.lanes.figures()
	}
	return commands.DeliveryFigures{Workers: s.workers}
}

// Node is the id under which this process works now, 0 when it does not.
func (s *Saga) Node() int64 {
	if now := s.session.Load(); now != nil {
		return now.node.ID
	}
	return 0
}

// Run works until ctx ends: then it starts no call any more, waits for those in
// flight, records what it must cut off and releases the rest. A node that lost
// its lease begins again under a new id.
func (s *Saga) Run(ctx context.Context, c Config) error {
	const pause = time.Second
	for ctx.Err() == nil {
		err := s.runSession(ctx, c)
		switch {
		case err == nil:
		case ctx.Err() == nil:
			c.Logger.Warn("delivering stopped, beginning again", "error", err)
			eventstore.Wait(ctx, pause, nil)
		case !errors.Is(err, context.Canceled): // else it had not begun
			c.Logger.Warn("delivering did not end as it should", "error", err)
		}
	}
	return nil
}

// session is the work under one lease.
type session struct {
	log       *eventstore.Log
	pool      *pgxpool.Pool
	directory *commands.Directory
	attempter *commands.Attempter
	clock     *eventstore.Clock
	logger    *slog.Logger
	node      *eventstore.Node
	lanes     *lanes
	workers   *workerPool
	claimer   *claimer // nil: this process makes no calls
	batcher   *batcher // likewise
	replays   *replayer
	attempted func(domain.Call)
	gaveUp    func(domain.GaveUp)
	sweep     chan struct{}
	deleted   chan struct{} // a token: a deleted webhook may have deliveries that wait

	generation int64 // of the log; what this session works on may not be in another

	terms  sync.Mutex // held while the table and the memory disagree on which lanes this node has
	owning sync.Mutex // held while the table and the memory disagree on what this node has
}

func (s *Saga) newSession(ctx context.Context, c Config) (*session, error) {
	generation := c.Log.Generation()
	if err := c.Directory.CatchUp(ctx); err != nil {
		return nil, err
	}
	if err := c.Directory.Renewed(ctx); err != nil {
		return nil, err
	}
	now := &session{
		generation: generation, log: c.Log, pool: c.Pool, directory: c.Directory, attempter: c.Attempter, clock: c.Log.Clock(),
		logger: c.Logger, attempted: c.Attempted, gaveUp: c.GaveUp, sweep: make(chan struct{}, 1), deleted: make(chan struct{}, 1), lanes: newLanes(s.workers),
	}
	c.Log.SetAnnounce(true) // what this node had under another id may wait: Pace
	node, err := eventstore.Join(ctx, c.Pool, c.Log.Clock(), c.Name, c.Logger, func(peers eventstore.Peers) {
		c.Log.SetAnnounce(peers.Others > 0)
		if calls := now.lanes.balance(peers); now.claimer != nil {
			now.node.SetWork(calls)
			now.node.SetLack(string(now.lanes.lack()))
		}
	})
	if err != nil {
		return nil, err
	}
	now.node, now.lanes.node, now.lanes.webhooks = node, node.ID, c.Directory
	now.workers = newWorkerPool(s.workers, now.deliver)
	now.replays = newReplayer(now, c.Failed)
	if c.Deliver {
		now.claimer = newClaimer(now)
		now.batcher = newBatcher(now)
		node.SetWork(0)
	}
	return now, nil
}

// dispatched takes in whom one event goes to.
func (s *session) dispatched(dispatched domain.EventDispatched, triggered domain.EventTriggered, at time.Time) {
	if s.claimer != nil {
		s.batcher.dispatched(dispatched, at)
		s.lanes.dispatched(dispatched, triggered, at)
	}
}

// queued takes in that the table holds a delivery of the webhook that is due now.
func (s *session) queued(id domain.WebhookID) {
	if s.claimer != nil {
		s.lanes.found([]domain.WebhookID{id})
		eventstore.Signal(s.lanes.claim)
	}
}

// look makes the claimer look over all lanes.
func (s *session) look() {
	if s.claimer != nil {
		s.claimer.due.earlier(s.clock.Now())
	}
}

// reconsider looks at what waits for a webhook that was activated.
func (s *session) reconsider(id domain.WebhookID, at time.Time) {
	if s.claimer != nil {
		s.lanes.unpause(id)
		s.claimer.due.earlier(at)
		s.batcher.look(id)
	}
}

func (s *Saga) runSession(ctx context.Context, c Config) error {
	now, err := s.newSession(ctx, c)
	if err != nil {
		return err
	}
	node := now.node
	defer now.workers.close()

	// What ends with the session, whichever way it ends.
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	beside, stopBeside := context.WithCancel(work) // with the node's lease too
	calls, cutCalls := context.WithCancel(context.WithoutCancel(ctx))
	defer cutCalls()
	var group sync.WaitGroup
	defer group.Wait()
	defer stopWork()
	defer stopBeside()
	group.Go(func() {
		if err := node.Run(work); err != nil {
			c.Logger.Warn("this node's lease is over", "node", node.ID, "error", err)
		}
	})
	router, err := now.router(work, c, calls)
	if err != nil {
		return errors.Join(err, node.Leave(context.WithoutCancel(ctx)))
	}
	routed := make(chan error, 1)
	group.Go(func() { routed <- router.Run(work) })
	for _, run := range c.Beside {
		group.Go(func() { run(beside, node) })
	}
	if c.Dispatch {
		group.Go(func() { now.decideOldEvents(work) })
		group.Go(func() { now.replays.run(work) })
	}
	if c.Deliver {
		group.Go(func() { now.claimer.run(work) })
		group.Go(func() { now.batcher.run(work) })
		group.Go(func() { now.takeOver(work) })
		group.Go(func() { now.sweepOrphans(work) })
		group.Go(func() { now.releaseStale(work) })
		group.Go(func() { now.dropClaims(work) })
		group.Go(func() { now.keepPace(work) })
		group.Go(func() { now.cancelDeleted(work) })
	}
	s.session.Store(now)
	defer s.session.Store(nil)
	if now.lostTail() { // before TailLost could find the session
		node.Forfeit()
	}

	select {
	case <-ctx.Done():
		s.session.Store(nil) // new deliveries are for others
		err := errors.Join(now.windDown(c.Grace, cutCalls), router.Close())
		stopWork()
		return errors.Join(err, node.Leave(context.WithoutCancel(ctx)))
	case <-node.Lost():
		// Others may decide without this node from now on. What it has not begun it
		// releases; calls under way have a moment to end, and their outcomes are
		// recorded, at their place or as late, whenever the database answers.
		stopBeside()
		s.session.Store(nil)
		unstarted := now.lanes.stop()
		if now.lostTail() { // the rows are as they were once: they are taken over
			group.Go(now.releaseReaders)
		} else {
			group.Go(func() { now.putBack(func() []*delivery { return unstarted }) })
		}
		return errors.Join(eventstore.ErrLeaseLost, router.Close())
	case err := <-routed:
		s.session.Store(nil)
		return errors.Join(errors.New("the router ended"), err, now.windDown(c.Grace, cutCalls), node.Leave(context.WithoutCancel(ctx)))
	}
}

// lostTail reports whether the log has lost its tail since the session began.
func (s *session) lostTail() bool { return s.generation != s.log.Generation() }

// releaseReaders lets another node, or this one's next session, read on at once.
func (s *session) releaseReaders() {
	ctx, cancel := context.WithTimeout(context.Background(), putBackTimeout)
	defer cancel()
	if err := s.node.ReleaseReaders(ctx); err != nil {
		s.logger.Warn("the leases of readers are not released, they will end", "error", err)
	}
}

// windDown ends the node's calls: those in flight have the grace to end, the rest is
// released.
func (s *session) windDown(grace time.Duration, cutCalls context.CancelFunc) error {
	defer s.dropDone()
	unstarted := s.lanes.stop()
	// A claim under way has the last word.
	s.putBack(func() []*delivery { return append(unstarted, s.lanes.stop()...) })
	s.putBackLast()
	select {
	case <-s.lanes.idle:
		return nil
	case <-time.After(grace):
	}
	cutCalls()
	select {
	case <-s.lanes.idle:
		return nil
	case <-time.After(recordGrace):
		return fmt.Errorf("%d outcomes could not be recorded in time; they will be taken over", s.lanes.figures().InFlight)
	}
}

const recordGrace = 5 * time.Second

func (s *session) router(ctx context.Context, c Config, calls context.Context) (*message.Router, error) {
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: recordGrace}, watermill.NopLogger{})
	if err != nil {
		return nil, fmt.Errorf("make the router: %w", err)
	}
	for _, add := range c.Parts {
		if err := add(ctx, router, s.node); err != nil {
			return nil, errors.Join(err, router.Close())
		}
	}
	if c.Deliver {
		router.AddConsumerHandler("deliver", "deliveries", &subscriber{lanes: s.lanes, calls: calls, closed: make(chan struct{})}, s.workers.handle)
	}
	return router, nil
}

func (s *session) observe(d *delivery, call domain.Call) {
	if s.attempted != nil {
		s.attempted(call)
	}
	if call.Outcome == domain.OutcomeSuccess {
		return
	}
	s.logger.Debug("call failed", "delivery", d.id.String(), "webhook", d.webhook.String(), "event", d.eventID.String(),
		"attempt", d.attempt, "outcome", string(call.Outcome), "status", call.Status, "duration_us", call.Duration)
}
