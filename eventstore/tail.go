package eventstore

import "sync"

// tail keeps the newest events that this process appended, so that its readers
// need not ask the database for what it just wrote. It is one run of positions
// without a gap; an append by another process starts it anew.
type tail struct {
	mu     sync.RWMutex
	events []Event
	bytes  int
}

const (
	maxTailEvents = 20_000
	maxTailBytes  = 32 << 20
)

func newTail() *tail { return &tail{} }

func (t *tail) add(batch []Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.events); n > 0 && t.events[n-1].Position+1 != batch[0].Position {
		t.events, t.bytes = nil, 0
	}
	for i := range batch {
		t.bytes += len(batch[i].Data)
	}
	t.events = append(t.events, batch...)
	drop := 0
	for drop < len(t.events) && (len(t.events)-drop > maxTailEvents || t.bytes > maxTailBytes) {
		t.bytes -= len(t.events[drop].Data)
		t.events[drop] = Event{} // a page handed out keeps its own copy
		drop++
	}
	t.events = t.events[drop:]
}

// after copies up to limit events that follow the position, or gives nil when
// it does not hold them.
func (t *tail) after(position Position, limit int) []Event {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if len(t.events) == 0 || position+1 < t.events[0].Position {
		return nil
	}
	from := int(position + 1 - t.events[0].Position)
	if from >= len(t.events) {
		return nil
	}
	page := t.events[from:min(from+limit, len(t.events))]
	return append([]Event(nil), page...)
}
