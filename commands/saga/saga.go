// Package saga drives every event to its receivers: it dispatches what the log
// holds, claims what is due, calls, records, and schedules the next attempt. Its
// steps are Watermill handlers; its state is the log and the queue.
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
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// Config is what the saga needs. All but the roles, Parts, Beside and Attempted is
// required.
type Config struct {
	Log       *eventstore.Log
	Pool      *pgxpool.Pool
	Directory *commands.Directory
	Attempter *commands.Attempter
	Logger    *slog.Logger
	Workers   int           // calls in flight at once
	Grace     time.Duration // how long a shutdown waits for calls in flight
	Name      string        // of this node, for people

	// The roles.
	Dispatch bool // whether this process may be the dispatcher
	Deliver  bool // whether it makes calls
	// Parts add others' handlers to the router, and Beside runs beside it, under
	// this node's lease, until its end.
	Parts  []Part
	Beside []Worker
	// Attempted is told of every call that this node made; nil: nobody.
	Attempted func(call domain.Call)
}

// Part adds handlers to the router of a node.
type Part func(ctx context.Context, router *message.Router, node *eventstore.Node) error

// Worker works for a node until ctx ends.
type Worker func(ctx context.Context, node *eventstore.Node)

// Saga is this process's part in delivering. Its Observer and Claims belong to
// the log before it runs.
type Saga struct {
	config  Config
	session atomic.Pointer[session]
}

// New makes the saga. Attach must follow before Run.
func New() *Saga { return &Saga{} }

// Attach gives the saga what it needs; the log needs the saga at its opening, so
// this comes after.
func (s *Saga) Attach(config Config) { s.config = config }

// Begin implements projections.Claims.
func (s *Saga) Begin() {
	if now := s.session.Load(); now != nil {
		now.lanes.Begin()
	}
}

// Claim implements projections.Claims: nothing while no session runs.
func (s *Saga) Claim(event domain.EventID, d domain.Dispatch, size int) int64 {
	now := s.session.Load()
	if now == nil || !s.config.Deliver || !now.node.Valid() {
		return 0
	}
	return now.lanes.Claim(event, d, size)
}

// Observe is the log's Observer.
func (s *Saga) Observe(batch []eventstore.Event) {
	now := s.session.Load()
	if now == nil || !s.config.Deliver {
		return
	}
	for i := range batch {
		switch c := batch[i].Value.(type) {
		case domain.EventTriggered:
			if id, err := domain.ParseEventStream(batch[i].Stream); err == nil && len(c.Recipients) > 0 {
				dispatched, _ := domain.DispatchOf(id, c)
				now.lanes.committed(dispatched, c, batch[i].RecordedAt)
				now.batcher.committed(dispatched, batch[i].RecordedAt, true)
			}
		case domain.EventDispatched:
			now.lanes.committed(c, domain.EventTriggered{}, batch[i].RecordedAt)
			now.batcher.committed(c, batch[i].RecordedAt, false)
		case domain.DeliveryBatched:
			now.lanes.queued(c.WebhookID)
		case domain.WebhookDeleted:
			now.claimer.due.earlier(batch[i].RecordedAt)
			now.batcher.deleted(batch[i].Stream)
		case domain.WebhookActivated, domain.DeliveryRetryRequested:
			now.claimer.due.earlier(batch[i].RecordedAt)
		case domain.ReplayRequested:
			now.replays.look()
		}
	}
}

// Figures of this node's deliveries, for metrics.
func (s *Saga) Figures() commands.DeliveryFigures {
	if now := s.session.Load(); now != nil {
		return now.lanes.figures()
	}
	return commands.DeliveryFigures{Workers: s.config.Workers}
}

// Node is the id under which this process works now, 0 when it does not.
func (s *Saga) Node() int64 {
	if now := s.session.Load(); now != nil {
		return now.node.ID
	}
	return 0
}

