// Package cpulimit keeps expensive computations from taking all processors: they share
// half of them, and those who ask for them take turns. What is cheap never waits.
package cpulimit

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"time"
)

const (
	// free is the work of a task that is cheap: about a millisecond.
	free = 128 << 10
	// slice is how long a task computes while others wait.
	slice = 2 * time.Millisecond
)

// Expensive is the work of what may take a millisecond or more.
const Expensive = free + 1

// Limiter admits so many expensive tasks at once. Safe for concurrent use.
type Limiter struct {
	mu      sync.Mutex
	idle    int                        // slots that nobody has; then nobody waits
	waiting map[string][]chan struct{} // by caller, first come first served
	callers []string                   // who waits; the first one is next
}

// New returns a limiter of half of the processors, at least one.
func New() *Limiter {
	return &Limiter{idle: max(1, runtime.GOMAXPROCS(0)/2), waiting: map[string][]chan struct{}{}}
}

// Waiting returns how many tasks wait for their turn.
func (l *Limiter) Waiting() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, queue := range l.waiting {
		n += len(queue)
	}
	return n
}

type callerKey struct{}

// WithCaller returns a context whose tasks are those of the caller. However many tasks
// callers have, each caller has the same share.
func WithCaller(ctx context.Context, caller string) context.Context {
	return context.WithValue(ctx, callerKey{}, caller)
}

// HasCaller reports whether the context has one: what it is for is no work of the system
// itself.
func HasCaller(ctx context.Context) bool { return ctx.Value(callerKey{}) != nil }

// Task is a computation of any size, of one goroutine. It must not block between Spend
// and End.
type Task struct {
	limiter *Limiter
	spent   int
	since   time.Time // when it got its slot; zero: it has none
}

// Task begins a computation, which its End ends.
func (l *Limiter) Task() Task { return Task{limiter: l} }

// Spend is called before the task does some more work: about as much as checking so many
// bytes of JSON. Once the task is expensive, it waits for its turn, or passes it on when
// it had it long enough. The error is the context's.
func (t *Task) Spend(ctx context.Context, work int) error {
	t.spent += work
	switch {
	case t.since.IsZero() && t.spent <= free:
		return nil
	case !t.since.IsZero() && time.Since(t.since) < slice:
		return nil
	}
	caller, _ := ctx.Value(callerKey{}).(string)
	turn := t.limiter.enqueue(caller, !t.since.IsZero())
	t.since = time.Time{}
	select {
	case <-turn:
		t.since = time.Now()
		return nil
	case <-ctx.Done():
		t.limiter.leave(caller, turn)
		return context.Cause(ctx)
	}
}

// End returns the slot. The task may be used again: it is still as expensive.
func (t *Task) End() {
	if !t.since.IsZero() {
		t.limiter.mu.Lock()
		t.limiter.release()
		t.limiter.mu.Unlock()
		t.since = time.Time{}
	}
}

// enqueue waits in line for a slot, behind all who wait if the caller has one to return.
func (l *Limiter) enqueue(caller string, has bool) chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	turn := make(chan struct{})
	if len(l.waiting[caller]) == 0 {
		l.callers = append(l.callers, caller)
	}
	l.waiting[caller] = append(l.waiting[caller], turn)
	if has || l.idle > 0 {
		if !has {
			l.idle--
		}
		l.release()
	}
	return turn
}

// release passes a slot to the first waiting task of the next caller. l.mu is held.
func (l *Limiter) release() {
	if len(l.callers) == 0 {
		l.idle++
		return
	}
	caller := l.callers[0]
	queue := l.waiting[caller]
	close(queue[0])
	l.callers = l.callers[1:]
	if len(queue) == 1 {
		delete(l.waiting, caller)
		return
	}
	l.waiting[caller], l.callers = queue[1:], append(l.callers, caller)
}

// leave takes back what enqueue returned.
func (l *Limiter) leave(caller string, turn chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	queue := l.waiting[caller]
	at := slices.Index(queue, turn)
	switch {
	case at < 0: // its turn has come meanwhile
		l.release()
	case len(queue) == 1:
		delete(l.waiting, caller)
		l.callers = slices.DeleteFunc(l.callers, func(c string) bool { return c == caller })
	default:
		l.waiting[caller] = slices.Delete(queue, at, at+1)
	}
}
