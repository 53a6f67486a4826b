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
	"net/url"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/google/uuid"
)

// runForwarder is the ceiling, in a process of its own: it takes the same
// request, answers the same way, and a pool of workers as large as the
// product's sends it on. It keeps nothing, so nothing that keeps something can
// be faster on this machine with these libraries.
//
// Its targets are set by a POST to /targets, one URL a line.
func runForwarder(args []string) error {
	flags := flag.NewFlagSet("forwarder", flag.ContinueOnError)
	addr := flags.String("addr", "127.0.0.1:0", "listen address")
	workers := flags.Int("workers", 512, "calls in flight at once")
	if err := flags.Parse(args); err != nil {
		return err
	}
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	uuid.EnableRandPool() // the ceiling is not to wait for the kernel
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	f := &forwarder{
		queue:  make(chan forwarded, 1<<16),
		client: &http.Transport{MaxIdleConnsPerHost: *workers, MaxIdleConns: 4 * *workers, DisableCompression: true},
	}
	var wg sync.WaitGroup
	for range *workers {
		wg.Go(func() { f.work(ctx) })
	}
	server := &http.Server{Handler: f}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	<-ctx.Done()
	closeErr := server.Close()
	wg.Wait()
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return closeErr
}

type forwarded struct {
	target *url.URL
	id     string
	body   []byte
}

type forwarder struct {
	queue  chan forwarded
	client *http.Transport

	mu      sync.RWMutex
	targets []*url.URL
}

// ServeHTTP takes an event, or the list of targets.
func (f *forwarder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body := make([]byte, max(0, r.ContentLength))
	if _, err := io.ReadFull(r.Body, body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if r.URL.Path == "/targets" {
		f.setTargets(w, strings.Fields(string(body)))
		return
	}
	f.mu.RLock()
	targets := f.targets
	f.mu.RUnlock()
	id := uuid.NewString()
	for _, target := range targets {
		f.queue <- forwarded{target: target, id: id, body: body}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	if _, err := io.WriteString(w, `{"event_id":"`+id+`"}`); err != nil {
		fmt.Fprintln(os.Stderr, "forwarder:", err)
	}
}

func (f *forwarder) setTargets(w http.ResponseWriter, lines []string) {
	targets := make([]*url.URL, len(lines))
	for i, line := range lines {
		u, err := url.Parse(line)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		targets[i] = u
	}
	f.mu.Lock()
	f.targets = targets
	f.mu.Unlock()
}

func (f *forwarder) work(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-f.queue:
			if err := f.send(ctx, e); err != nil && ctx.Err() == nil {
				fmt.Fprintln(os.Stderr, "forwarder:", err)
			}
		}
	}
}

func (f *forwarder) send(ctx context.Context, e forwarded) error {
	req := (&http.Request{
		Method: http.MethodPost, URL: e.target, Host: e.target.Host, ContentLength: int64(len(e.body)),
		Header: http.Header{"Content-Type": {"application/json"}, eventIDHeader: {e.id}},
		Body:   io.NopCloser(bytes.NewReader(e.body)),
	}).WithContext(ctx)
	resp, err := f.client.RoundTrip(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return errors.Join(err, resp.Body.Close())
}
