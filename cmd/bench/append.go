package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/medilab/webhooks/cmd/testbed"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations"
	"github.com/medilab/webhooks/migrations/postgres"
)

// onItsOwn does the work on a log on a Postgres of this run alone.
func onItsOwn(ctx context.Context, work func(log *eventstore.Log, pool *pgxpool.Pool) error) (err error) {
	dir, err := os.MkdirTemp("", "medilab-bench-log-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	server, err := postgres.Start(ctx, postgres.Options{DataDir: dir})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop(context.WithoutCancel(ctx))) }()
	pool, err := eventstore.OpenPool(ctx, server.URL(), 8)
	if err != nil {
		return err
	}
	defer pool.Close()
	if _, err := migrations.Up(ctx, pool, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	log := eventstore.Open(eventstore.Config{Pool: pool})
	defer log.Close()
	return work(log, pool)
}

// unitOf returns a unit of new streams with one event each.
func unitOf(size int, data []byte) (u eventstore.Unit) {
	for range size {
		u.Writes = append(u.Writes, eventstore.Write{
			Stream: "event-" + uuid.NewString(), Events: []eventstore.NewEvent{{Type: "bench.appended", Data: data}},
		})
	}
	return u
}

// appendRate returns how many events a second callers append, each of which waits until size
// events are durable.
func (b *bench) appendRate(ctx context.Context, log *eventstore.Log, callers, size int) (rate float64, err error) {
	var appended atomic.Int64
	before, err := log.Head(ctx)
	if err != nil {
		return 0, err
	}
	data := event(eventType)
	start := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for range callers {
		group.Go(func() error {
			for time.Since(start) < b.duration {
				if _, err := log.Append(ctx, unitOf(size, data)); err != nil {
					return err
				}
				appended.Add(int64(size))
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	elapsed := time.Since(start)
	head, err := log.Head(context.WithoutCancel(ctx))
	if err == nil && int64(head-before) != appended.Load() {
		err = errors.New("the log has not grown by the events appended")
	}
	return float64(appended.Load()) / elapsed.Seconds(), err
}

// appendAlone measures the log by itself: 512 callers that append one event each.
func (b *bench) appendAlone(ctx context.Context) (m measures, err error) {
	err = onItsOwn(ctx, func(log *eventstore.Log, _ *pgxpool.Pool) error {
		rate, err := b.appendRate(ctx, log, 512, 1)
		m = measures{"events/s": rate}
		return err
	})
	return m, err
}

// oneLog measures what one Postgres carries: how long a batch holds the lock of the log's
// head, and entries a second in full batches with some of the machine's cores.
func (b *bench) oneLog(ctx context.Context) (measures, error) {
	m := measures{}
	err := onItsOwn(ctx, func(log *eventstore.Log, pool *pgxpool.Pool) error {
		for _, size := range []int{1, 10, 100, 1000} {
			var held []float64
			for start := time.Now(); time.Since(start) < b.duration; {
				appended, err := log.Append(ctx, unitOf(size, event(eventType)))
				if err != nil {
					return err
				}
				// The time is read under the lock, of the same clock.
				held = append(held, float64(time.Since(appended.RecordedAt))/float64(time.Millisecond))
			}
			m[fmt.Sprintf("lock ms at %d", size)] = median(held)
		}
		for cores := 1; cores <= runtime.NumCPU(); cores *= 2 {
			if err := pin(ctx, pool, cores); err != nil {
				return err
			}
			rate, err := b.appendRate(ctx, log, 16, 250)
			if err != nil {
				return err
			}
			m[fmt.Sprintf("entries/s on %d cores", cores)] = rate
		}
		return nil
	})
	return m, err
}

// pin keeps the server that the pool connects to on the first cores.
func pin(ctx context.Context, pool *pgxpool.Pool, cores int) error {
	var server int
	if err := pool.QueryRow(ctx, `SELECT split_part(pg_read_file('postmaster.pid'), E'\n', 1)::int`).Scan(&server); err != nil {
		return err
	}
	for _, pid := range testbed.Tree(server) {
		said, err := exec.CommandContext(ctx, "taskset", "-cp", fmt.Sprintf("0-%d", cores-1), strconv.Itoa(pid)).CombinedOutput()
		if err != nil {
			return fmt.Errorf("keep Postgres on %d cores: %w: %s", cores, err, said)
		}
	}
	return nil
}
