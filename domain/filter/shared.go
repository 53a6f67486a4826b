package filter

import (
	"crypto/sha256"
	"maps"
	"sync"
	"weak"
)

// shared holds the filters that are in use anywhere: versions of a webhook, snapshots of
// all webhooks and questions about them share a filter, and only the first compiles it.
var shared = sharedFilters{filters: map[sourceHash]weak.Pointer[Filter]{}}

type sharedFilters struct {
	mu      sync.Mutex
	filters map[sourceHash]weak.Pointer[Filter]
	sweepAt int // how many there are when those that nobody has are removed
}

type sourceHash [sha256.Size]byte

// get returns the filter with the source, which it compiles if nobody has it.
func (c *sharedFilters) get(source []byte) (*Filter, []Problem) {
	hash := sourceHash(sha256.Sum256(source))
	if f := c.find(hash); f != nil {
		return f, nil
	}
	f, problems := compile(source)
	if problems != nil {
		return nil, problems
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.filters[hash] = weak.Make(f); len(c.filters) > c.sweepAt {
		const few = 1000
		maps.DeleteFunc(c.filters, func(_ sourceHash, p weak.Pointer[Filter]) bool { return p.Value() == nil })
		c.sweepAt = 2*len(c.filters) + few
	}
	return f, nil
}

func (c *sharedFilters) find(hash sourceHash) *Filter {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.filters[hash].Value()
}
