package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const subject = "calls"

// stream keeps calls in a file of a NATS server in this process.
type stream struct {
	server   *server.Server
	conn     *nats.Conn
	js       jetstream.JetStream
	consumed jetstream.ConsumeContext
}

// jetStream returns what opens a stream that waits for the disk with each message, or leaves that to
// the operating system.
func jetStream(fsync bool) func(ctx context.Context, dir string, workers int, send func(context.Context, call) error) (queue, error) {
	return func(ctx context.Context, dir string, workers int, send func(context.Context, call) error) (_ queue, err error) {
		s := &stream{}
		defer func() {
			if err != nil {
				err = errors.Join(err, s.close(ctx))
			}
		}()
		if s.server, err = server.NewServer(&server.Options{JetStream: true, StoreDir: dir, DontListen: true, SyncAlways: fsync, NoSigs: true}); err != nil {
			return nil, err
		}
		s.server.Start()
		if !s.server.ReadyForConnections(time.Minute) {
			return nil, errors.New("the NATS server does not start")
		}
		if s.conn, err = nats.Connect("", nats.InProcessServer(s.server)); err != nil {
			return nil, err
		}
		if s.js, err = jetstream.New(s.conn); err != nil {
			return nil, err
		}
		made, err := s.js.CreateStream(ctx, jetstream.StreamConfig{Name: subject, Subjects: []string{subject}, Retention: jetstream.WorkQueuePolicy, Storage: jetstream.FileStorage})
		if err != nil {
			return nil, err
		}
		consumer, err := made.CreateConsumer(ctx, jetstream.ConsumerConfig{AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 2 * workers})
		if err != nil {
			return nil, err
		}
		free := make(chan struct{}, workers)
		s.consumed, err = consumer.Consume(func(m jetstream.Msg) {
			free <- struct{}{}
			go func() {
				defer func() { <-free }()
				if err := handle(ctx, m, send); err != nil && ctx.Err() == nil {
					fmt.Fprintln(os.Stderr, "peers:", err)
				}
			}()
		}, jetstream.PullMaxMessages(2*workers))
		return s, err
	}
}

func handle(ctx context.Context, m jetstream.Msg, send func(context.Context, call) error) error {
	var c call
	err := json.Unmarshal(m.Data(), &c)
	if err == nil {
		err = send(ctx, c)
	}
	if err != nil {
		return errors.Join(err, m.Nak())
	}
	return m.Ack()
}

// put returns when the server has acknowledged all.
func (s *stream) put(ctx context.Context, calls []call) error {
	var acks []jetstream.PubAckFuture
	for _, c := range calls {
		data, err := json.Marshal(c)
		if err != nil {
			return err
		}
		if len(calls) == 1 {
			_, err = s.js.Publish(ctx, subject, data)
			return err
		}
		ack, err := s.js.PublishAsync(subject, data)
		if err != nil {
			return err
		}
		acks = append(acks, ack)
	}
	for _, ack := range acks {
		select {
		case <-ack.Ok():
		case err := <-ack.Err():
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (s *stream) close(context.Context) error {
	if s.consumed != nil {
		s.consumed.Stop()
	}
	if s.conn != nil {
		s.conn.Close()
	}
	if s.server != nil {
		s.server.Shutdown()
		s.server.WaitForShutdown()
	}
	return nil
}
