package eventstore

import (
	"sort"
	"sync"
	"time"
)

// tail keeps the newest events that this process appended (or read, see lastRead), so that its readers
// need not ask the database for them. It is one run of positions without a gap, batch after batch;
// a batch that does not follow the last one starts a new run.
type tail struct {
	mu         sync.RWMutex
	most       int       // events
	generation int64     // of what is kept; see Log.Generation
	batches    [][]Event // none is empty
	events     int
	bytes      int
}

// lastRead holds what one of the process's readers last read from the database. They take turns, as the
// others are often about to read the same.
type lastRead struct {
	*tail
	turn chan struct{} // held by who reads
}

const (
	maxTailEvents = 8_000
	maxTailBytes  = 32 << 20
	// maxLastRead is how far apart the readers of a busy node may be.
	maxLastRead = 20_000
	// turnPatience is how long a reader waits for its turn: the connection of another may hang.
	turnPatience = time.Second
)

func newTail() *tail { return &tail{most: maxTailEvents} }

func newLastRead() *lastRead {
	return &lastRead{tail: &tail{most: maxLastRead}, turn: make(chan struct{}, 1)}
}

// reset forgets everything, and what was appended before the generation.
func (t *tail) reset(generation int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.generation, t.batches, t.events, t.bytes = generation, nil, 0, 0
}

// add takes the batch over: nobody changes it any more.
func (t *tail) add(batch []Event, generation int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if generation < t.generation {
		return
	}
	if n := len(t.batches); n > 0 && next(t.batches[n-1]) != batch[0].Position {
		t.batches, t.events, t.bytes = nil, 0, 0
	}
	t.batches = append(t.batches, batch)
	t.events += len(batch)
	t.bytes += bytesOf(batch)
	drop := 0
	for t.events > t.most || t.bytes > maxTailBytes {
		t.events -= len(t.batches[drop])
		t.bytes -= bytesOf(t.batches[drop])
		t.batches[drop] = nil // a page handed out keeps its own copy
		drop++
	}
	t.batches = t.batches[drop:]
}

// next is the position that follows the batch.
func next(batch []Event) Position { return batch[len(batch)-1].Position + 1 }

func bytesOf(batch []Event) (sum int) {
	for i := range batch {
		sum += len(batch[i].Data)
	}
	return sum
}

// after copies up to limit events that follow the position, or returns nil when
// it does not hold them.
func (t *tail) after(position Position, limit int) []Event {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if len(t.batches) == 0 || position+1 < t.batches[0][0].Position {
		return nil
	}
	held := int(next(t.batches[len(t.batches)-1]) - 1 - position)
	if held <= 0 {
		return nil
	}
	page := make([]Event, 0, min(limit, held))
	for _, batch := range t.batches[t.batchOf(position+1):] {
		if len(page) == cap(page) {
			break
		}
		if skip := position + 1 - batch[0].Position; skip > 0 {
			batch = batch[skip:]
		}
		page = append(page, batch[:min(len(batch), cap(page)-len(page))]...)
	}
	return page
}

// at copies the events at the positions, in their order, or returns nil when it does not hold
// all of them.
func (t *tail) at(positions []Position) []Event {
	t.mu.RLock()
	defer t.mu.RUnlock()
	events := make([]Event, 0, len(positions))
	for _, at := range positions {
		i := t.batchOf(at)
		if i == len(t.batches) || at < t.batches[i][0].Position {
			return nil
		}
		events = append(events, t.batches[i][at-t.batches[i][0].Position])
	}
	return events
}

// only reports whether it holds all events after one position up to another, and all are of the type.
func (t *tail) only(after, to Position, eventType string) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n := len(t.batches)
	if n == 0 || after+1 < t.batches[0][0].Position || next(t.batches[n-1]) <= to {
		return false
	}
	for at := after + 1; at <= to; {
		batch := t.batches[t.batchOf(at)]
		for i := at - batch[0].Position; i < Position(len(batch)) && at <= to; i, at = i+1, at+1 {
			if batch[i].Type != eventType {
				return false
			}
		}
	}
	return true
}

// of copies the events of the streams that were recorded since the time, up to the head, in the
// order of the log, or returns nil when it does not hold all of theirs.
func (t *tail) of(streams []string, since time.Time, head Position) []Event {
	batches := t.since(since, head)
	if batches == nil {
		return nil
	}
	begun := make(map[string]bool, len(streams))
	for _, stream := range streams {
		begun[stream] = false
	}
	events := []Event{}
	for _, batch := range batches {
		for i := range batch {
			e := &batch[i]
			was, wanted := begun[e.Stream]
			if !wanted {
				continue
			}
			if !was && e.Version > 1 {
				return nil // it began before
			}
			begun[e.Stream], events = true, append(events, *e)
		}
	}
	return events
}

// since returns the batches since the time up to the head, or nil when it does not hold all of them.
func (t *tail) since(since time.Time, head Position) [][]Event {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n := len(t.batches)
	if !t.holdsSince(since) || next(t.batches[n-1]) <= head {
		return nil
	}
	from := sort.Search(n, func(i int) bool { return !t.batches[i][0].RecordedAt.Before(since) })
	return append([][]Event{}, t.batches[from:]...)
}

// reaches reports whether it goes back to the time.
func (t *tail) reaches(since time.Time) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.holdsSince(since)
}

// holdsSince is reaches under the lock: a batch before the time is the first.
func (t *tail) holdsSince(since time.Time) bool {
	return len(t.batches) > 0 && t.batches[0][0].RecordedAt.Before(since)
}

// batchOf returns the index of the first batch that does not end before the position.
func (t *tail) batchOf(position Position) int {
	return sort.Search(len(t.batches), func(i int) bool { return next(t.batches[i]) > position })
}
