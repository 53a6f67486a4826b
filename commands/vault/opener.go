package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

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
	var sealed []sealedEvent
	var needed []envelope.KeyID // of all of them
	var open []int              // events that keys have opened before
	for i := range events {
		content, ok := events[i].Value.(domain.Enveloped)
		if !ok {
			continue
		}
		from := len(needed)
		var err error
		needed, err = content.AppendSealedWith(needed)
		switch {
		case err != nil:
			setError(&events[i], err)
		case len(needed) > from:
			sealed = append(sealed, sealedEvent{&events[i], from, len(needed)})
		case len(content.Unlocks()) > 0:
			open = append(open, i)
		}
	}
	if sealed == nil && open == nil {
		return nil
	}
	if k.Follow != nil {
		if err := k.Follow(ctx, followWithin); err != nil {
			return err
		}
	}
	keys, err := k.keys(ctx, needed)
	for k.Follow != nil && errors.Is(err, eventstore.ErrTailLost) {
		if err := k.Follow(ctx, followWithin); err != nil {
			return err
		}
		keys, err = k.keys(ctx, needed)
	}
	if err != nil {
		return err
	}
	for _, i := range open {
		if content := events[i].Value.(domain.Enveloped); content.Unlocks().Destroyed() {
			k.destroyed(&events[i], content, content.Unlocks())
		}
	}
	return k.openAll(ctx, sealed, needed, keys)
}

