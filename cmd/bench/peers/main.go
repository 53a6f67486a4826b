// Command peers stands in for the ceiling of cmd/bench: it takes the same requests and makes the same
// calls, as the senders do that one would build on the queues of others. What it accepted is in River's
// jobs on a Postgres like the product's, or in a stream of NATS JetStream. It signs nothing, keeps no log
// of its calls and has no statistics. It is a module of its own, so that the product's has not these
// modules.
//
//	peers --queue river|jetstream|jetstream-fsync [--addr ADDRESS] [--workers N]
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/google/uuid"
)

// queue keeps calls until they are made.
type queue interface {
	// put returns once the calls are kept.
	put(ctx context.Context, calls []call) error
	close(ctx context.Context) error
}

// call is one request that is to be made.
type call struct {
	Target string `json:"target"`
	ID     string `json:"id"`
	Body   []byte `json:"body"`
}

// Kind implements river.JobArgs.
func (call) Kind() string { return "call" }

// queues open the queues in the folder. make makes a call; what fails is to be tried again.
var queues = map[string]func(ctx context.Context, dir string, workers int, make func(context.Context, call) error) (queue, error){
	"river":           openRiver,
	"jetstream":       jetStream(false),
	"jetstream-fsync": jetStream(true),
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func run(args []string) (err error) {
	flags := flag.NewFlagSet("peers", flag.ContinueOnError)
	kind := flags.String("queue", "river", "river, jetstream or jetstream-fsync")
	addr := flags.String("addr", "127.0.0.1:0", "listen address")
	workers := flags.Int("workers", 512, "calls in flight at once")
	if err := flags.Parse(args); err != nil {
		return err
	}
	open := queues[*kind]
	if open == nil {
		return fmt.Errorf("there is no queue %q", *kind)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "medilab-peers-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	client := &http.Transport{MaxIdleConnsPerHost: *workers, MaxIdleConns: 4 * *workers, DisableCompression: true}
	s := &intake{}
	if s.queue, err = open(ctx, dir, *workers, func(ctx context.Context, c call) error { return send(ctx, client, c) }); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.queue.close(context.WithoutCancel(ctx))) }()
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	uuid.EnableRandPool()
	web := &http.Server{Handler: s}
	served := make(chan error, 1)
	go func() { served <- web.Serve(l) }()
	<-ctx.Done()
	err = web.Close()
	if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	return err
}

type intake struct {
	queue   queue
	targets atomic.Pointer[[]string]
}

// ServeHTTP takes an event, or the list of targets, as the ceiling does.
func (s *intake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body := make([]byte, max(0, r.ContentLength))
	if _, err := io.ReadFull(r.Body, body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if r.URL.Path == "/targets" {
		targets := strings.Fields(string(body))
		s.targets.Store(&targets)
		return
	}
	id := uuid.Must(uuid.NewV7()).String()
	var calls []call
	for _, target := range *s.targets.Load() {
		calls = append(calls, call{target, id, body})
	}
	if err := s.queue.put(r.Context(), calls); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	if _, err := io.WriteString(w, `{"event_id":"`+id+`"}`); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
	}
}

func send(ctx context.Context, client *http.Transport, c call) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.Target, bytes.NewReader(c.Body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Webhook-Event-ID", c.ID)
	resp, err := client.RoundTrip(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err == nil && resp.StatusCode > 299 {
		err = fmt.Errorf("%s answered %s", c.Target, resp.Status)
	}
	return err
}
