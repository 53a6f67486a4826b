package sources

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// natsSubscriber is a durable pull consumer of a JetStream stream. Those of watermill-nats
// may send on a channel that they have closed when they end during a message.
type natsSubscriber struct {
	source Source
	conn   *nats.Conn
	failed func(error)
	group  sync.WaitGroup
}

func subscribeNATS(s Source, env environment) (message.Subscriber, error) {
	options := []nats.Option{
		nats.Name("medilab-webhooks"), nats.MaxReconnects(-1), nats.Timeout(connectTimeout),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { env.failed(err) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { env.failed(err) }),
	}
	if s.user != nil {
		password, withPassword := s.user.Password()
		options = append(options, nats.UserInfo(s.user.Username(), password))
		if !withPassword {
			options[len(options)-1] = nats.Token(s.user.Username())
		}
	}
	if s.tls {
		options = append(options, nats.Secure(env.tls))
	}
	conn, err := nats.Connect(strings.Join(s.hosts, ","), options...)
	if err != nil {
		return nil, err
	}
	return &natsSubscriber{source: s, conn: conn, failed: env.failed}, nil
}

// Subscribe implements message.Subscriber. The topic is the stream.
func (n *natsSubscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	js, err := jetstream.New(n.conn)
	if err != nil {
		return nil, err
	}
	starting, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	stream, err := js.Stream(starting, topic)
	if err != nil {
		return nil, fmt.Errorf("stream %q: %w", topic, err)
	}
	consumer, err := stream.CreateOrUpdateConsumer(starting, jetstream.ConsumerConfig{
		Durable: n.source.group, FilterSubject: n.source.filter, AckPolicy: jetstream.AckExplicitPolicy, AckWait: redeliverAfter,
	})
	if err != nil {
		return nil, fmt.Errorf("durable consumer %q: %w", n.source.group, err)
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(prefetched))
	if err != nil {
		return nil, err
	}
	out := make(chan *message.Message)
	stop := context.AfterFunc(ctx, messages.Stop)
	n.group.Go(func() {
		defer close(out)
		defer stop()
		defer messages.Stop()
		for {
			m, err := messages.Next()
			switch {
			case errors.Is(err, jetstream.ErrMsgIteratorClosed), ctx.Err() != nil:
				return
			case err != nil: // such as a missed heartbeat: the iterator asks again by itself
				n.failed(err)
				continue
			}
			// If an acknowledgement is lost, the message is redelivered, and recognised by its id.
			if !pass(ctx, out, messageOfNATS(m), func() { _ = m.DoubleAck(ctx) }, func() { _ = m.NakWithDelay(pause) }) {
				return
			}
		}
	})
	return out, nil
}

func messageOfNATS(m jetstream.Msg) *message.Message {
	passed := message.NewMessage(m.Headers().Get(nats.MsgIdHdr), m.Data())
	if meta, err := m.Metadata(); err == nil && passed.UUID == "" {
		// A stream that is made anew counts from 1 again.
		passed.UUID = fmt.Sprintf("%s %d %d", meta.Stream, meta.Sequence.Stream, meta.Timestamp.UnixNano())
	}
	for key := range m.Headers() {
		passed.Metadata.Set(key, m.Headers().Get(key))
	}
	return passed
}

// Close implements message.Subscriber.
func (n *natsSubscriber) Close() error {
	n.conn.Close()
	n.group.Wait()
	return nil
}
