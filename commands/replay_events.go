package commands

import (
	"context"
	"crypto/sha256"
	"encoding/hex"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// StartReplay starts a replay, or a retry of all that failed, and returns its id. From
// there on it goes on by itself (see Replays). Asked for again with the same key, it starts
// nothing and returns the id of the first. The catalogue has the types that can be asked for.
func (c *Commands) StartReplay(ctx context.Context, caller Caller, catalog domain.Catalog, spec domain.ReplaySpec, key string) (domain.ReplayID, error) {
	w, err := c.replayed(ctx, catalog, spec)
	if err != nil {
		return domain.ReplayID{}, err
	}
	unique, err := uuid.NewV7()
	if err != nil {
		return domain.ReplayID{}, domain.Internal("name a replay", err)
	}
	requested := spec.Requested()
	sum := sha256.Sum256(domain.AppendJSON([]byte("replay"), requested))
	used := domain.IdempotencyKeyUsed{EventIDs: []domain.EventID{}, ReplayID: domain.ReplayID(unique), BodyHash: hex.EncodeToString(sum[:])}
	requested.ID, requested.WebhookVersion = used.ReplayID, w.Version
	unit := caller.unit(requested.ID.Stream(), 0, requested)
	if key == "" {
		_, err := c.Directory.Append(ctx, unit)
		return requested.ID, Failed("start a replay", err)
	}
	stream := domain.KeyStream(caller.Actor, key)
	unit.Writes = append(unit.Writes, eventstore.Write{Stream: stream, Events: newEvents(used), Metadata: caller.metadata()})
	if _, err = c.Directory.Append(ctx, unit); !eventstore.IsConflict(err) {
		return requested.ID, Failed("start a replay", err)
	}
	reserved, before, err := c.usedKey(ctx, caller, stream)
	if err == nil && (reserved == nil || before.BodyHash != used.BodyHash) {
		err = errOtherBody
	}
	return before.ReplayID, err
}

// CountReplay returns how many deliveries a replay would send.
func (c *Commands) CountReplay(ctx context.Context, catalog domain.Catalog, spec domain.ReplaySpec) (int, error) {
	w, err := c.replayed(ctx, catalog, spec)
	if err != nil {
		return 0, err
	}
	replays := c.replays()
	all, err := replays.candidates(ctx, spec, w, 0, 0)
	if err != nil {
		return 0, Failed("find what to replay", err)
	}
	matched, err := replays.count(ctx, spec, all, func(context.Context) (bool, error) { return true, nil })
	return matched, Failed("find what to replay", err)
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

// ChangeReplay appends what decide says of a replay of the webhook; zero: of any.
func (c *Commands) ChangeReplay(ctx context.Context, caller Caller, webhook domain.WebhookID, id domain.ReplayID, decide func(domain.Replay) ([]domain.Change, error)) error {
	_, err := c.Directory.Execute(ctx, func(ctx context.Context) (unit eventstore.Unit, err error) {
		replay, events, err := c.replays().load(ctx, id)
		if err != nil {
			return unit, err
		}
		if len(events) == 0 || webhook != (domain.WebhookID{}) && replay.Request.WebhookID != webhook {
			return unit, domain.NotFound("replay")
		}
		changes, err := decide(replay)
		return caller.unit(id.Stream(), events[len(events)-1].Version, changes...), err
	})
	return Failed("change a replay", err)
}
