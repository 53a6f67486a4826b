package envelope

import (
	"sync"
	"sync/atomic"
)

// Fates is what the log says became of keys. The zero value says nothing. Safe for
// concurrent use.
type Fates struct {
	count atomic.Int64 // of what was learnt

	mu      sync.RWMutex
	erased  map[Owner]erasure
	expired uint32 // keys until then are destroyed
}

type erasure struct{ position, count int64 }

// Count returns how often the fates have changed.
func (f *Fates) Count() int64 { return f.count.Load() }

// Erase takes in that all keys of the owner are destroyed, by an event at the position. It
// reports whether that is new.
func (f *Fates) Erase(owner Owner, position int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.erased[owner].position == position {
		return false
	}
	if f.erased == nil {
		f.erased = map[Owner]erasure{}
	}
	f.erased[owner] = erasure{position, f.count.Add(1)}
	return true
}

// Expire takes in that all keys of periods that ended by then are destroyed.
func (f *Fates) Expire(until uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if until > f.expired {
		f.expired = until
		f.count.Add(1)
	}
}

// Fate returns what the log says of a key that is missing: the position of its erasure, 0 if
// it was not erased, and whether it has expired.
func (f *Fates) Fate(id KeyID) (erased int64, expired bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.erased[id.Owner].position, id.Until <= f.expired
}

// ExpiredUntil returns until when keys have expired.
func (f *Fates) ExpiredUntil() uint32 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.expired
}

func (f *Fates) destroyed(k *Key) bool {
	if f == nil || f.count.Load() == k.born {
		return false
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.erased[k.Owner].count > k.born || k.Until <= f.expired
}
