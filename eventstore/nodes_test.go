package eventstore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations/testdb"
)

// What a process reads of the log of others, and announces to them.

// What one reader of a process has read of what others appended, another one does not ask the
// database for.
func TestReadersShareWhatOneRead(t *testing.T) {
	t.Parallel()
	url := testdb.New(t)
	other := openLog(t, eventstore.Config{Pool: openPool(t, url)})
	mustAppend(t, other, unit("a", 0, `1`, `2`, `3`, `4`, `5`, `6`))
	log, pool, _ := guarded(t, url)
	if first, err := log.Read(t.Context(), 0, 4); err != nil || len(first) != 4 {
		t.Fatalf("%d events, %v", len(first), err)
	}
	mustAppend(t, log, unit("b", 0, `7`)) // what the process appended itself is kept apart
	if rest, err := log.Closed().Read(t.Context(), 4, 2); err != nil || len(rest) != 2 {
		t.Fatalf("%d events, %v", len(rest), err)
	}
	pool.Close()
	again, err := log.Lenient().Read(t.Context(), 1, 9)
	if err != nil || len(again) != 5 || again[0].Position != 2 || string(again[4].Data) != "6" {
		t.Errorf("%+v, %v", again, err)
	}
}

// An announcement waits for no disk, but what its connection appends later does.
func TestAnnouncementsLeaveAppendsDurable(t *testing.T) {
	t.Parallel()
	url := testdb.New(t)
	pool, err := eventstore.OpenPool(t.Context(), url, 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	log, other := openLog(t, eventstore.Config{Pool: pool, Announce: true}), openLog(t, eventstore.Config{Pool: openPool(t, url)})
	heard := make(chan []string, 10)
	ctx, cancel := context.WithCancel(t.Context())
	var listening sync.WaitGroup
	listening.Go(func() { other.Listen(ctx, func(keys []string) { heard <- keys }) })
	t.Cleanup(func() { cancel(); listening.Wait() })
	if keys := <-heard; !slices.Equal(keys, []string{eventstore.AnnouncedAll}) { // it listens
		t.Fatalf("heard %q", keys)
	}
	log.Announce("key")
	if keys := <-heard; !slices.Equal(keys, []string{"key"}) {
		t.Fatalf("heard %q", keys)
	}
	for range 2 {
		conn, err := pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Release()
		var commits string
		if err := conn.QueryRow(t.Context(), `SHOW synchronous_commit`).Scan(&commits); err != nil || commits != "on" {
			t.Errorf("commits wait: %s, %v", commits, err)
		}
	}
}

// A reader whose connection hangs does not keep the others of its process waiting.
func TestReadersDoNotWaitForOneThatHangs(t *testing.T) {
	t.Parallel()
	config := openPool(t, testdb.New(t)).Config()
	var hang atomic.Bool
	hangs, release := make(chan struct{}), make(chan struct{})
	config.PrepareConn = func(context.Context, *pgx.Conn) (bool, error) {
		if hang.Swap(false) {
			close(hangs)
			<-release
		}
		return true, nil
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	mustAppend(t, openLog(t, eventstore.Config{Pool: pool}), unit("a", 0, `1`, `2`))
	log := openLog(t, eventstore.Config{Pool: pool})
	read := func(ctx context.Context) error {
		events, err := log.Read(ctx, 0, 2)
		if err == nil && len(events) != 2 {
			err = fmt.Errorf("%d events", len(events))
		}
		return err
	}
	hang.Store(true)
	first := make(chan error, 1)
	go func() { first <- read(t.Context()) }()
	<-hangs
	gone, leave := context.WithCancel(t.Context())
	leave()
	if err := read(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("who left was answered with %v", err)
	}
	if err := read(t.Context()); err != nil {
		t.Error(err)
	}
	close(release)
	if err := <-first; err != nil {
		t.Error(err)
	}
}
