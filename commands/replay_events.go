package commands

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/filter"
	"github.com/medilab/webhooks/eventstore"
)

// maxReplay bounds what one replay remembers while it looks through the log.
const maxReplay = 1_000_000

// ReplayEvents asks for the events of a range that match the webhook as it is now
// to be sent to it again, and to nobody else. It returns how many they are, with an
// id when that is in the log: from there on the replay goes on by itself (see
// Replays). Dry, it only counts them. The catalogue has the types that can be asked for.
func (c *Commands) ReplayEvents(ctx context.Context, caller Caller, catalog domain.Catalog, id domain.WebhookID, spec domain.ReplaySpec, dry bool) (domain.ReplayID, int, error) {
	w, err := c.webhook(ctx, id)
	if err != nil {
		return domain.ReplayID{}, 0, err
	}
	if err := domain.CheckReplay(catalog, spec); err != nil {
		return domain.ReplayID{}, 0, err
	}
	looking := replaying{log: c.Log, queue: c.Queue, webhook: w, spec: spec}
	matched, err := looking.count(ctx)
	if err != nil || dry {
		return domain.ReplayID{}, matched, Failed("find what to replay", err)
	}
	unique, err := uuid.NewV7()
	if err != nil {
		return domain.ReplayID{}, 0, domain.Internal("name a replay", err)
	}
	replay := domain.ReplayID(unique)
	changes := []domain.Change{domain.ReplayRequested{
		ID: replay, WebhookID: w.ID, From: spec.From, To: spec.To, EventTypes: spec.EventTypes,
		OnlyFailed: spec.OnlyFailed, Matched: matched, WebhookVersion: w.Version,
	}}
	if matched == 0 {
		changes = append(changes, domain.ReplayCompleted{})
	}
	_, err = c.append(ctx, caller, replay.Stream(), 0, changes...)
	return replay, matched, Failed("replay", err)
}

// replaying is what one replay looks for in the log.
type replaying struct {
	log     *eventstore.Log
	queue   Queue
	webhook domain.Webhook // whose events and filters decide
	spec    domain.ReplaySpec
	before  eventstore.Position // events from here on are not for it; 0: all of now
}

// replayed is an event to send again.
type replayed struct {
	event domain.EventID
	size  int
	line  domain.Line
}

func (r *replaying) delivery(e replayed) domain.DeliveryID {
	return domain.DeliveryOf(e.event, r.webhook.ID)
}

// replayChunk is how many deliveries are looked at, and asked for, at once.
const replayChunk = 400

// errEnough ends a reading of the log early.
var errEnough = errors.New("enough was read")

// matching returns the events of the range that match, in the order of the log.
func (r *replaying) matching(ctx context.Context) (found []replayed, err error) {
	wanted, err := domain.NewMatcher(r.webhook.Events, r.webhook.Filters)
	if err != nil {
		return nil, err
	}
	narrowed := wanted
	if r.spec.EventTypes != nil {
		if narrowed, err = domain.NewMatcher(r.spec.EventTypes, nil); err != nil {
			return nil, err
		}
	}
	triggered := eventstore.Filter{Type: domain.EventTriggered{}.ChangeType(), From: r.spec.From, To: r.spec.To}
	err = r.log.Compute(ctx, 0, triggered, func(e eventstore.Event) error {
		if r.before > 0 && e.Position >= r.before {
			return errEnough
		}
		event, ok := e.Value.(domain.EventTriggered)
		_, id, err := domain.ParseStream(e.Stream)
		if !ok || err != nil {
			return nil // no event that could be sent
		}
		eventType, doc := domain.EventType(event.EventType), filter.Parse(event.EventData)
		if narrowed.Match(eventType, doc) && wanted.Match(eventType, doc) {
			found = append(found, replayed{domain.EventID(id), len(event.EventData), r.webhook.LineOf(event.EventData)})
		}
		if len(found) > maxReplay {
			return domain.Invalid("to", fmt.Sprintf("makes a range with more than %d matching events; narrow it", maxReplay))
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return found, err
}

// count returns how many of what matches a replay would send.
func (r *replaying) count(ctx context.Context) (n int, err error) {
	found, err := r.matching(ctx)
	if err != nil {
		return 0, err
	}
	for len(found) > 0 {
		chunk := found[:min(replayChunk, len(found))]
		states, err := r.states(ctx, chunk)
		if err != nil {
			return 0, err
		}
		wanted, err := r.wanted(ctx, states)
		if err != nil {
			return 0, err
		}
		for _, yes := range wanted {
			if yes {
				n++
			}
		}
		found = found[len(chunk):]
	}
	return n, nil
}

// states returns where the deliveries of the events to the webhook stand.
func (r *replaying) states(ctx context.Context, events []replayed) ([]domain.Delivery, error) {
	states := make([]domain.Delivery, len(events))
	at := make(map[string]int, len(events))
	streams, ids := make([]string, len(events)), make([]domain.DeliveryID, len(events))
	for i, e := range events {
		ids[i], streams[i] = r.delivery(e), r.delivery(e).Stream()
		at[streams[i]] = i
	}
	history, err := r.log.LoadAll(ctx, streams)
	if err != nil {
		return nil, err
	}
	for _, e := range history {
		if change, ok := e.Value.(domain.Change); ok {
			states[at[e.Stream]] = states[at[e.Stream]].Evolve(change, e.RecordedAt)
		}
	}
	untried, err := r.queue.Untried(ctx, ids)
	if err != nil {
		return nil, err
	}
	for i, id := range ids {
		if _, ok := untried[id]; ok && states[i].Version == 0 {
			states[i].State = domain.DeliveryPending
		}
	}
	return states, nil
}

// wanted tells which of the deliveries the replay sends. One that went in a batch
// stands as the batch does.
func (r *replaying) wanted(ctx context.Context, states []domain.Delivery) ([]bool, error) {
	batches := map[string]domain.Delivery{}
	var streams []string
	for _, d := range states {
		if stream := d.BatchID.Stream(); d.State == domain.DeliveryJoined {
			if _, known := batches[stream]; !known {
				streams, batches[stream] = append(streams, stream), domain.Delivery{}
			}
		}
	}
	if len(streams) > 0 {
		history, err := r.log.LoadAll(ctx, streams)
		if err != nil {
			return nil, err
		}
		for _, e := range history {
			if change, ok := e.Value.(domain.Change); ok {
				batches[e.Stream] = batches[e.Stream].Evolve(change, e.RecordedAt)
			}
		}
	}
	wanted := make([]bool, len(states))
	for i, d := range states {
		if d.State == domain.DeliveryJoined {
			d = d.In(batches[d.BatchID.Stream()])
		}
		wanted[i] = d.ReplayWants(r.spec.OnlyFailed)
	}
	return wanted, nil
}
