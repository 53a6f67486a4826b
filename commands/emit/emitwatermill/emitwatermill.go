// Package emitwatermill publishes Watermill messages as webhook events. It stands apart from
// package emit so that only services that use Watermill link it.
package emitwatermill

import (
	"context"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/medilab/webhooks/commands/emit"
)

// The metadata of a message that Publisher reads; all of it is optional.
const (
	// MetadataCorrelationID is the key that Watermill's own correlation middleware uses.
	MetadataCorrelationID = "correlation_id"
	// MetadataSource says where the event comes from.
	MetadataSource = "source"
	// MetadataEventID is a UUID that makes publishing the same event twice harmless. The
	// message's own UUID is not used: Watermill's copies of a message share it.
	MetadataEventID = "event_id"
)

// Publisher is a Watermill publisher that emits events: the topic is the event's type, the
// payload its data.
type Publisher struct{ tx any }

var _ message.Publisher = (*Publisher)(nil)

// NewPublisher returns a publisher that emits in tx as emit.Emit does: within a transaction or,
// with a pool (*sql.DB, *pgxpool.Pool), each Publish in a transaction of its own. The publisher
// does not own tx: Close leaves it open.
func NewPublisher(tx any) (*Publisher, error) {
	if _, err := emit.Emit(context.Background(), tx); err != nil {
		return nil, err
	}
	return &Publisher{tx}, nil
}

// Publish emits the messages, all or none, with the context of the first one.
func (p *Publisher) Publish(topic string, messages ...*message.Message) error {
	if len(messages) == 0 {
		return nil
	}
	events := make([]emit.Event, len(messages))
	for i, m := range messages {
		events[i] = emit.Event{
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
	_, err := emit.Emit(messages[0].Context(), p.tx, events...)
	return err
}

// Close implements message.Publisher. It does nothing.
func (p *Publisher) Close() error { return nil }
