package saga

import (
	"context"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
)

// subscriber is the Watermill side of the lanes: it hands out claimed
// deliveries, many at once, each when its turn has come.
type subscriber struct {
	lanes  *lanes
	calls  context.Context // of the calls; its end cuts them off
	closed chan struct{}
	once   sync.Once
}

type deliveryKey struct{}

func deliveryOf(msg *message.Message) *delivery {
	return msg.Context().Value(deliveryKey{}).(*delivery)
}

// Subscribe implements Watermill's Subscriber.
func (s *subscriber) Subscribe(ctx context.Context, _ string) (<-chan *message.Message, error) {
	out := make(chan *message.Message)
	go func() {
		defer close(out)
		for {
			d := s.lanes.next()
			if d == nil {
				select {
				case <-s.lanes.start:
					continue
				case <-s.closed:
					return
				case <-ctx.Done():
					return
				}
			}
			msg := message.NewMessage(d.id.String(), message.Payload(d.event.EventData))
			msg.SetContext(context.WithValue(s.calls, deliveryKey{}, d))
			// The router takes every message; it stops only after this channel ends.
			out <- msg
		}
	}()
	return out, nil
}

// Close implements Watermill's Subscriber: no delivery starts any more.
func (s *subscriber) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}
