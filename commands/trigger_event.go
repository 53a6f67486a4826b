package commands

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/eventstore/cpulimit"
)

// Accepted says that an event is in the log, durably.
type Accepted struct {
	EventID    domain.EventID   `json:"event_id"`
	EventType  domain.EventType `json:"event_type"`
	AcceptedAt time.Time        `json:"accepted_at"`
}

// NewEvent is an event that a caller asks to trigger. Its data has passed
// domain.CheckJSON, and may be gone when the request is answered: what is kept is
// a copy.
type NewEvent struct {
	ID    domain.EventID // zero: the service gives one
	Event domain.EventTriggered
}

// MaxBatch is how many events one batch may hold.
const MaxBatch = 1000

// mostRefused is how many fields of a batch are named before its data is no longer checked
// against schemas.
const mostRefused = 20

// TriggerEvent records that something happened in the clinic. An event that has
// an id, or a key that is not empty, is accepted once from a caller: asked for again it is
// answered as the first time, and asked for with another content it is a Conflict.
func (c *Commands) TriggerEvent(ctx context.Context, caller Caller, event NewEvent, key string) (Accepted, error) {
	events := [1]NewEvent{event}
	var accepted [1]Accepted
	err := c.Catalog.CheckTriggered(event.Event)
	if err == nil {
		err = domain.CheckFields(c.checkOccurred(event.Event))
	}
	if err == nil {
		err = c.CheckData(ctx, event.Event)
	}
	if err = c.trigger(ctx, caller, events[:], key, accepted[:], err); err != nil {
		return Accepted{}, err
	}
	return accepted[0], nil
}

// EventFields names every field that keeps the event from being accepted now.
func (c *Commands) EventFields(e domain.EventTriggered) []domain.FieldError {
	return append(c.Catalog.TriggeredFields(e), c.checkOccurred(e)...)
}

func (c *Commands) checkOccurred(e domain.EventTriggered) []domain.FieldError {
	if e.OccurredAt.IsZero() {
		return nil
	}
	return domain.CheckOccurred(e.OccurredAt, c.Now())
}

// TriggerBatch is TriggerEvent for up to MaxBatch events, all or none of them.
// Fields at fault are named `events[3].event_type`.
func (c *Commands) TriggerBatch(ctx context.Context, caller Caller, events []NewEvent, key string) ([]Accepted, error) {
	if len(events) == 0 || len(events) > MaxBatch {
		return nil, domain.Invalid("events", fmt.Sprintf("must have 1 to %d events", MaxBatch))
	}
	accepted := make([]Accepted, len(events))
	if err := c.trigger(ctx, caller, events, key, accepted, c.checkBatch(ctx, events)); err != nil {
		return nil, err
	}
	return accepted, nil
}

// InBatch names the fields of the batch's event i as they stand in its request:
// `events[3].event_type`.
func InBatch(i int, wrong []domain.FieldError) []domain.FieldError {
	place := fmt.Sprintf("events[%d].", i)
	for j := range wrong {
		wrong[j].Within(place)
	}
	return wrong
}

func (c *Commands) checkBatch(ctx context.Context, events []NewEvent) error {
	var refused []domain.FieldError
	seen := map[domain.EventID]bool{}
	for i, event := range events {
		wrong := c.EventFields(event.Event)
		if event.ID != (domain.EventID{}) {
			if seen[event.ID] {
				wrong = append(wrong, domain.FieldError{Field: "event_id", Message: "is there twice in the batch"})
			}
			seen[event.ID] = true
		}
		if len(wrong) == 0 && len(refused) < mostRefused {
			err := c.CheckData(ctx, event.Event)
			if err != nil && domain.KindOf(err) != domain.KindInvalid {
				return err
			}
			wrong = domain.FieldsOf(err)
		}
		refused = append(refused, InBatch(i, wrong)...)
	}
	return domain.CheckFields(refused)
}

// CheckData is CheckData by the catalogue of c.
func (c *Commands) CheckData(ctx context.Context, event domain.EventTriggered) error {
	return CheckData(ctx, c.Log.Limiter, c.Catalog, event)
}

