package domain

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/google/uuid"
)

// WebhookID identifies a webhook; its short number is for people.
type WebhookID uuid.UUID

// EventID names one event that the clinic emitted. Ours are UUIDv7, so that
// what belongs to neighbouring events is stored side by side.
type EventID uuid.UUID

// DeliveryID names the delivery of one event to one webhook, over all its attempts.
type DeliveryID uuid.UUID

// TokenID names one API token. It is not the token.
type TokenID uuid.UUID

// Stream names the log's stream of what the id names.

func (id WebhookID) Stream() string  { return streamOf("webhook-", uuid.UUID(id)) }
func (id EventID) Stream() string    { return streamOf("event-", uuid.UUID(id)) }
func (id DeliveryID) Stream() string { return streamOf("delivery-", uuid.UUID(id)) }
func (id TokenID) Stream() string    { return streamOf("token-", uuid.UUID(id)) }

// streamOf makes the name at once: each event and each delivery has a stream.
func streamOf(kind string, id uuid.UUID) string {
	var name [48]byte
	return string(appendUUID(append(name[:0], kind...), id))
}

func (id WebhookID) String() string  { return uuid.UUID(id).String() }
func (id EventID) String() string    { return uuid.UUID(id).String() }
func (id DeliveryID) String() string { return uuid.UUID(id).String() }
func (id TokenID) String() string    { return uuid.UUID(id).String() }

// MarshalText and UnmarshalText make the ids their usual text in JSON.

func (id WebhookID) MarshalText() ([]byte, error)  { return uuid.UUID(id).MarshalText() }
func (id EventID) MarshalText() ([]byte, error)    { return uuid.UUID(id).MarshalText() }
func (id DeliveryID) MarshalText() ([]byte, error) { return uuid.UUID(id).MarshalText() }
func (id TokenID) MarshalText() ([]byte, error)    { return uuid.UUID(id).MarshalText() }

func (id *WebhookID) UnmarshalText(b []byte) error  { return (*uuid.UUID)(id).UnmarshalText(b) }
func (id *EventID) UnmarshalText(b []byte) error    { return (*uuid.UUID)(id).UnmarshalText(b) }
func (id *DeliveryID) UnmarshalText(b []byte) error { return (*uuid.UUID)(id).UnmarshalText(b) }
func (id *TokenID) UnmarshalText(b []byte) error    { return (*uuid.UUID)(id).UnmarshalText(b) }

// DeliveryOf derives the delivery's id from what it delivers and to whom, so
// that deciding the same dispatch twice is a no-op. It keeps the first six
// bytes of the event's id (a UUIDv7's time), so that indexes stay local as the
// log grows, and marks itself as version 8, RFC 9562's custom layout.
func DeliveryOf(event EventID, webhook WebhookID) DeliveryID {
	var in [32]byte
	copy(in[:16], event[:])
	copy(in[16:], webhook[:])
	return DeliveryID(derived(event[:6], sha256.Sum256(in[:])))
}

// derived returns a UUID of version 8 that begins with some bytes and goes on with a hash.
func derived(begin []byte, sum [sha256.Size]byte) (id uuid.UUID) {
	copy(id[copy(id[:], begin):], sum[:])
	return stamp(id)
}

// CallID names one attempt in the call log. It carries the log position of the
// event that recorded the attempt, so a call's details need no index of their own.
type CallID uuid.UUID

// CallAt returns the id of the call recorded at a position of the log.
func CallAt(delivery DeliveryID, position int64) CallID {
	var id uuid.UUID
	copy(id[:7], delivery[:7])
	binary.BigEndian.PutUint64(id[8:], uint64(position))
	return CallID(stamp(id))
}

// Position returns the log position of the call.
func (id CallID) Position() int64 {
	return int64(binary.BigEndian.Uint64(id[8:]) &^ (3 << 62))
}

func (id CallID) String() string               { return uuid.UUID(id).String() }
func (id CallID) MarshalText() ([]byte, error) { return uuid.UUID(id).MarshalText() }
func (id *CallID) UnmarshalText(b []byte) error {
	return (*uuid.UUID)(id).UnmarshalText(b)
}

func stamp(id uuid.UUID) uuid.UUID {
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id
}

// ParseEventStream returns the id of an event's stream.
func ParseEventStream(stream string) (EventID, error) {
	kind, id, err := ParseStream(stream)
	if err == nil && kind != "event" {
		err = fmt.Errorf("stream %q is not an event's", stream)
	}
	return EventID(id), err
}

// ParseStream splits a stream's name into its kind (webhook, event, ...) and id.
func ParseStream(stream string) (kind string, id uuid.UUID, err error) {
	const uuidLength = 36
	cut := len(stream) - uuidLength - 1
	if cut < 1 || stream[cut] != '-' {
		return "", uuid.UUID{}, fmt.Errorf("stream %q is not kind-uuid", stream)
	}
	id, err = uuid.Parse(stream[cut+1:])
	return stream[:cut], id, err
}
