package eventstore_test

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations/testdb"
)

// guarded opens a log whose pool is guarded, as a server does. The losses that it notices
// come through the channel.
func guarded(t *testing.T, url string) (*eventstore.Log, *pgxpool.Pool, chan eventstore.Loss) {
	t.Helper()
	return guardedBy(t, url, eventstore.NewGuard(slog.New(slog.DiscardHandler)))
}

func guardedBy(t *testing.T, url string, guard *eventstore.Guard) (*eventstore.Log, *pgxpool.Pool, chan eventstore.Loss) {
	t.Helper()
	pool, err := guard.OpenPool(t.Context(), url, 4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	losses := make(chan eventstore.Loss, 10)
	log := openLog(t, eventstore.Config{Pool: pool, Guard: guard, Lost: func(loss eventstore.Loss) { losses <- loss }})
	return log, pool, losses
}

// A log whose database comes back as an older copy goes on by what it has: whoever asks or
// appends, what is gone is served from nowhere, and it is said once what that is.
func TestOlderCopyOfTheDatabase(t *testing.T) {
	t.Parallel()
	contacts := map[string]func(t *testing.T, log *eventstore.Log){
		"append": func(t *testing.T, log *eventstore.Log) {
			for { // the first meet the connections that broke
				_, err := log.Append(t.Context(), unit("c", 0, `{"new":1}`))
				if err == nil {
					return
				}
				if !errors.Is(err, eventstore.ErrUnavailable) {
					t.Fatal(err)
				}
			}
		},
		"configuration": func(t *testing.T, log *eventstore.Log) {
			for {
				read, err := log.ReadConfiguration(t.Context(), 4, 1)
				if err == nil {
					if read.Generation == 1 || read.Head != 2 {
						t.Errorf("read %+v", read)
					}
					return
				}
			}
		},
	}
	for name, contact := range contacts {
		t.Run(name, func(t *testing.T) {
			url := testdb.New(t)
			log, pool, losses := guarded(t, url)
			mustAppend(t, log, unit("a", 0, `{"n":1}`, `{"n":2}`))
			restore := testdb.Snapshot(t, url)
			pool.Reset()
			before := log.Generation()
			lost := mustAppend(t, log, unit("b", 0, `{"lost":1}`, `{"lost":2}`))
			if lost.First != 3 || log.Generation() != before {
				t.Fatalf("appended at %d, in generation %d", lost.First, log.Generation())
			}
			restore()
			contact(t, log)
			loss := <-losses
			if loss.First != 3 || loss.Known.Position != 4 || len(losses) > 0 || log.LostPositions() != 2 {
				t.Errorf("lost %v, then %d more; %d positions in all", loss, len(losses), log.LostPositions())
			}
			stale := unit("a", 2, `{"n":3}`)
			stale.Generation = before
			if _, err := log.Append(t.Context(), stale); !errors.Is(err, eventstore.ErrTailLost) {
				t.Errorf("what was decided before was answered with %v", err)
			}
			events, err := log.Read(t.Context(), 2, 10)
			if err != nil || len(events) > 0 && string(events[0].Data) != `{"new":1}` || len(events) > 1 {
				t.Errorf("after position 2 it reads %v, %v", events, err)
			}
			mustAppend(t, log, unit("a", 2, `{"n":3}`))
			err = log.Verify(t.Context(), func(d eventstore.Damage) { t.Errorf("damage: %+v", d) }, func(_, _ eventstore.Position) {})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// When others have appended to the older copy, so that it is longer again, its seals tell.
func TestOlderCopyThatIsLonger(t *testing.T) {
	t.Parallel()
	url := testdb.New(t)
	log, pool, losses := guarded(t, url)
	mustAppend(t, log, unit("a", 0, `{"n":1}`))
	restore := testdb.Snapshot(t, url)
	pool.Reset()
	mustAppend(t, log, unit("b", 0, `{"lost":1}`))
	restore()
	other := openLog(t, eventstore.Config{Pool: openPool(t, url)})
	mustAppend(t, other, unit("c", 0, `{"n":1}`))
	mustAppend(t, other, unit("d", 0, `{"n":1}`))
	pool.Reset()
	head, err := log.Head(t.Context())
	if err != nil || head != 3 {
		t.Fatal(head, err)
	}
	if loss := <-losses; loss.First != 0 || loss.Known.Position != 2 {
		t.Errorf("lost %v", loss)
	}
	if events, err := log.Read(t.Context(), 1, 10); err != nil || len(events) != 2 || events[0].Stream != "c" {
		t.Errorf("reads %v, %v", events, err)
	}
}

// What others appended and this process has read is known too: it is not served from memory when the
// log has lost it, though others have appended to the older copy since.
func TestOlderCopyOfWhatWasRead(t *testing.T) {
	t.Parallel()
	url := testdb.New(t)
	log, pool, losses := guarded(t, url)
	mustAppend(t, log, unit("a", 0, `{"n":1}`))
	restore := testdb.Snapshot(t, url)
	pool.Reset()
	if _, err := log.Head(t.Context()); err != nil { // what follows is on this connection
		t.Fatal(err)
	}
	mustAppend(t, openLog(t, eventstore.Config{Pool: openPool(t, url)}), unit("b", 0, `{"lost":1}`))
	if events, err := log.Read(t.Context(), 1, 10); err != nil || len(events) != 1 || events[0].Stream != "b" {
		t.Fatalf("reads %v, %v", events, err)
	}
	restore()
	mustAppend(t, openLog(t, eventstore.Config{Pool: openPool(t, url)}), unit("c", 0, `{"n":1}`))
	pool.Reset()
	if head, err := log.Head(t.Context()); err != nil || head != 2 {
		t.Fatal(head, err)
	}
	if events, err := log.Read(t.Context(), 1, 10); err != nil || len(events) != 1 || events[0].Stream != "c" {
		t.Errorf("reads %v, %v", events, err)
	}
	if len(losses) != 1 {
		t.Errorf("%d losses are told", len(losses))
	}
}

// A server that freezes is left for the one that took over, also by those who wait for its
// answers; after it goes on again, nobody comes back to it.
func TestFrozenPrimary(t *testing.T) {
	t.Parallel()
	pair := testdb.NewPair(t)
	guard := eventstore.NewGuard(slog.New(slog.DiscardHandler))
	log, pool, losses := guardedBy(t, pair.URL, guard)
	mustAppend(t, log, unit("a", 0, `{"n":1}`))
	address := func() (address string) {
		for { // until connections that broke are gone
			if err := pool.QueryRow(t.Context(), `SELECT current_setting('medilab.data_dir')`).Scan(&address); err == nil {
				return address
			}
			if t.Context().Err() != nil {
				t.Fatal("the database did not come back")
			}
		}
	}
	old := address()
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watching.Go(func() { guard.Watch(ctx, pool) })
	pair.CatchUp()
	pair.Freeze()
	if _, err := log.Append(t.Context(), unit("b", 0, `{"n":1}`)); !errors.Is(err, eventstore.ErrUnavailable) {
		t.Fatalf("an append to a frozen server was answered with %v", err)
	}
	pair.Promote()
	now := address()
	if now == old {
		t.Fatal("it is on the frozen server still")
	}
	mustAppend(t, log, unit("c", 0, `{"n":1}`))
	pair.Thaw()
	pool.Reset()
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			if got := address(); got != now {
				t.Errorf("a request went to the server that was left behind")
			}
		})
	}
	group.Wait()
	mustAppend(t, log, unit("d", 0, `{"n":1}`))
	_, pool, _ = guarded(t, pair.URL) // a process that begins now
	if got := address(); got != now {
		t.Error("a new process went to the server that was left behind")
	}
	if len(losses) > 0 {
		t.Errorf("nothing was lost, and it says: %v", <-losses)
	}
}

// A proxy that leads to a standby for a moment does not make a process stay there.
func TestStandbyIsNoPrimary(t *testing.T) {
	t.Parallel()
	pair := testdb.NewPair(t)
	proxy := filepath.Join(t.TempDir(), "proxy")
	lead := func(to string) (through string) {
		u, err := url.Parse(to)
		if err != nil {
			t.Fatal(err)
		}
		_ = os.Remove(proxy) // the first time it is not there
		q := u.Query()
		if err := os.Symlink(q.Get("host"), proxy); err != nil {
			t.Fatal(err)
		}
		q.Set("host", proxy)
		u.RawQuery = q.Encode()
		return u.String()
	}
	log, pool, _ := guarded(t, lead(pair.Primary))
	mustAppend(t, log, unit("a", 0, `{"n":1}`))
	lead(pair.Standby)
	pool.Reset()
	if err := pool.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "standby") {
		t.Errorf("a standby was accepted: %v", err)
	}
	lead(pair.Primary)
	mustAppend(t, log, unit("b", 0, `{"n":1}`))
	log, _, _ = guarded(t, lead(pair.Standby)) // a process that only reads may begin there
	if _, err := log.Load(t.Context(), "a"); err != nil {
		t.Error(err)
	}
}
