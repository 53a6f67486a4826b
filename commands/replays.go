package commands

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/eventstore/cpulimit"
)

// Replays goes on with replays that were requested, from where the log says they
// are: it does not matter who began one, nor what became of him. Two that go on
// with the same one do no harm: a chunk is in the replay's stream at its version or
// not at all. All fields are required.
type Replays struct {
	Log       *eventstore.Log
	Directory *Directory
	Queue     Queue
	Pool      *pgxpool.Pool
}

// Unfinished lists the replays that are to go on, the oldest first, of those whose
// ids are not before the given one.
func (r *Replays) Unfinished(ctx context.Context, from domain.ReplayID) ([]domain.ReplayID, error) {
	rows, err := r.Pool.Query(ctx, `
		SELECT r.stream FROM medilab.events AS r
		CROSS JOIN LATERAL (SELECT e.type FROM medilab.events AS e WHERE e.stream = r.stream ORDER BY e.version DESC LIMIT 1) AS last
		WHERE r.stream >= $1 AND r.stream < 'replay.' AND r.version = 1 AND last.type <> $2
		ORDER BY r.stream`, from.Stream(), domain.ReplayCompleted{}.ChangeType())
	if err != nil {
		return nil, fmt.Errorf("list unfinished replays: %w", err)
	}
	streams, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("list unfinished replays: %w", err)
	}
	if len(streams) == 0 {
		return nil, nil
	}
	requests, err := r.Log.LoadFirst(ctx, streams)
	if err != nil {
		return nil, err
	}
	var replays []domain.ReplayID
	for i := range requests {
		requested, ok := requests[i].Value.(domain.ReplayRequested)
		if ok && !(domain.Replay{}).Evolve(requested).Completed {
			replays = append(replays, requested.ID)
		}
	}
	return replays, nil
}

// Continue asks for all that a replay has not asked for yet. It is done when it
// returns nil, unless somebody else went on with it at the same time.
func (r *Replays) Continue(ctx context.Context, id domain.ReplayID) error {
	p, err := r.progress(ctx, id)
	if err != nil || p.replay.Completed {
		return err
	}
	ctx = cpulimit.WithCaller(ctx, p.caller.Actor)
	found, err := p.matching(ctx)
	if err != nil {
		return fmt.Errorf("go on with replay %s: %w", id, err)
	}
	left := found[:0]
	for _, e := range found {
		if !p.queued[p.delivery(e)] {
			left = append(left, e)
		}
	}
	for {
		chunk := left[:min(replayChunk, len(left))]
		left = left[len(chunk):]
		if w, _ := r.Directory.Webhook(p.webhook.ID); w.Deleted { // not one that is not known here yet
			chunk, left = nil, nil // there is nobody to send to any more
		}
		err := r.ask(ctx, p, chunk, len(left) == 0)
		if errors.Is(err, errReplayedElsewhere) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("go on with replay %s: %w", id, err)
		}
		if len(left) == 0 {
			return nil
		}
	}
}

// progress is one replay on its way into the log.
type progress struct {
	replaying
	id     domain.ReplayID
	caller Caller // who requested it
	replay domain.Replay
	queued map[domain.DeliveryID]bool
}

func (r *Replays) progress(ctx context.Context, id domain.ReplayID) (*progress, error) {
	events, err := r.Log.Load(ctx, id.Stream())
	if err != nil {
		return nil, err
	}
	p := &progress{id: id, queued: map[domain.DeliveryID]bool{}}
	for i := range events {
		change, ok := events[i].Value.(domain.Change)
		if !ok {
			return nil, fmt.Errorf("replay %s cannot be read: %w", id, events[i].Err)
		}
		p.replay = p.replay.Evolve(change)
	}
	if len(events) == 0 || p.replay.Completed {
		return p, nil
	}
	for _, d := range p.replay.Queued {
		p.queued[d] = true
	}
	if p.caller, err = callerOf(events[0]); err != nil {
		return nil, err
	}
	asked := p.replay.Request
	p.replaying = replaying{log: r.Log, queue: r.Queue, before: events[0].Position, spec: domain.ReplaySpec{
		From: asked.From, To: asked.To, EventTypes: asked.EventTypes, OnlyFailed: asked.OnlyFailed,
	}}
	p.webhook, err = r.webhookAt(ctx, asked.WebhookID, asked.WebhookVersion)
	return p, err
}

// webhookAt returns the webhook as it was at the version.
func (r *Replays) webhookAt(ctx context.Context, id domain.WebhookID, version int64) (w domain.Webhook, err error) {
	events, err := r.Log.Load(ctx, id.Stream())
	if err != nil {
		return w, err
	}
	for i := range events {
		if events[i].Version > version {
			break
		}
		change, ok := events[i].Value.(domain.Change)
		if !ok {
			return w, fmt.Errorf("webhook %s cannot be read: %w", id, events[i].Err)
		}
		w = w.Evolve(change, events[i].RecordedAt)
	}
	return w, nil
}

var errReplayedElsewhere = errors.New("another node goes on with the replay")

// ask asks for the deliveries of a chunk that the replay wants as they stand now.
// They are in the replay's stream if they are in the deliveries'; no transaction
// holds the log for long.
func (r *Replays) ask(ctx context.Context, p *progress, chunk []replayed, last bool) error {
	var changes []domain.Change
	raced := false
	_, err := r.Directory.Execute(ctx, func(ctx context.Context) (eventstore.Unit, error) {
		if raced {
			if now, err := r.Log.Load(ctx, p.id.Stream()); err != nil || int64(len(now)) != p.replay.Version {
				return eventstore.Unit{}, cmp.Or(err, errReplayedElsewhere)
			}
		}
		raced = true
		var unit eventstore.Unit
		var err error
		unit, changes, err = p.request(ctx, chunk, last)
		return unit, err
	})
	if err == nil {
		p.replay.Version += int64(len(changes))
	}
	return err
}

// request is what asks for the deliveries of a chunk, and what of it the replay's own
// stream gets.
func (p *progress) request(ctx context.Context, chunk []replayed, last bool) (unit eventstore.Unit, changes []domain.Change, err error) {
	states, err := p.states(ctx, chunk)
	if err != nil {
		return unit, nil, err
	}
	wanted, err := p.wanted(ctx, states)
	if err != nil {
		return unit, nil, err
	}
	metadata := p.caller.metadata()
	metadata.CausationID = p.id.String()
	var queued domain.ReplayQueued
	for i, e := range chunk {
		if !wanted[i] {
			continue // somebody else asked meanwhile
		}
		retry, err := domain.DecideRetry(states[i], p.webhook, e.event, e.size)
		if err != nil {
			return unit, nil, err
		}
		retry.Line = e.line
		id := p.delivery(e)
		queued.Deliveries = append(queued.Deliveries, id)
		unit.Writes = append(unit.Writes, eventstore.Write{Stream: id.Stream(), Expected: states[i].Version, Events: newEvents(retry), Metadata: metadata})
	}
	if len(unit.Writes) > 0 {
		changes = append(changes, queued)
	}
	if last {
		changes = append(changes, domain.ReplayCompleted{})
	}
	if len(changes) > 0 {
		unit.Writes = append(unit.Writes, eventstore.Write{Stream: p.id.Stream(), Expected: p.replay.Version, Events: newEvents(changes...), Metadata: metadata})
	}
	return unit, changes, nil
}