// CheckData returns an Invalid error if the event's data breaks the schema of its type, and
// that is enforced. What takes long waits for its turn.
func CheckData(ctx context.Context, limiter *cpulimit.Limiter, catalog domain.Catalog, event domain.EventTriggered) error {
	if !catalog.Enforces(domain.EventType(event.EventType)) {
		return nil
	}
	task := limiter.Task()
	defer task.End()
	refused, err := catalog.DataFields(event, func(work int) error { return task.Spend(ctx, work) })
	if err != nil {
		return Failed("check event data", err)
	}
	return domain.CheckFields(refused)
}

// trigger appends the events that are new, and fills in accepted. It appends
// first and asks questions only when the log says that something is there
// already: what is new, which is nearly everything, costs nothing more. What is refused
// now may have been accepted before, when its type was in the catalogue: then it is a
// repetition like any other.
func (c *Commands) trigger(ctx context.Context, caller Caller, events []NewEvent, key string, accepted []Accepted, refused error) error {
	t := triggering{Commands: c, caller: caller, events: events, accepted: accepted}
	t.name()
	if key != "" {
		var err error
		if _, t.once, err = c.Once(ctx, caller, key, hashOf(events)); err != nil {
			return err
		}
		if done, err := t.resolveFormerKey(ctx, key); err != nil || done {
			return err
		}
	}
	if refused != nil {
		return t.repeats(ctx, refused)
	}
	raced := false
	appended, err := c.Directory.Execute(ctx, func(ctx context.Context) (eventstore.Unit, error) {
		if raced {
			if done, err := t.resolve(ctx); err != nil || done {
				return eventstore.Unit{}, err
			}
		}
		raced = true
		return t.unit(), nil
	})
	if err != nil {
		return Failed("trigger", err)
	}
	for i := range t.accepted {
		if t.accepted[i].AcceptedAt.IsZero() {
			t.accepted[i].AcceptedAt = appended.RecordedAt
		}
	}
	return nil
}

// triggering is one request to trigger events. What is in accepted with a time
// is in the log.
type triggering struct {
	*Commands
	caller   Caller
	events   []NewEvent
	accepted []Accepted
	once     *Once // nil: it has no key
}

func (t *triggering) name() {
	for i, event := range t.events {
		id := event.ID
		if id == (domain.EventID{}) {
			id = domain.EventID(uuid.Must(uuid.NewV7()))
		}
		t.accepted[i] = Accepted{EventID: id, EventType: domain.EventType(event.Event.EventType)}
	}
}

// repeats returns nil if all of the request is in the log already, else why it is refused.
func (t *triggering) repeats(ctx context.Context, refused error) error {
	done, err := t.resolve(ctx)
	switch {
	case err != nil && domain.KindOf(err) != domain.KindConflict:
		return err
	case err != nil, !done && slices.ContainsFunc(t.accepted, func(a Accepted) bool { return a.AcceptedAt.IsZero() }):
		return refused
	}
	return nil
}

// unit holds what is not in the log yet.
func (t *triggering) unit() eventstore.Unit {
	writes := make([]eventstore.Write, 0, len(t.events)+1)
	for i, event := range t.events {
		if t.accepted[i].AcceptedAt.IsZero() {
			writes = append(writes, t.write(t.accepted[i].EventID, event))
		}
	}
	if t.once != nil {
		ids := make([]domain.EventID, len(t.accepted))
		for i := range t.accepted {
			ids[i] = t.accepted[i].EventID
		}
		writes = append(writes, t.once.reservation(ids...))
	}
	return eventstore.Unit{Writes: writes}
}

// write begins the event's stream. Its stored form is made when it is decided whom it
// goes to; that copy is what everybody reads from, as the request's body is gone when
// the request is answered.
func (t *triggering) write(id domain.EventID, asked NewEvent) eventstore.Write {
	event := asked.Event
	if asked.ID != (domain.EventID{}) && asked.ID != id {
		event.ClientEventID = asked.ID
	}
	metadata := t.caller.metadata()
	metadata.CorrelationID = event.CorrelationID
	return eventstore.Write{
		Stream:   id.Stream(),
		Events:   []eventstore.NewEvent{{Type: event.ChangeType(), Value: event}},
		Metadata: metadata,
	}
}

