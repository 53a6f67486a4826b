package sources

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/commands/outbox"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

const (
	connectTimeout = 10 * time.Second
	heartbeat      = 10 * time.Second
	prefetched     = 100
	pause          = time.Second // after a failure
	closing        = 10 * time.Second
	// silence of the node that takes from a source, after which another does.
	silence = 3 * time.Second
)

// The outcomes of a message, for metrics.
const (
	OutcomeAccepted = "accepted"
	OutcomeParked   = "parked"
)

// Intake takes events from sources, from each on one node at a time, so that they keep
// their order. What cannot be accepted is parked.
type Intake struct {
	Sources  []Source
	Commands *commands.Commands
	Read     ReadFunc
	TLS      *tls.Config
	Taken    func(source, outcome string)
	Logger   *slog.Logger
}

// environment is what a subscription is made with.
type environment struct {
	tls    *tls.Config
	logger watermill.LoggerAdapter
	failed func(error)
}

// Run takes events until ctx ends.
func (in *Intake) Run(ctx context.Context, node *eventstore.Node) {
	var group sync.WaitGroup
	for _, s := range in.Sources {
		group.Go(func() { in.own(ctx, node, s) })
	}
	group.Wait()
}

// own takes from the source while the node has its lease.
func (in *Intake) own(ctx context.Context, node *eventstore.Node, s Source) {
	log, lease := in.Commands.Log, s.Actor()
	logger := in.Logger.With("source", s.Name)
	report := &reporter{logger: logger, secret: s.secret()}
	acquire := func() (owner bool, err error) {
		_, owner, err = log.AcquireLease(ctx, node, lease, silence)
		return owner, err
	}
	declared := false
	attempt := func() error {
		if !declared {
			if err := log.DeclareLease(ctx, lease); err != nil {
				return err
			}
			declared = true
		}
		if owner, err := acquire(); err != nil || !owner {
			return err
		}
		return in.take(ctx, s, acquire, report)
	}
	for ctx.Err() == nil {
		if err := attempt(); err != nil && ctx.Err() == nil {
			report.failed(err)
		}
		_ = eventstore.Sleep(ctx, pause)
	}
	leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), connectTimeout)
	defer cancel()
	if err := log.ReleaseLease(leaving, node, lease); err != nil {
		logger.Info("the source was not given up, its lease will end", "error", err)
	}
}

// take runs a router on the source until ctx ends or another node has the lease, which it
// takes when this one was silent for a while.
func (in *Intake) take(ctx context.Context, s Source, acquire func() (bool, error), report *reporter) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	subscriber, err := s.broker.subscribe(s, environment{in.TLS, report, report.failed})
	if err != nil {
		return err
	}
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: closing}, watermill.NopLogger{})
	if err != nil {
		return errors.Join(err, subscriber.Close())
	}
	router.AddConsumerHandler(s.Name, s.topic, subscriber, func(m *message.Message) error { return in.accept(ctx, s, m, report) })
	go func() {
		defer cancel()
		for owner, err := true, error(nil); ctx.Err() == nil && (owner || err != nil); owner, err = acquire() {
			_ = eventstore.Sleep(ctx, pause)
		}
	}()
	return errors.Join(router.Run(ctx), subscriber.Close())
}

// accept returns nil when the message is in the log, or parked. It waits while the log is
// away, as the broker would only send the message again.
func (in *Intake) accept(ctx context.Context, s Source, m *message.Message, report *reporter) error {
	event, refused := s.eventOf(m, in.Read)
	for {
		err := refused
		if err == nil {
			_, err = in.Commands.TriggerEvent(ctx, commands.Caller{Actor: s.Actor()}, event, "")
		}
		outcome := OutcomeAccepted
		if commands.IsRefusal(err) {
			outcome, err = OutcomeParked, in.park(ctx, s, event, m.Payload, err)
		}
		if err == nil {
			report.recovered()
			in.Taken(s.Name, outcome)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		report.failed(err)
		_ = eventstore.Sleep(ctx, pause)
	}
}

func (in *Intake) park(ctx context.Context, s Source, e commands.NewEvent, raw []byte, refused error) error {
	reason := refused.Error()
	if fields := domain.FieldsOf(refused); len(fields) > 0 {
		reason = fields[0].String()
	}
	added, err := outbox.ParkMessage(ctx, in.Commands.Pool, outbox.Message{Actor: s.Actor(), Event: e, Raw: raw, Reason: reason})
	if err != nil {
		return err
	}
	logger := in.Logger.With("source", s.Name, "event_id", e.ID.String(), "event_type", e.Event.EventType, "reason", reason)
	if added {
		logger.Warn("a message cannot be accepted and is parked")
	} else {
		logger.Info("a message that is parked already came again")
	}
	return nil
}

// pass passes one message on and waits for its end. It reports whether there may be more.
func pass(ctx context.Context, out chan<- *message.Message, m *message.Message, ack, nack func()) bool {
	m.SetContext(ctx)
	select {
	case out <- m:
	case <-ctx.Done():
		return false
	}
	select {
	case <-m.Acked():
		ack()
	case <-m.Nacked():
		nack()
	case <-ctx.Done():
		return false
	}
	return true
}

// reporter logs the first of several failures in a row, and of what Watermill says the
// errors alone. No password of the source is in them.
type reporter struct {
	watermill.NopLogger
	logger *slog.Logger
	secret string

	mu      sync.Mutex
	failing bool
}

func (r *reporter) failed(err error) {
	if err == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	text := err.Error()
	if r.secret != "" {
		text = strings.ReplaceAll(text, r.secret, "***")
	}
	level := slog.LevelWarn
	if r.failing {
		level = slog.LevelDebug
	}
	r.failing = true
	r.logger.Log(context.Background(), level, "taking events from a source failed, trying again", "error", text)
}

func (r *reporter) recovered() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failing = false
}

// Error implements watermill.LoggerAdapter.
func (r *reporter) Error(message string, err error, _ watermill.LogFields) { r.failed(err) }

// With implements watermill.LoggerAdapter.
func (r *reporter) With(watermill.LogFields) watermill.LoggerAdapter { return r }
