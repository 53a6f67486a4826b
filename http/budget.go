package http

import (
	"slices"
	"sync/atomic"

	"github.com/medilab/webhooks/domain"
)

// budget bounds the memory of all large bodies that are being read or answered
// at once: ten megabytes a request is no bound when many come.
type budget struct {
	most int64
	used atomic.Int64
}

// largeBodies is the budget of this process: what does not fit is told to come
// again.
var largeBodies = &budget{most: 256 << 20}

func (b *budget) take(bytes int64) bool {
	if b.used.Add(bytes) <= b.most {
		return true
	}
	b.used.Add(-bytes)
	return false
}

func (b *budget) giveBack(bytes int64) { b.used.Add(-bytes) }

// grow makes room for more of the body. Small bodies are free: a connection costs
// as much.
func (b *body) grow() error {
	const least = 512
	before := cap(b.data)
	size := before + max(before, least)
	if size > maxKeptBody {
		if !largeBodies.take(int64(size) - b.taken) {
			return domain.Throttled("too many large requests at once; try again")
		}
		b.taken = int64(size)
	}
	b.data = slices.Grow(b.data, size-len(b.data))
	return nil
}
