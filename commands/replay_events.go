package commands

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

const (
	// maxReplay bounds what one replay remembers while it looks through the log.
	maxReplay = 1_000_000
	// replayChunk is how many deliveries one transaction of a replay asks for.
	replayChunk = 400
)

// ReplayEvents sends the events of a range that match the webhook as it is now
// to it again, and to nobody else. It gives how many they are, with an id when
// they are all asked for in the log; dry, it only counts them. A caller that
// hangs up does not stop what has begun.
func (c *Commands) ReplayEvents(ctx context.Context, caller Caller, id domain.WebhookID, spec domain.ReplaySpec, dry bool) (domain.ReplayID, int, error) {
	w, err := c.webhook(ctx, id)
	if err != nil {
		return domain.ReplayID{}, 0, err
	}
	if err := domain.CheckReplay(c.Catalog, spec); err != nil {
		return domain.ReplayID{}, 0, err
	}
	r := replaying{Commands: c, caller: caller, webhook: w, spec: spec}
	if err := r.find(ctx); err != nil || dry {
		return domain.ReplayID{}, len(r.found), Failed("find what to replay", err)
	}
	unique, err := uuid.NewV7()
	if err != nil {
		return domain.ReplayID{}, 0, domain.Internal("name a replay", err)
	}
	r.id = domain.ReplayID(unique)
	return r.id, len(r.found), Failed("replay", r.request(context.WithoutCancel(ctx)))
}

// replaying is one replay on its way into the log.
type replaying struct {
	*Commands
	caller  Caller
	webhook domain.Webhook
	spec    domain.ReplaySpec
	id      domain.ReplayID
	found   []replayed
}

// replayed is an event to send again.
type replayed struct {
	event domain.EventID
	size  int
}

func (r *replaying) delivery(e replayed) domain.DeliveryID {
	return domain.DeliveryOf(e.event, r.webhook.ID)
}

// find looks through the range for what matches and is not on its way already.
func (r *replaying) find(ctx context.Context) error {
	wanted, err := domain.NewMatcher(r.webhook.Events, r.webhook.Filters)
	if err != nil {
		return err
	}
	narrowed := wanted
	if r.spec.EventTypes != nil {
		if narrowed, err = domain.NewMatcher(r.spec.EventTypes, nil); err != nil {
			return err
		}
	}
	var page []replayed
	filter := eventstore.Filter{Type: domain.EventTriggered{}.ChangeType(), From: r.spec.From, To: r.spec.To}
	err = r.Log.Each(ctx, 0, filter, func(e eventstore.Event) error {
		event, ok := e.Value.(domain.EventTriggered)
		_, id, err := domain.ParseStream(e.Stream)
		if !ok || err != nil {
			return nil // no event that could be sent
		}
		eventType, doc := domain.EventType(event.EventType), domain.ParseDoc(event.EventData)
		if narrowed.Match(eventType, doc) && wanted.Match(eventType, doc) {
			page = append(page, replayed{domain.EventID(id), len(event.EventData)})
		}
		if len(page)+len(r.found) > maxReplay {
			return domain.Invalid("to", fmt.Sprintf("makes a range with more than %d matching events; narrow it", maxReplay))
		}
		return nil
	})
	if err != nil {
		return err
	}
	for len(page) > 0 {
		n := min(replayChunk, len(page))
		states, err := r.states(ctx, page[:n])
		if err == nil {
			err = r.resolve(ctx, states)
		}
		if err != nil {
			return err
		}
		for i, e := range page[:n] {
			if states[i].ReplayWants(r.spec.OnlyFailed) {
				r.found = append(r.found, e)
			}
		}
		page = page[n:]
	}
	return nil
}

