package faults

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/cmd/e2e/harness"
)

// The disk of the tables is full for a while.
func TestDiskFull(t *testing.T) {
	inCampaign(t)
	t.Parallel()
	disk := smallDisk(t, 48)
	c := ownCluster(t, harness.ShortDir(t), nil)
	space := filepath.Join(disk, "space")
	if err := os.Mkdir(space, 0o700); err != nil {
		t.Fatal(err)
	}
	give(t, space, c.dir)
	c.exec(t, fmt.Sprintf(`CREATE TABLESPACE small LOCATION '%s'`, space))
	c.exec(t, `ALTER DATABASE template1 SET TABLESPACE small`)
	h := newHome(t, c.database(t))
	l := newLedger(t, h)
	n := h.node("node").start()
	l.usual(n)
	stop := l.load(200, n)
	pass(t, time.Second)
	ballast := filepath.Join(disk, "ballast")
	fill(t, ballast)
	l.refusedMore(20)
	pass(t, scaled(2*time.Second, 30*time.Second))
	if n.Status("/healthz") != http.StatusOK {
		t.Error("the process is not alive while the disk is full")
	}
	before := l.acceptedCount()
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	until(t, "events are accepted again", func() bool { return l.acceptedCount() > before+50 })
	stop()
	l.balance(n)
	l.verified()
}

// The disk of the write-ahead log is full for a while: Postgres ends, again and
// again, and the process that runs it brings it back when there is space.
func TestDiskOfTheWriteAheadLogFull(t *testing.T) {
	inCampaign(t)
	t.Parallel()
	disk := smallDisk(t, 96)
	h := newHome(t, "")
	l := newLedger(t, h)
	n := h.node("node").start()
	if code := n.Term(); code != 0 {
		t.Errorf("the process ended with %d", code)
	}
	wal, moved := filepath.Join(h.dir, "postgres", "pg_wal"), filepath.Join(disk, "wal")
	if err := os.CopyFS(moved, os.DirFS(wal)); err != nil {
		t.Fatal(err)
	}
	give(t, moved, h.dir)
	if err := os.RemoveAll(wal); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(moved, wal); err != nil {
		t.Fatal(err)
	}
	n.start()
	l.usual(n)
	url := h.embeddedURL()
	stop := l.load(100, n)
	pass(t, time.Second)
	ballast := filepath.Join(disk, "ballast")
	fill(t, ballast)
	// What Postgres has in reserve is soon used up, whenever it is up.
	full, emptied := context.WithCancel(t.Context())
	defer emptied()
	var using sync.WaitGroup
	using.Go(func() { useUpWAL(full, url) })
	var alive, dead atomic.Int64
	using.Go(func() {
		for ; full.Err() == nil; pauseFor(full, 50*time.Millisecond) {
			if n.Status("/healthz") == http.StatusOK {
				alive.Add(1)
			} else {
				dead.Add(1)
			}
		}
	})
	until(t, "the process says that it is not ready", func() bool { return n.Status("/readyz") == http.StatusServiceUnavailable })
	l.refusedMore(20)
	pass(t, scaled(3*time.Second, 40*time.Second))
	emptied()
	using.Wait()
	if dead.Load() > 0 || alive.Load() == 0 {
		t.Errorf("the process was alive %d times and dead %d times while Postgres could not be", alive.Load(), dead.Load())
	}
	before := l.acceptedCount()
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	until(t, "the process is ready again", func() bool { return n.Status("/readyz") == http.StatusOK })
	t.Logf("ready %v after there was space", time.Since(began).Round(time.Millisecond))
	until(t, "events are accepted again", func() bool { return l.acceptedCount() > before+50 })
	stop()
	l.balance(n)
	l.verified()
	if code := n.Term(); code != 0 {
		t.Errorf("the process ended with %d", code)
	}
}

// useUpWAL begins one segment of the write-ahead log after the other until ctx ends.
func useUpWAL(ctx context.Context, url string) {
	for ; ctx.Err() == nil; pauseFor(ctx, 20*time.Millisecond) {
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			continue // it is down, which is what this is about
		}
		for err == nil && ctx.Err() == nil {
			_, err = conn.Exec(ctx, `SELECT pg_switch_wal()`)
		}
		conn.Close(ctx) //nolint:errcheck // the server ends it
	}
}

func pauseFor(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// refusedMore waits until so many more answers told callers to come again.
func (l *ledger) refusedMore(count int) {
	l.t.Helper()
	refused := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.refused
	}
	before := refused()
	until(l.t, "callers are told to come again", func() bool { return refused() >= before+count })
}

// smallDisk mounts a disk of so many megabytes.
func smallDisk(t testing.TB, megabytes int) string {
	t.Helper()
	disk := harness.ShortDir(t)
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=0777", megabytes)); err != nil {
		t.Skipf("a disk that fills up needs root and the right to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return disk
}

// give makes a folder with all that is in it the property of who owns the data
// folder's database.
func give(t testing.TB, folder, dataDir string) {
	t.Helper()
	info, err := os.Stat(filepath.Join(dataDir, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	err = filepath.WalkDir(folder, func(name string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		mode := os.FileMode(0o600)
		if entry.IsDir() {
			mode = 0o700
		}
		if err := os.Chmod(name, mode); err != nil {
			return err
		}
		return os.Chown(name, int(owner.Uid), int(owner.Gid))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(folder), 0o755); err != nil {
		t.Fatal(err)
	}
}

// fill writes a file until the disk is full.
func fill(t testing.TB, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // it only takes space
	for block := make([]byte, 4<<10); ; {
		if _, err := f.Write(block); err != nil {
			return
		}
	}
}
