package sources

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/rabbitmq/amqp091-go"
)

// amqpSubscriber consumes a queue over one connection. When that is lost, the messages end and
// Intake subscribes again. The subscriber of watermill-amqp reconnects by itself, in a data race
// with its own subscriptions, and returns a zero message when a channel closes.
type amqpSubscriber struct {
	conn  *amqp091.Connection
	group sync.WaitGroup
}

func subscribeAMQP(s Source, env environment) (message.Subscriber, error) {
	uri := url.URL{Scheme: "amqp", User: s.user, Host: s.hosts[0], Path: "/" + s.path}
	dialer := net.Dialer{Timeout: connectTimeout}
	config := amqp091.Config{
		Locale: "en_US", Heartbeat: heartbeat,
		Dial: func(network, _ string) (conn net.Conn, err error) {
			for range s.hosts { // another first each time, as one may accept and say nothing
				host := s.hosts[int(s.dialled.Add(1)-1)%len(s.hosts)]
				if conn, err = dialer.Dial(network, host); err != nil {
					continue
				}
				// amqp091 removes the deadline once the connection is open.
				if err := conn.SetDeadline(time.Now().Add(connectTimeout)); err != nil {
					return nil, errors.Join(err, conn.Close())
				}
				if s.tls {
					return tlsTo(host, conn, env.tls)
				}
				return conn, nil
			}
			return nil, err
		},
	}
	if s.path == "" {
		config.Vhost = "/"
	}
	conn, err := amqp091.DialConfig(uri.String(), config)
	if err != nil {
		return nil, err
	}
	return &amqpSubscriber{conn: conn}, nil
}

// tlsTo returns a TLS client over the connection that verifies the host's name.
func tlsTo(host string, conn net.Conn, config *tls.Config) (net.Conn, error) {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if config == nil {
		config = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	config = config.Clone()
	config.ServerName = name
	return tls.Client(conn, config), nil
}

// Subscribe implements message.Subscriber. The topic is the queue, which must exist.
func (a *amqpSubscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	channel, err := a.conn.Channel()
	if err != nil {
		return nil, err
	}
	if err := channel.Qos(prefetched, 0, false); err != nil {
		return nil, err
	}
	if _, err := channel.QueueDeclarePassive(topic, true, false, false, false, nil); err != nil {
		return nil, fmt.Errorf("queue %q: %w", topic, err)
	}
	deliveries, err := channel.ConsumeWithContext(ctx, topic, "", false, false, false, false, nil)
	if err != nil {
		return nil, err
	}
	out := make(chan *message.Message)
	a.group.Go(func() {
		defer close(out)
		for {
			select {
			case d, more := <-deliveries:
				// If an acknowledgement is lost, the message is redelivered, and recognised by its id.
				if !more || !pass(ctx, out, messageOfAMQP(d), func() { _ = d.Ack(false) }, func() { _ = d.Nack(false, true) }) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	})
	return out, nil
}

// messageOfAMQP reads a message of any publisher.
func messageOfAMQP(d amqp091.Delivery) *message.Message {
	passed := message.NewMessage(d.MessageId, d.Body)
	for key, value := range d.Headers {
		if text, ok := value.(string); ok {
			passed.Metadata.Set(key, text)
		}
	}
	return passed
}

// Close implements message.Subscriber. What was not acknowledged is sent again.
func (a *amqpSubscriber) Close() error {
	err := a.conn.CloseDeadline(time.Now().Add(connectTimeout))
	a.group.Wait()
	return err
}