// resolve finds out, after a conflict, what of the request is in the log. It is
// done when the key says that all of it is.
func (t *triggering) resolve(ctx context.Context) (done bool, err error) {
	if t.once != nil {
		if done, err := t.resolveKey(ctx, t.once.stream); err != nil || done {
			return done, err
		}
	}
	return false, t.resolveIDs(ctx)
}

// resolveKey answers as the first time when the caller's key came with the same body.
func (t *triggering) resolveKey(ctx context.Context, stream string) (bool, error) {
	reserved, used, err := t.usedKey(ctx, t.caller, stream)
	if err != nil || reserved == nil {
		return false, err
	}
	same := used.BodyHash == t.once.hash || used.BodyHash == hashOf(t.events) // which older versions keep
	if !same || len(used.EventIDs) != len(t.accepted) {
		return false, errOtherBody
	}
	for i, id := range used.EventIDs {
		t.accepted[i].EventID, t.accepted[i].AcceptedAt = id, reserved.RecordedAt
	}
	return true, t.resolveIDs(ctx) // an event may be older than its key
}

// resolveFormerKey is resolveKey for a key that the caller used when callers shared them.
func (t *triggering) resolveFormerKey(ctx context.Context, key string) (bool, error) {
	if any, err := t.former.exist(ctx, t.Pool); err != nil || !any {
		return false, err
	}
	return t.resolveKey(ctx, domain.FormerKeyStream(key))
}

// resolveIDs finds the events that are in the log under the ids of the request. One that is
// another caller's gets an id of its own, under which it may be there too.
func (t *triggering) resolveIDs(ctx context.Context) error {
	asked := map[string]int{}
	var streams []string
	for i, event := range t.events {
		if event.ID != (domain.EventID{}) {
			stream := t.accepted[i].EventID.Stream()
			asked[stream], streams = i, append(streams, stream)
		}
	}
	if len(streams) == 0 {
		return nil
	}
	events, err := t.Log.LoadFirst(ctx, streams)
	if err != nil {
		return Failed("look up an event id", err)
	}
	renamed := false
	for _, e := range events {
		i := asked[e.Stream]
		if !t.caller.Appended(e) {
			if t.accepted[i].AcceptedAt.IsZero() {
				t.accepted[i].EventID, renamed = t.caller.OwnID(t.accepted[i].EventID), true
			}
			continue
		}
		was, ok := e.Value.(domain.EventTriggered)
		if !ok || !sameEvent(was, t.events[i].Event) {
			return domain.Conflict("the event " + t.events[i].ID.String() + " was accepted before with another content")
		}
		t.accepted[i].AcceptedAt = e.RecordedAt
	}
	if renamed {
		return t.resolveIDs(ctx)
	}
	return nil
}

// sameEvent reports whether the contents are the same.
// A trace is the request's, not the event's: a repetition has another one.
func sameEvent(was, asked domain.EventTriggered) bool {
	return was.EventType == asked.EventType && was.Source == asked.Source &&
		was.CorrelationID == asked.CorrelationID && was.Imported == asked.Imported &&
		was.OccurredAt.Equal(asked.OccurredAt.Truncate(time.Microsecond)) && SameData(was, asked)
}

// SameData reports whether the data are the same; what is erased is taken for the same if it had as
// many bytes.
func SameData(was, asked domain.EventTriggered) bool {
	if was.Erased {
		return was.Size() == 0 || was.Size() == asked.Size()
	}
	return bytes.Equal(was.EventData, asked.EventData)
}

// hashOf is the same for the same request, and for no other: each part stands
// with its length before it.
func hashOf(events []NewEvent) string {
	h := sha256.New()
	part := func(b []byte) {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(b)))
		h.Write(length[:])
		h.Write(b)
	}
	for _, e := range events {
		part(e.ID[:])
		part([]byte(e.Event.EventType))
		part([]byte(e.Event.Source))
		part([]byte(e.Event.CorrelationID))
		part(e.Event.EventData)
		// Earlier versions had none of these, and no id has their length.
		if at := e.Event.OccurredAt; !at.IsZero() {
			part([]byte("occurred_at " + at.UTC().Truncate(time.Microsecond).Format(time.RFC3339Nano)))
		}
		if e.Event.Imported {
			part([]byte("deliver false"))
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}