// Run works until ctx ends: then it starts no call any more, waits for those in
// flight, records what it must cut off and gives back the rest. A node that lost
// its lease begins again under a new id.
func (s *Saga) Run(ctx context.Context) error {
	const pause = time.Second
	for ctx.Err() == nil {
		err := s.runSession(ctx)
		if err != nil && ctx.Err() == nil {
			s.config.Logger.Warn("delivering stopped, beginning again", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
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
	crew      *crew
	claimer   *claimer
	batcher   *batcher
	replays   *replayer
	attempted func(domain.Call)
	sweep     chan struct{}
	owning    sync.Mutex // held while the table and the memory say different things of who owns what
}

func (s *Saga) runSession(ctx context.Context) error {
	c := s.config
	node, err := eventstore.Join(ctx, c.Pool, c.Log.Clock(), c.Name, c.Logger, func(others int) {
		c.Log.SetAnnounce(others > 0)
	})
	if err != nil {
		return err
	}
	now := &session{
		log: c.Log, pool: c.Pool, directory: c.Directory, attempter: c.Attempter, clock: c.Log.Clock(),
		logger: c.Logger, node: node, lanes: newLanes(c.Workers, node.ID), attempted: c.Attempted,
		sweep: make(chan struct{}, 1),
	}
	now.crew = newCrew(c.Workers, now.deliver)
	defer now.crew.close()
	now.claimer = &claimer{s: now, due: wakeAt{changed: make(chan struct{}, 1)}}
	now.claimer.due.earlier(now.clock.Now()) // look at once for what waits
	now.batcher = newBatcher(now)
	now.replays = newReplayer(now)

	// What ends with the session, whichever way it ends.
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	calls, cutCalls := context.WithCancel(context.WithoutCancel(ctx))
	defer cutCalls()
	var group sync.WaitGroup
	defer group.Wait()
	defer stopWork()
	group.Go(func() {
		if err := node.Run(work); err != nil {
			c.Logger.Warn("this node's lease is over", "node", node.ID, "error", err)
		}
	})
	router, err := s.router(work, now, calls)
	if err != nil {
		return errors.Join(err, node.Leave(context.WithoutCancel(ctx)))
	}
	routed := make(chan error, 1)
	group.Go(func() { routed <- router.Run(work) })
	for _, run := range c.Beside {
		group.Go(func() { run(work, node) })
	}
	if c.Dispatch {
		group.Go(func() { now.retryUndispatched(work) })
		group.Go(func() { now.replays.run(work) })
	}
	if c.Deliver {
		group.Go(func() { now.claimer.run(work) })
		group.Go(func() { now.batcher.run(work) })
		group.Go(func() { now.takeOver(work) })
		group.Go(func() { now.sweepStrays(work) })
		group.Go(func() { now.share(work) })
	}
	s.session.Store(now)
	defer s.session.Store(nil)

	select {
	case <-ctx.Done():
		s.session.Store(nil) // new deliveries are for others
		err := errors.Join(s.wind(now, cutCalls), router.Close())
		stopWork()
		return errors.Join(err, node.Leave(context.WithoutCancel(ctx)))
	case <-node.Lost():
		// Others may decide without this node from now on. What it has not begun it
		// gives back; calls under way have a moment to end, and their outcomes are
		// recorded, at their place or as late, whenever the database answers.
		s.session.Store(nil)
		unstarted := now.lanes.stop()
		group.Go(func() { now.putBack(func() []*delivery { return unstarted }) })
		return errors.Join(eventstore.ErrLeaseLost, router.Close())
	case err := <-routed:
		s.session.Store(nil)
		return errors.Join(errors.New("the router ended"), err, s.wind(now, cutCalls), node.Leave(context.WithoutCancel(ctx)))
	}
}

// wind ends the node's calls: those in flight have the grace to end, the rest is
// given back.
func (s *Saga) wind(now *session, cutCalls context.CancelFunc) error {
	unstarted := now.lanes.stop()
	// A claim under way has the last word.
	now.putBack(func() []*delivery { return append(unstarted, now.lanes.stop()...) })
	now.putBackLast()
	timer := time.NewTimer(s.config.Grace)
	defer timer.Stop()
	select {
	case <-now.lanes.idle:
		return nil
	case <-timer.C:
	}
	cutCalls()
	last := time.NewTimer(recordGrace)
	defer last.Stop()
	select {
	case <-now.lanes.idle:
		return nil
	case <-last.C:
		return fmt.Errorf("%d outcomes could not be recorded in time; they will be taken over", now.lanes.figures().InFlight)
	}
}

const recordGrace = 5 * time.Second

func (s *Saga) router(ctx context.Context, now *session, calls context.Context) (*message.Router, error) {
	c := s.config
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: recordGrace}, watermill.NopLogger{})
	if err != nil {
		return nil, fmt.Errorf("make the router: %w", err)
	}
	if c.Dispatch {
		d := &dispatcher{log: c.Log, logger: c.Logger}
		sub, err := c.Log.Subscribe(ctx, now.node, eventstore.Reader{Name: readerDispatcher, Interested: interested})
		if err != nil {
			return nil, err
		}
		router.AddConsumerHandler(readerDispatcher, "log", sub, sub.Handler(d.apply))
	}
	for _, add := range c.Parts {
		if err := add(ctx, router, now.node); err != nil {
			return nil, errors.Join(err, router.Close())
		}
	}
	if c.Deliver {
		router.AddConsumerHandler("deliver", "deliveries", &subscriber{lanes: now.lanes, calls: calls, closed: make(chan struct{})}, now.crew.handle)
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

func (s *session) sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
