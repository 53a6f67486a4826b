package sources

import (
	"fmt"

	"github.com/IBM/sarama"
	watermillkafka "github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill/message"
)

func subscribeKafka(s Source, env environment) (message.Subscriber, error) {
	config := watermillkafka.DefaultSaramaSubscriberConfig()
	config.Version = sarama.V2_1_0_0
	config.ClientID = "medilab-webhooks"
	config.Consumer.Offsets.Initial = sarama.OffsetOldest // of a new group: nothing is left out
	config.Metadata.AllowAutoTopicCreation = false
	config.Net.DialTimeout = connectTimeout
	if s.tls {
		config.Net.TLS.Enable, config.Net.TLS.Config = true, env.tls
	}
	if s.user != nil {
		config.Net.SASL.Enable, config.Net.SASL.User = true, s.user.Username()
		config.Net.SASL.Password, _ = s.user.Password()
	}
	client, err := sarama.NewClient(s.hosts, config)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	if _, err := client.Partitions(s.topic); err != nil {
		return nil, fmt.Errorf("topic %q: %w", s.topic, err)
	}
	return watermillkafka.NewSubscriber(watermillkafka.SubscriberConfig{
		Brokers: s.hosts, ConsumerGroup: s.group, OverwriteSaramaConfig: config,
		Unmarshaler: kafkaMessages{}, NackResendSleep: pause, ReconnectRetrySleep: pause,
	}, env.logger)
}

// kafkaMessages reads messages of any publisher. Their place is their id, with their time: a
// topic that is made anew counts from 0 again.
type kafkaMessages struct{}

// Unmarshal implements watermillkafka.Unmarshaler.
func (kafkaMessages) Unmarshal(m *sarama.ConsumerMessage) (*message.Message, error) {
	passed := message.NewMessage(fmt.Sprintf("%s %d %d %d", m.Topic, m.Partition, m.Offset, m.Timestamp.UnixMilli()), m.Value)
	for _, header := range m.Headers {
		passed.Metadata.Set(string(header.Key), string(header.Value))
	}
	return passed, nil
}
