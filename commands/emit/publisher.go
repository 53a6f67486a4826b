package emit

import (
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
)

// The metadata of a Watermill message that Publisher reads; each may be missing.
const (
	// MetadataCorrelationID is the key that Watermill's own correlation middleware uses.
	MetadataCorrelationID = "correlation_id"
	// MetadataSource says where the event comes from.
	MetadataSource = "source"
	// MetadataEventID is a UUID that makes publishing the same event twice harmless. The
	// message's own UUID is not used: Watermill's copies of a message share it.
	MetadataEventID = "event_id"
)

// Publisher is a Watermill publisher that emits: the topic is the event's type, the payload
// its data.
type Publisher struct{ tx any }

var _ message.Publisher = (*Publisher)(nil)

// NewPublisher makes a publisher that emits by tx as Emit does: within a transaction, or, given
// a pool (*sql.DB, *pgxpool.Pool), each Publish in a transaction of its own. The publisher owns
// neither: closing it closes nothing.
func NewPublisher(tx any) (*Publisher, error) {
	if _, err := on(tx); err != nil {
		return nil, err
	}
	return &Publisher{tx}, nil
}

// Publish emits the messages, all or none. The context is the first message's.
func (p *Publisher) Publish(topic string, messages ...*message.Message) error {
	if len(messages) == 0 {
		return nil
	}
	events := make([]Event, len(messages))
	for i, m := range messages {
		events[i] = Event{
			Type:          topic,
			Data:          []byte(m.Payload),
			CorrelationID: m.Metadata.Get(MetadataCorrelationID),
			Source:        m.Metadata.Get(MetadataSource),
		}
		if text := m.Metadata.Get(MetadataEventID); text != "" {
			id, err := uuid.Parse(text)
			if err != nil {
				return fmt.Errorf("publish %s: metadata event_id of message %d: %w", topic, i+1, err)
			}
			events[i].ID = id
		}
	}
	_, err := Emit(messages[0].Context(), p.tx, events...)
	return err
}

// Close implements Watermill's Publisher.
func (p *Publisher) Close() error { return nil }
