package sources

import (
	"net"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"
)

// A RabbitMQ that accepts a connection and says nothing is given up.
func TestSilentRabbitMQ(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close() //nolint:errcheck // nothing is lost with it
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close() //nolint:errcheck // nothing is lost with it
	sources, err := Parse("amqp://" + silent.Addr().String() + "," + other.Addr().String() + "/?queue=q")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := subscribeAMQP(sources[0], environment{})
		ended <- err
	}()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("there is a subscription")
		}
	case <-time.After(time.Minute):
		t.Fatal("it waits for ever")
	}

	// The next connection begins with the other host.
	connected := make(chan error, 1)
	go func() {
		conn, err := other.Accept()
		if err == nil {
			err = conn.Close()
		}
		connected <- err
	}()
	if _, err := subscribeAMQP(sources[0], environment{}); err == nil {
		t.Error("there is a subscription")
	}
	select {
	case err := <-connected:
		if err != nil {
			t.Error(err)
		}
	default:
		t.Error("the other host is not tried")
	}
}

// What a subscription's channel yields when it ends is not a message.
func TestEndOfChannel(t *testing.T) {
	if m, err := (amqpMessages{}).Unmarshal(amqp091.Delivery{}); err == nil {
		t.Errorf("the message %v", m)
	}
}