// sealedEvent is an event, and from where to where its keys are in the list of all.
type sealedEvent struct {
	*eventstore.Event
	from, to int
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

func (k *Keyring) openAll(ctx context.Context, sealed []sealedEvent, ids []envelope.KeyID, keys []*envelope.Key) error {
	followed := k.Follow == nil
	for _, e := range sealed {
		ids, keys := ids[e.from:e.to], keys[e.from:e.to:e.to]
		with, expired, err := k.unlocking(e.Event, ids, keys)
		if err != nil && !followed { // what destroyed the key may not be known here
			if err := k.Follow(ctx, 0); err != nil {
				return err
			}
			followed = true
			with, expired, err = k.unlocking(e.Event, ids, keys)
		}
		if err == nil {
			e.Value, err = e.Value.(domain.Enveloped).Opened(with, expired)
		}
		if err != nil {
			setError(e.Event, err)
		}
	}
	return nil
}

func setError(e *eventstore.Event, err error) {
	e.Value, e.Err = nil, fmt.Errorf("position %d: %w", e.Position, err)
}

var errKeyMissing = errors.New("the key of its content is missing, and no erasure or expiry is on record")

// unlocking returns the keys that open the event, which are known or nil; none if any of them is
// destroyed. An event of the clinic was there before what destroyed its keys; a call may end
// after it.
func (k *Keyring) unlocking(e *eventstore.Event, ids []envelope.KeyID, known []*envelope.Key) (keys envelope.Keys, expired bool, err error) {
	gone, wasErased := false, false
	for i, key := range known {
		if key != nil && !key.Destroyed() {
			continue
		}
		gone = true
		erased, old := k.fates.Fate(ids[i])
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
	return known, false, nil
}

// keys returns the key of each id, nil where there is none. The error is ErrTailLost when the log lost
// its tail meanwhile: a key may be there again that was destroyed.
func (k *Keyring) keys(ctx context.Context, ids []envelope.KeyID) ([]*envelope.Key, error) {
	known := make([]*envelope.Key, len(ids))
	var missing []envelope.KeyID
	k.mu.Lock()
	lost, count := k.lost, k.fates.Count()
	for i, id := range ids {
		if i > 0 && id == ids[i-1] {
			known[i] = known[i-1]
			continue
		}
		key, ok := k.read.get(id)
		if !ok {
			if kept, own := k.made.get(id.Owner); own && kept.number == id.Number && kept.until == id.Until {
				key, ok = kept.key(id.Owner, &k.fates), true
			}
		}
		if known[i] = key; !ok {
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
	if k.lost != lost {
		return nil, eventstore.ErrTailLost
	}
	for _, key := range read {
		if !key.Destroyed() {
			k.read.put(key.KeyID, key)
		}
	}
	for i, id := range ids {
		if known[i] == nil {
			known[i] = read[id]
		}
	}
	return known, nil
}

func (k *Keyring) readKeys(ctx context.Context, ids []envelope.KeyID, count int64) (map[envelope.KeyID]*envelope.Key, error) {
	vault, _, err := k.ready(ctx)
	if err != nil {
		return nil, err
	}
	keys := make(map[envelope.KeyID]*envelope.Key, len(ids))
	read := func(sql string, args ...any) error {
		owners, numbers := make([][16]byte, 0, len(ids)), make([]int64, 0, len(ids))
		for _, id := range ids {
			if keys[id] == nil {
				owners, numbers = append(owners, id.Owner), append(numbers, id.Number)
			}
		}
		rows, _ := k.Pool.Query(ctx, sql, append([]any{owners, numbers}, args...)...)
		var owner uuid.UUID
		var id envelope.KeyID
		var wrapped []byte
		_, err := pgx.ForEachRow(rows, []any{&owner, &id.Number, &id.Until, &wrapped}, func() error {
			id.Owner = envelope.Owner(owner)
			secret, err := vault.unwrap(id, wrapped)
			if err != nil {
				return err
			}
			key, err := envelope.KeyOf(id, secret, &k.fates, count)
			keys[id] = &key
			return err
		})
		return err
	}
	first, behind, err := k.closeTogether(ctx, ids)
	slices.SortFunc(ids, envelope.KeyID.Compare)
	ids = slices.Compact(ids)
	if err == nil && behind.Valid {
		err = read(keysBetween, first, behind)
	}
	if err == nil && len(keys) < len(ids) {
		err = read(keysByName)
	}
	return keys, eventstore.Doing("read data keys", err)
}

// LATERAL with LIMIT keeps to the primary key, whatever the planner knows of the table; OFFSET 0 keeps
// from it.
const (
	keysByName = `SELECT k.owner, k.number, k.until, k.wrapped FROM unnest($1::uuid[], $2::bigint[]) AS wanted (owner, number)
	CROSS JOIN LATERAL (SELECT * FROM medilab.data_keys WHERE owner = wanted.owner AND number = wanted.number LIMIT 1) AS k`

	keysBetween = `SELECT k.owner, k.number, k.until, k.wrapped FROM unnest($1::uuid[], $2::bigint[]) AS wanted (owner, number)
	JOIN (SELECT * FROM medilab.data_keys WHERE ctid >= $3 AND ctid < $4 OFFSET 0) AS k ON k.owner = wanted.owner AND k.number = wanted.number`
)

// closeTogether returns between which places of their table most of the keys are, if they are close
// together, as those of new patients are whose events were recorded one after another. To read all
// between takes less than half as long as to find each. Invalid: they are not.
func (k *Keyring) closeTogether(ctx context.Context, ids []envelope.KeyID) (first, behind pgtype.TID, err error) {
	const few, probes, ofBlock = 200, 7, 50
	if len(ids) < few {
		return first, behind, nil
	}
	owners, numbers := make([][16]byte, probes), make([]int64, probes)
	for i := range probes {
		id := ids[i*(len(ids)-1)/(probes-1)]
		owners[i], numbers[i] = id.Owner, id.Number
	}
	rows, _ := k.Pool.Query(ctx, `SELECT k.ctid FROM unnest($1::uuid[], $2::bigint[]) AS wanted (owner, number)
		CROSS JOIN LATERAL (SELECT ctid FROM medilab.data_keys WHERE owner = wanted.owner AND number = wanted.number LIMIT 1) AS k ORDER BY k.ctid`, owners, numbers)
	places, err := pgx.CollectRows(rows, pgx.RowTo[pgtype.TID])
	if err != nil || len(places) < probes {
		return first, behind, err
	}
	middle, width := places[probes/2].BlockNumber, uint32(len(ids)/ofBlock+1)
	first = pgtype.TID{BlockNumber: middle - min(middle, width), Valid: true}
	behind = pgtype.TID{BlockNumber: middle + width + 1, Valid: true}
	near := 0
	for _, place := range places {
		if first.BlockNumber <= place.BlockNumber && place.BlockNumber < behind.BlockNumber {
			near++
		}
	}
	behind.Valid = near > probes/2
	return first, behind, nil
}
