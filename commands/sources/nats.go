package sources

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// natsAckWait is after what silence of its node the message in hand goes to another one.
	natsAckWait = 5 * time.Second
	// natsRequest is how long a node that is gone may still be sent messages.
	natsRequest = 10 * time.Second
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
	// The broker sends the next message when one is acknowledged. If it sent several, those that
	// a node did not handle before it ended would come again behind younger ones.
	consumer, err := stream.CreateOrUpdateConsumer(starting, jetstream.ConsumerConfig{
		Durable: n.source.group, FilterSubject: n.source.filter, AckPolicy: jetstream.AckExplicitPolicy,
		AckWait: natsAckWait, MaxAckPending: 1,
	})
	if err != nil {
		return nil, fmt.Errorf("durable consumer %q: %w", n.source.group, err)
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(prefetched), jetstream.PullExpiry(natsRequest))
	if err != nil {
		return nil, err
	}
	out := make(chan *message.Message)
	n.group.Go(func() {
		defer close(out)
		var m jetstream.Msg // the last one, which may not be acknowledged
		defer func() { giveBack(messages, m) }()
		for {
			next, err := messages.Next(jetstream.NextContext(ctx))
			if err == nil {
				m = next
			}
			switch {
			case errors.Is(err, jetstream.ErrMsgIteratorClosed), ctx.Err() != nil:
				return
			case err != nil: // such as a missed heartbeat: the iterator asks again by itself
				n.failed(err)
				continue
			}
			done := keep(m)
			// If an acknowledgement is lost, the message is redelivered, and recognised by its id.
			more := pass(ctx, out, messageOfNATS(m), func() { _ = m.DoubleAck(ctx) }, func() { _ = m.NakWithDelay(pause) })
			if done(); !more {
				return
			}
		}
	})
	return out, nil
}

// keep tells the broker that the message is still in hand, until done is called: the log may
// be away for long.
func keep(m jetstream.Msg) (done func()) {
	ended := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		tick := time.NewTicker(natsAckWait / 5)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				_ = m.InProgress()
			case <-ended:
				return
			}
		}
	})
	return func() { close(ended); group.Wait() }
}

// giveBack returns the last message, if any and not acknowledged, and what else the broker has
// sent, so that the next subscriber has it at once.
func giveBack(messages jetstream.MessagesContext, m jetstream.Msg) {
	ctx, cancel := context.WithTimeout(context.Background(), pause)
	defer cancel()
	var all []jetstream.Msg
	messages.Drain()
	for err := error(nil); err == nil; m, err = messages.Next(jetstream.NextContext(ctx)) {
		if m != nil {
			all = append(all, m)
		}
	}
	for _, m := range all { // now that the broker sends this subscriber nothing more
		_ = m.Nak()
	}
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

// Close implements message.Subscriber. The context of Subscribe has ended, or is about to.
func (n *natsSubscriber) Close() error {
	n.group.Wait()
	n.conn.Close()
	return nil
}
