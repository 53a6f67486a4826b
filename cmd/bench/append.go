package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations"
	"github.com/medilab/webhooks/migrations/postgres"
)

// appendAlone measures the log by itself: 512 callers that append one event
// each and wait until it is durable, on a Postgres of this run alone.
func (b *bench) appendAlone(ctx context.Context) (m measures, err error) {
	dir, err := os.MkdirTemp("", "medilab-bench-log-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	server, err := postgres.Start(ctx, postgres.Options{DataDir: dir})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.Stop(context.WithoutCancel(ctx))) }()
	pool, err := eventstore.OpenPool(ctx, server.URL(), 8)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	if _, err := migrations.Up(ctx, pool, slog.New(slog.DiscardHandler)); err != nil {
		return nil, err
	}
	log := eventstore.Open(eventstore.Config{Pool: pool})
	defer log.Close()

	var (
		wg       sync.WaitGroup
		appended atomic.Int64
		mu       sync.Mutex
	)
	data := event(eventType)
	start := time.Now()
	end := start.Add(b.duration)
	for range 512 {
		wg.Go(func() {
			for time.Now().Before(end) {
				_, e := log.Append(ctx, eventstore.Unit{Writes: []eventstore.Write{{
					Stream: "event-" + newID(), Events: []eventstore.NewEvent{{Type: "bench.appended", Data: data}},
				}}})
				if e != nil {
					mu.Lock()
					err = e
					mu.Unlock()
					return
				}
				appended.Add(1)
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(start)
	if err != nil {
		return nil, err
	}
	head, err := log.Head(ctx)
	if err == nil && int64(head) != appended.Load() {
		err = errors.New("the log's head is not the number of events appended")
	}
	return measures{"events/s": float64(appended.Load()) / elapsed.Seconds()}, err
}
