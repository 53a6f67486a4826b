package vault

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/envelope"
	"github.com/medilab/webhooks/eventstore"
)

// followWithin is how old what is known of keys may be when content is opened: within a
// second of an erasure nobody is shown what is erased.
const followWithin = 900 * time.Millisecond

// Open implements eventstore.Envelope: it opens what the events hold encrypted. An event a
// key of which is destroyed becomes erased, also one that was open. One whose key is missing
// and is not known to be destroyed gets an Err.
func (k *Keyring) Open(ctx context.Context, events []eventstore.Event) error {
	var needed [][]envelope.KeyID // by event; nil: nothing is sealed
	var all []envelope.KeyID
	var open []int // events that keys have opened before
	for i := range events {
		content, ok := events[i].Value.(domain.Enveloped)
		if !ok {
			continue
		}
		ids, err := content.SealedWith()
		switch {
		case err != nil:
			setError(&events[i], err)
		case len(ids) > 0:
			if needed == nil {
				needed = make([][]envelope.KeyID, len(events))
			}
			needed[i], all = ids, append(all, ids...)
		case len(content.Unlocks()) > 0:
			open = append(open, i)
		}
	}
	if needed == nil && open == nil {
		return nil
	}
	if k.Follow != nil {
		if err := k.Follow(ctx, followWithin); err != nil {
			return err
		}
	}
	for _, i := range open {
		if content := events[i].Value.(domain.Enveloped); content.Unlocks().Destroyed() {
			k.destroyed(&events[i], content, content.Unlocks())
		}
	}
	if needed == nil {
		return nil
	}
	keys, err := k.keys(ctx, all)
	if err != nil {
		return err
	}
	return k.openAll(ctx, events, needed, keys)
}

// destroyed makes what the keys opened erased.
func (k *Keyring) destroyed(e *eventstore.Event, content domain.Enveloped, keys envelope.Keys) {
	expired := true
	for _, key := range keys {
		erased, _ := k.fates.Fate(key.KeyID)
		expired = expired && erased == 0
	}
	opened, err := content.Opened(nil, expired)
	if e.Value = opened; err != nil {
		setError(e, err)
	}
}

func (k *Keyring) openAll(ctx context.Context, events []eventstore.Event, needed [][]envelope.KeyID, keys map[envelope.KeyID]*envelope.Key) error {
	followed := k.Follow == nil
	for i, ids := range needed {
		if ids == nil {
			continue
		}
		with, expired, err := k.unlocking(&events[i], ids, keys)
		if err != nil && !followed { // what destroyed the key may not be known here
			if err := k.Follow(ctx, 0); err != nil {
				return err
			}
			followed = true
			with, expired, err = k.unlocking(&events[i], ids, keys)
		}
		if err == nil {
			events[i].Value, err = events[i].Value.(domain.Enveloped).Opened(with, expired)
		}
		if err != nil {
			setError(&events[i], err)
		}
	}
	return nil
}

func setError(e *eventstore.Event, err error) {
	e.Value, e.Err = nil, fmt.Errorf("position %d: %w", e.Position, err)
}

var errKeyMissing = errors.New("the key of its content is missing, and no erasure or expiry is on record")

// unlocking returns the keys that open the event; none if any of them is destroyed. An event
// of the clinic was there before what destroyed its keys; a call may end after it.
func (k *Keyring) unlocking(e *eventstore.Event, ids []envelope.KeyID, known map[envelope.KeyID]*envelope.Key) (keys envelope.Keys, expired bool, err error) {
	gone, wasErased := false, false
	for _, id := range ids {
		key := known[id]
		if key != nil && !key.Destroyed() {
			keys = append(keys, key)
			continue
		}
		gone = true
		erased, old := k.fates.Fate(id)
		if _, event := e.Value.(domain.EventTriggered); event && erased < int64(e.Position) {
			erased = 0
		}
		wasErased = wasErased || erased > 0
		if erased == 0 && !old {
			return nil, false, errKeyMissing
		}
	}
	if gone {
		return nil, !wasErased, nil
	}
	return keys, false, nil
}

// keys returns those of the keys that there are.
func (k *Keyring) keys(ctx context.Context, ids []envelope.KeyID) (map[envelope.KeyID]*envelope.Key, error) {
	known := make(map[envelope.KeyID]*envelope.Key, len(ids))
	var missing []envelope.KeyID
	k.mu.Lock()
	lost, count := k.lost, k.fates.Count()
	for _, id := range ids {
		if _, twice := known[id]; twice {
			continue
		}
		key, ok := k.read.get(id)
		if made, own := k.made.get(id.Owner); !ok && own && made.key.KeyID == id {
			key, ok = made.key, true
		}
		if known[id] = key; !ok {
			missing = append(missing, id)
		}
	}
	k.mu.Unlock()
	if len(missing) == 0 {
		return known, nil
	}
	read, err := k.readKeys(ctx, missing, count)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range read {
		if known[key.KeyID] = key; k.lost == lost && !key.Destroyed() {
			k.read.put(key.KeyID, key)
		}
	}
	return known, nil
}

func (k *Keyring) readKeys(ctx context.Context, ids []envelope.KeyID, count int64) (keys []*envelope.Key, err error) {
	vault, _, err := k.ready(ctx)
	if err != nil {
		return nil, err
	}
	owners, numbers := make([][16]byte, len(ids)), make([]int64, len(ids))
	for i, id := range ids {
		owners[i], numbers[i] = id.Owner, id.Number
	}
	// LATERAL with LIMIT keeps to the primary key, whatever the planner knows of the table.
	rows, _ := k.Pool.Query(ctx, `SELECT k.owner, k.number, k.until, k.wrapped FROM unnest($1::uuid[], $2::bigint[]) AS wanted (owner, number)
		CROSS JOIN LATERAL (SELECT * FROM medilab.data_keys WHERE owner = wanted.owner AND number = wanted.number LIMIT 1) AS k`, owners, numbers)
	var owner uuid.UUID
	var id envelope.KeyID
	var wrapped []byte
	_, err = pgx.ForEachRow(rows, []any{&owner, &id.Number, &id.Until, &wrapped}, func() error {
		id.Owner = envelope.Owner(owner)
		secret, err := vault.unwrap(id, wrapped)
		if err != nil {
			return err
		}
		key, err := envelope.KeyOf(id, secret, &k.fates, count)
		keys = append(keys, key)
		return err
	})
	return keys, eventstore.Doing("read data keys", err)
}
