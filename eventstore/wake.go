package eventstore

import (
	"context"
	"fmt"
	"time"
)

// listener is somebody whom batches of interest wake; nil: all are. Others wake it
// before they push what it has not read out of the tail: from there a page costs a
// copy, and from the database a query and the decoding of every event.
type listener struct {
	interested    func(batch []Event) bool
	events, bytes int // of batches that did not wake it, since one did
}

// wakes tells whether the batch is to wake the listener.
func (n *listener) wakes(batch []Event) bool {
	if batch != nil && n.interested != nil && !n.interested(batch) {
		n.events += len(batch)
		n.bytes += bytesOf(batch)
		if n.events < maxTailEvents/4 && n.bytes < maxTailBytes/4 {
			return false
		}
	}
	n.events, n.bytes = 0, 0
	return true
}

func (l *Log) listen(wake chan struct{}, interested func(batch []Event) bool) {
	l.wakes.Lock()
	defer l.wakes.Unlock()
	l.wakes.listeners[wake] = &listener{interested: interested}
}

func (l *Log) unlisten(wake chan struct{}) {
	l.wakes.Lock()
	defer l.wakes.Unlock()
	delete(l.wakes.listeners, wake)
}

// wakeListeners is told of a batch, or of nil: somebody else appended something.
func (l *Log) wakeListeners(batch []Event) {
	l.wakes.Lock()
	defer l.wakes.Unlock()
	for wake, listener := range l.wakes.listeners {
		if !listener.wakes(batch) {
			continue
		}
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// Wakes gives a channel that holds a token when a node that announces has
// appended, or this one something that is of interest (nil: all is) or much that is
// not. stop ends it.
func (l *Log) Wakes(interested func(batch []Event) bool) (wake <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	l.listen(c, interested)
	return c, func() { l.unlisten(c) }
}

// Listen wakes this process's readers when another node appends, until ctx
// ends. It is only a hint: polling finds everything without it.
func (l *Log) Listen(ctx context.Context) {
	for ctx.Err() == nil {
		if err := l.listenOnce(ctx); err != nil && ctx.Err() == nil {
			l.logger.Warn("listening for other nodes failed", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
}

func (l *Log) listenOnce(ctx context.Context) error {
	conn, err := l.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer conn.Release()
	raw := conn.Conn()
	if _, err := raw.Exec(ctx, `LISTEN medilab_log`); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer raw.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it still listens: not for the pool
	for {
		if _, err := raw.WaitForNotification(ctx); err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		l.wakeListeners(nil)
	}
}
