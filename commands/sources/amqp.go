package sources

import (
	"net"
	"net/url"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	watermillamqp "github.com/ThreeDotsLabs/watermill-amqp/v3/pkg/amqp"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/rabbitmq/amqp091-go"
)

func subscribeAMQP(s Source, env environment) (message.Subscriber, error) {
	uri := url.URL{Scheme: "amqp", User: s.user, Host: s.hosts[0], Path: "/" + s.path}
	config := watermillamqp.NewDurableQueueConfig(uri.String())
	dialer := net.Dialer{Timeout: connectTimeout}
	config.Connection.AmqpConfig = &amqp091.Config{
		Locale: "en_US", Heartbeat: heartbeat,
		Dial: func(network, _ string) (conn net.Conn, err error) {
			for range s.hosts { // another first each time, as one may accept and say nothing
				host := s.hosts[int(s.dialled.Add(1)-1)%len(s.hosts)]
				if conn, err = dialer.Dial(network, host); err == nil {
					// Until the connection is open, which takes the deadline away.
					err = conn.SetDeadline(time.Now().Add(connectTimeout))
					return conn, err
				}
			}
			return nil, err
		},
	}
	config.Connection.Reconnect = &watermillamqp.ReconnectConfig{BackoffInitialInterval: pause, BackoffMultiplier: 1.5, BackoffMaxInterval: longestPause}
	if s.path == "" {
		config.Connection.AmqpConfig.Vhost = "/"
	}
	if s.tls {
		config.Connection.AmqpConfig.TLSClientConfig = env.tls
	}
	config.Marshaler = amqpMessages{}
	config.TopologyBuilder = existingQueue{}
	return watermillamqp.NewSubscriber(config, env.logger)
}

// amqpMessages reads messages of any publisher.
type amqpMessages struct{ watermillamqp.DefaultMarshaler }

// Unmarshal implements watermillamqp.Marshaler.
func (amqpMessages) Unmarshal(m amqp091.Delivery) (*message.Message, error) {
	if m.Acknowledger == nil { // the subscriber takes the end of a channel for a message
		return nil, amqp091.ErrClosed
	}
	passed := message.NewMessage(m.MessageId, m.Body)
	for key, value := range m.Headers {
		if text, ok := value.(string); ok {
			passed.Metadata.Set(key, text)
		}
	}
	return passed, nil
}

// existingQueue declares nothing: the queue must exist.
type existingQueue struct{}

// BuildTopology implements watermillamqp.TopologyBuilder.
func (existingQueue) BuildTopology(channel *amqp091.Channel, p watermillamqp.BuildTopologyParams, _ watermillamqp.Config, _ watermill.LoggerAdapter) error {
	_, err := channel.QueueDeclarePassive(p.QueueName, true, false, false, false, nil)
	return err
}

// ExchangeDeclare implements watermillamqp.TopologyBuilder.
func (existingQueue) ExchangeDeclare(*amqp091.Channel, string, watermillamqp.Config) error {
	return nil
}