// states gives where the deliveries of the events to the webhook stand.
func (r *replaying) states(ctx context.Context, events []replayed) ([]domain.Delivery, error) {
	states := make([]domain.Delivery, len(events))
	at := make(map[string]int, len(events))
	streams, ids := make([]string, len(events)), make([][16]byte, len(events))
	for i, e := range events {
		ids[i], streams[i] = r.delivery(e), r.delivery(e).Stream()
		at[streams[i]] = i
	}
	history, err := r.Log.LoadAll(ctx, streams)
	if err != nil {
		return nil, err
	}
	for _, e := range history {
		if change, ok := e.Value.(domain.Change); ok {
			states[at[e.Stream]] = states[at[e.Stream]].Evolve(change, e.RecordedAt)
		}
	}
	// One that nobody tried yet has no stream: it is in the queue alone, or waits for others.
	rows, err := r.Pool.Query(ctx, `
		SELECT delivery_id::text FROM medilab.queue WHERE delivery_id = ANY($1) AND version = 0
		UNION ALL SELECT delivery_id::text FROM medilab.batch_members WHERE delivery_id = ANY($1)`, ids)
	if err != nil {
		return nil, fmt.Errorf("look into the queue: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, fmt.Errorf("look into the queue: %w", err)
		}
		if i := at["delivery-"+id]; states[i].Version == 0 {
			states[i].State = domain.DeliveryPending
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("look into the queue: %w", err)
	}
	return states, nil
}

// resolve makes what went in batches stand as the batches do.
func (r *replaying) resolve(ctx context.Context, states []domain.Delivery) error {
	batches := map[string]domain.Delivery{}
	var streams []string
	for _, d := range states {
		if stream := d.BatchID.Stream(); d.State == domain.DeliveryJoined {
			if _, known := batches[stream]; !known {
				streams, batches[stream] = append(streams, stream), domain.Delivery{}
			}
		}
	}
	if len(streams) == 0 {
		return nil
	}
	history, err := r.Log.LoadAll(ctx, streams)
	if err != nil {
		return err
	}
	for _, e := range history {
		if change, ok := e.Value.(domain.Change); ok {
			batches[e.Stream] = batches[e.Stream].Evolve(change, e.RecordedAt)
		}
	}
	for i, d := range states {
		if d.State == domain.DeliveryJoined {
			states[i] = d.In(batches[d.BatchID.Stream()])
		}
	}
	return nil
}

// request asks for all of them, chunk by chunk: no transaction holds the log for
// long, and each chunk is in the replay's stream if it is in the deliveries'.
func (r *replaying) request(ctx context.Context) error {
	requested := domain.ReplayRequested{
		ID: r.id, WebhookID: r.webhook.ID, From: r.spec.From, To: r.spec.To, EventTypes: r.spec.EventTypes,
		OnlyFailed: r.spec.OnlyFailed, Matched: len(r.found),
	}
	if _, err := r.append(ctx, r.caller, r.id.Stream(), 0, []domain.Change{requested}); err != nil {
		return err
	}
	version := int64(1)
	for rest := r.found; len(rest) > 0; version++ {
		n := min(replayChunk, len(rest))
		if err := r.requestChunk(ctx, rest[:n], version); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

func (r *replaying) requestChunk(ctx context.Context, chunk []replayed, version int64) error {
	for attempt := 1; ; attempt++ {
		states, err := r.states(ctx, chunk)
		if err != nil {
			return err
		}
		queued := domain.ReplayQueued{}
		metadata := r.caller.metadata()
		metadata.CausationID = r.id.String()
		var writes []eventstore.Write
		for i, e := range chunk {
			id := r.delivery(e)
			queued.Deliveries = append(queued.Deliveries, id)
			if states[i].State == domain.DeliveryPending {
				continue // somebody else asked meanwhile
			}
			retry, err := domain.DecideRetry(states[i], r.webhook, e.event, e.size)
			if err != nil {
				return err
			}
			writes = append(writes, eventstore.Write{
				Stream: id.Stream(), Expected: states[i].Version, Events: newEvents([]domain.Change{retry}), Metadata: metadata,
			})
		}
		writes = append(writes, eventstore.Write{Stream: r.id.Stream(), Expected: version, Events: newEvents([]domain.Change{queued}), Metadata: metadata})
		_, err = r.Log.Append(ctx, eventstore.Unit{Writes: writes})
		if err == nil || !eventstore.IsConflict(err) || attempt == races {
			return err
		}
	}
}
