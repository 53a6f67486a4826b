package eventstore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Two kinds of notification: listeners of this process are notified of what it
// appends, and other processes of what they could not see but by polling, as few things
// need it: a change of the configuration, deliveries that are free to claim, and that somebody
// waits for the read models.

// listener is notified of batches that it is interested in; nil: all. It is notified of
// others before what it has not read leaves the tail: from there a page costs a copy,
// and from the database a query and the decoding of every event.
type listener struct {
	interested    func(batch []Event) bool
	events, bytes int // of batches that it was not notified of, since it last was
}

// wants reports whether the listener is to be notified of the batch.
func (n *listener) wants(batch []Event) bool {
	if n.interested != nil && !n.interested(batch) {
		n.events += len(batch)
		n.bytes += bytesOf(batch)
		if n.events < maxTailEvents/4 && n.bytes < maxTailBytes/4 {
			return false
		}
	}
	n.events, n.bytes = 0, 0
	return true
}

func (l *Log) notifyListeners(batch []Event) {
	l.listeners.Lock()
	defer l.listeners.Unlock()
	for c, listener := range l.listeners.all {
		if listener.wants(batch) {
			Signal(c)
		}
	}
}

// Signal puts a token into c, which holds one, unless it is there already.
func Signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Appends returns a channel that holds a token when this process has appended something
// of interest (nil: all is) or much that is not. stop ends it.
func (l *Log) Appends(interested func(batch []Event) bool) (appended <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	l.listeners.Lock()
	defer l.listeners.Unlock()
	l.listeners.all[c] = &listener{interested: interested}
	return c, func() {
		l.listeners.Lock()
		defer l.listeners.Unlock()
		delete(l.listeners.all, c)
	}
}

const (
	channel          = "medilab_log"
	announceInterval = 5 * time.Millisecond
	announceTimeout  = 5 * time.Second
	listenTimeout    = 10 * time.Second
	// maxAnnounced bounds a notification's payload, which Postgres limits to 8,000 bytes.
	maxAnnounced = 150
)

// AnnouncedAll is announced in place of more keys than one notification holds.
const AnnouncedAll = "*"

// announcedAppend is announced of an append that needs no other key, by a process that
// always announces.
const announcedAppend = "append"

// AnnouncedReading is announced by who waits for the read models, which another process may keep.
const AnnouncedReading = "reading"

// justReading reports whether nothing but AnnouncedReading was announced: there is nothing new in the log.
func justReading(keys []string) bool { return len(keys) == 1 && keys[0] == AnnouncedReading }

// AnnouncedConfiguration is announced by the log itself: the configuration has changed.
const AnnouncedConfiguration = "configuration"

// announceSQL notifies without waiting for the disk, or a standby's: announcements may be missed.
const announceSQL = `SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2)`

// announcements are sent to other processes, many at once, at most every
// announceInterval. They are hints: who misses one finds the same by polling.
type announcements struct {
	process string // so that a process ignores its own
	on      atomic.Bool

	mu    sync.Mutex
	keys  map[string]struct{}
	timer *time.Timer // nil: nothing waits
}

// sendAnnouncements sends what waits.
func (l *Log) sendAnnouncements() {
	a := &l.announcements
	a.mu.Lock()
	keys := slices.Collect(maps.Keys(a.keys))
	clear(a.keys)
	a.timer = nil
	a.mu.Unlock()
	if len(keys) == 0 {
		return
	}
	if len(keys) > maxAnnounced {
		keys = []string{AnnouncedAll}
	}
	ctx, cancel := context.WithTimeout(context.Background(), announceTimeout)
	defer cancel()
	if _, err := l.pool.Exec(ctx, announceSQL, channel, a.process+","+strings.Join(keys, ",")); err != nil {
		l.logger.Debug("other processes not notified, they will poll", "error", err)
	}
}

// SetAnnounce turns announcements on or off: only other processes need them.
func (l *Log) SetAnnounce(on bool) {
	if on {
		l.noteActivity()
	}
	if !l.announcements.on.Swap(on) && on {
		l.wakeListeners()
	}
}

func (l *Log) noteActivity() {
	now := time.Now()
	l.active.Store(&now)
}

// Pace returns how long to wait between two looks for what other processes have done:
// usual while this one appends or other nodes live, or did lately, and longer on a node
// that is alone and idle. Commands, which are no nodes, announce what they append.
func (l *Log) Pace(usual time.Duration) time.Duration {
	const lately, idle = 2 * LeaseTime, 5 * time.Second
	if time.Since(*l.active.Load()) < lately {
		return usual
	}
	return max(usual, idle)
}

func (l *Log) wakeListeners() {
	l.listeners.Lock()
	defer l.listeners.Unlock()
	for c := range l.listeners.all {
		Signal(c)
	}
}

// Announce notifies other processes of the keys, soon. See Listen.
func (l *Log) Announce(keys ...string) {
	a := &l.announcements
	if len(keys) == 0 || !a.on.Load() {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, key := range keys {
		if len(a.keys) > maxAnnounced {
			break
		}
		a.keys[key] = struct{}{}
	}
	if a.timer == nil {
		a.timer = time.AfterFunc(announceInterval, l.sendAnnouncements)
	}
}

// announceConfiguration announces a batch that changed webhooks or tokens.
func (l *Log) announceConfiguration(batch []Event) {
	for i := range batch {
		if IsConfiguration(batch[i].Stream) {
			l.Announce(AnnouncedConfiguration)
			return
		}
	}
}

// waitForNotification returns nil when none came for a while and the connection is alive:
// one that is dead and does not say so would be listened to for ever.
func waitForNotification(ctx context.Context, conn *pgx.Conn) (*pgconn.Notification, error) {
	wait, cancel := context.WithTimeout(ctx, listenTimeout)
	defer cancel()
	n, err := conn.WaitForNotification(wait)
	if err == nil || wait.Err() == nil || ctx.Err() != nil {
		return n, err
	}
	ping, cancelPing := context.WithTimeout(ctx, announceTimeout)
	defer cancelPing()
	return nil, conn.Ping(ping)
}

// Listen passes on what other processes announce, until ctx ends. handle must not block.
func (l *Log) Listen(ctx context.Context, handle func(keys []string)) {
	for ctx.Err() == nil {
		if err := l.listenOnce(ctx, handle); err != nil && ctx.Err() == nil {
			l.logger.Warn("listening for other nodes failed", "error", err)
			_ = Sleep(ctx, time.Second)
		}
	}
}

func (l *Log) listenOnce(ctx context.Context, handle func(keys []string)) error {
	pooled, err := l.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	conn := pooled.Conn() // it listens from here on: the pool closes it
	defer pooled.Release()
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is lost with it
	if _, err := conn.Exec(ctx, `LISTEN `+channel); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	l.wakeListeners()
	handle([]string{AnnouncedAll}) // what was announced before may have been missed
	for {
		n, err := waitForNotification(ctx, conn)
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		if n == nil {
			continue
		}
		if keys := strings.Split(n.Payload, ","); keys[0] != l.announcements.process {
			if !justReading(keys[1:]) {
				l.wakeListeners()
			}
			handle(keys[1:])
		}
	}
}
