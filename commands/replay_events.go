package commands

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// StartReplay starts a replay, or a retry of all that failed, and returns its id. From
// there on it goes on by itself (see Replays). The catalogue has the types that can be asked for.
func (c *Commands) StartReplay(ctx context.Context, caller Caller, catalog domain.Catalog, spec domain.ReplaySpec) (domain.ReplayID, error) {
	w, err := c.replayed(ctx, catalog, spec)
	if err != nil {
		return domain.ReplayID{}, err
	}
	requested := spec.Requested()
	requested.ID, requested.WebhookVersion = domain.ReplayID(uuid.Must(uuid.NewV7())), w.Version
	_, err = c.begin(ctx, caller, requested.ID.Stream(), requested)
	return requested.ID, Failed("start a replay", err)
}

// CountReplay returns how many deliveries a replay would send.
func (c *Commands) CountReplay(ctx context.Context, catalog domain.Catalog, spec domain.ReplaySpec) (int, error) {
	w, err := c.replayed(ctx, catalog, spec)
	if err != nil {
		return 0, err
	}
	replays, request := c.replays(), spec.Requested()
	all, err := replays.candidates(ctx, request, w, 0, 0)
	if err != nil {
		return 0, Failed("find what to replay", err)
	}
	matched := 0
	for n, more := 0, true; more; matched += n {
		if n, more, err = replays.countNext(ctx, request, 0, all); err != nil {
			return 0, Failed("find what to replay", err)
		}
	}
	return matched, nil
}

// replayed returns the webhook of a replay, the zero value if it is of all.
func (c *Commands) replayed(ctx context.Context, catalog domain.Catalog, spec domain.ReplaySpec) (w domain.Webhook, err error) {
	if spec.WebhookID != (domain.WebhookID{}) {
		if w, err = c.webhook(ctx, spec.WebhookID); err != nil {
			return w, err
		}
	}
	return w, domain.CheckReplay(catalog, spec)
}

func (c *Commands) replays() *Replays {
	return &Replays{Log: c.Log, Directory: c.Directory, Queue: c.Queue, Pool: c.Pool, Failed: c.Failed}
}

// ChangeReplay appends what decide says of a replay of the webhook; zero: of any. What waits of one
// that stops is held before that is answered, if the database takes it.
func (c *Commands) ChangeReplay(ctx context.Context, caller Caller, webhook domain.WebhookID, id domain.ReplayID, decide func(domain.Replay) ([]domain.Change, error)) error {
	stops := false
	_, err := c.Directory.Execute(ctx, func(ctx context.Context) (unit eventstore.Unit, err error) {
		replay, events, err := c.replays().load(ctx, id)
		if err != nil {
			return unit, err
		}
		if len(events) == 0 || webhook != (domain.WebhookID{}) && replay.Request.WebhookID != webhook {
			return unit, domain.NotFound("replay")
		}
		changes, err := decide(replay)
		for _, change := range changes {
			replay = replay.Evolve(change, time.Time{})
		}
		stops = replay.Stopped()
		return caller.unit(id.Stream(), events[len(events)-1].Version, changes...), err
	})
	if err == nil && stops {
		_ = c.Queue.Hold(ctx, id) // it is on record: the node that works on it holds what this cannot
	}
	return Failed("change a replay", err)
}
