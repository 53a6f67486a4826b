package sources

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// cable is a connection to a NATS server that can be cut, as by the end of a process or of a
// network: nothing more passes either way, and nobody new gets through.
type cable struct {
	net.Listener
	mu    sync.Mutex
	ends  []net.Conn
	muted bool
}

func newCable(t testing.TB, server string) *cable {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{Listener: listener}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			host, err := net.Dial("tcp", server)
			if err != nil {
				t.Error(err)
				return
			}
			c.mu.Lock()
			c.ends = append(c.ends, client, host)
			c.mu.Unlock()
			group.Go(func() { _, _ = io.Copy(c.end(host), client) })
			group.Go(func() { _, _ = io.Copy(c.end(client), host) })
		}
	})
	t.Cleanup(func() { c.kill(); group.Wait() })
	return c
}

type cableEnd struct {
	*cable
	to net.Conn
}

func (c *cable) end(to net.Conn) io.Writer { return cableEnd{c, to} }

// Write passes on what comes, or drops it once the cable is mute.
func (e cableEnd) Write(p []byte) (int, error) {
	e.mu.Lock()
	muted := e.muted
	e.mu.Unlock()
	if muted {
		return len(p), nil
	}
	return e.to.Write(p)
}

// mute lets nothing more pass; both ends still take the connection for a good one.
func (c *cable) mute() {
	_ = c.Listener.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.muted = true
}

// kill closes the connections, as the end of a process does.
func (c *cable) kill() {
	_ = c.Listener.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.ends {
		_ = conn.Close()
	}
}

// publishNumbers publishes the events from, from+1 ... to-1.
func (r *rig) publishNumbers(js jetstream.JetStream, from, to int) {
	r.Helper()
	for n := from; n < to; n++ {
		_, err := js.Publish(r.Context(), "clinic.events", fmt.Appendf(nil, `{"event_type":"patient.created","event_data":{"n":%d}}`, n))
		r.check(err)
	}
}

// checkNumbers waits until the log has n events and compares their order with the broker's.
func (r *rig) checkNumbers(n int) {
	r.Helper()
	var events []recorded
	for events = r.events(); len(events) < n; events = r.events() {
		r.await(1) // some are taken twice
	}
	var got, want []int
	for i, e := range events {
		var event struct {
			Data struct{ N int } `json:"event_data"`
		}
		r.check(json.Unmarshal([]byte(e.Data), &event))
		got, want = append(got, event.Data.N), append(want, i)
	}
	if !slices.Equal(got, want) {
		r.Errorf("the log has the events in the order %v", got)
	}
}

// A source that stops amid messages returns what it had not handled: the log has the
// broker's order, whether it says goodbye, its process ends, or its network does.
func TestJetStreamOrderAfterStop(t *testing.T) {
	t.Parallel()
	for name, cut := range map[string]func(*cable){
		"stopped": func(*cable) {}, "killed": (*cable).kill, "network": (*cable).mute,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			_, _, urls := jetStreams(t, 1)
			js := stream(t, urls, 1)
			const all = 300
			r.publishNumbers(js, 0, all)
			wire := newCable(t, urls[0])
			stop := r.run("nats://clinic:s3cret-of-nats@" + wire.Addr().String() + "/?stream=clinic")
			r.await(all / 3)
			cut(wire)
			stop()
			r.publishNumbers(js, all, all+100)
			r.run("nats://clinic:s3cret-of-nats@" + urls[0] + "/?stream=clinic")
			r.checkNumbers(all + 100)
		})
	}
}

// A consumer that a former version, or somebody else, made to send many messages at once has sent
// some that nobody handled: they come first.
func TestJetStreamOrderOfFormerConsumer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, _, urls := jetStreams(t, 1)
	js := stream(t, urls, 1)
	r.publishNumbers(js, 0, 100)
	former, err := js.CreateConsumer(t.Context(), "clinic", jetstream.ConsumerConfig{
		Durable: usualGroup, AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Minute,
	})
	r.check(err)
	sent, err := former.Fetch(50)
	r.check(err)
	for range sent.Messages() { // until all are sent
	}
	r.run("nats://clinic:s3cret-of-nats@" + urls[0] + "/?stream=clinic")
	r.checkNumbers(100)
}

// A message that is refused comes again before younger ones, one that is in hand for longer than
// the broker waits does not come again, and one that is in hand at the end is given back.
func TestJetStreamRedelivery(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, _, urls := jetStreams(t, 1)
	js := stream(t, urls, 1)
	r.publishNumbers(js, 0, 5)
	progress, err := js.Conn().SubscribeSync("$JS.ACK.clinic.>")
	r.check(err)
	sources, err := Parse("nats://clinic:s3cret-of-nats@" + urls[0] + "/?stream=clinic")
	r.check(err)
	subscriber, err := subscribeNATS(sources[0], environment{failed: func(error) {}})
	r.check(err)
	ctx, cancel := context.WithCancel(t.Context())
	messages, err := subscriber.Subscribe(ctx, "clinic")
	r.check(err)
	stop := func() { cancel(); r.check(subscriber.Close()) }
	defer stop()
	said := func(want string) {
		waiting, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for got := ""; got != want; {
			ack, err := progress.NextMsgWithContext(waiting)
			if err != nil {
				t.Fatalf("waiting for %s: %v", want, err)
			}
			got = string(ack.Data)
		}
	}
	var got []string
	for m := range messages {
		got = append(got, string(m.Payload[bytes.LastIndexByte(m.Payload, ':')+1:len(m.Payload)-2]))
		switch len(got) {
		case 2: // of number 1
			m.Nack()
			continue
		case 4: // of number 2
			for range natsAckWait/time.Second + 2 {
				said("+WPI")
			}
		}
		if len(got) == 6 {
			break
		}
		m.Ack()
	}
	stop()
	said("-NAK")
	if want := []string{"0", "1", "1", "2", "3", "4"}; !slices.Equal(got, want) {
		t.Errorf("the messages came in the order %v, want %v", got, want)
	}
}
