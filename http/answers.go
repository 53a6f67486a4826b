package http

import (
	"context"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

// Bounds of the memory of answers. Before an answer is made it takes what it may need,
// and then keeps what it does need until its client has read it. Small answers have a
// budget of their own, so that they do not wait for large ones.
const (
	largeAnswers = 192 << 20
	smallAnswers = 64 << 20
	// smallReading is what an answer may read of the log before it counts as a large one: it is
	// decoded, decrypted and encoded again.
	smallReading = smallAnswer / 4
	// largeAnswer is two copies of a page of the log (16 MB and its first event).
	largeAnswer = 48 << 20
	smallAnswer = 1 << 20
	// answerPatience is how long a client may take to read writeChunk bytes, and
	// answerTime to read a whole answer.
	answerPatience = 30 * time.Second
	answerTime     = 5 * time.Minute
	writeChunk     = 64 << 10
)

// answerBudget shares the memory of all answers of a kind, over all connections and
// their streams, fairly: each caller waits in a line of its own, and these in another.
type answerBudget struct {
	all     *semaphore.Weighted
	share   int64 // of one caller at most, so that it cannot keep others waiting
	callers inUse[string, *semaphore.Weighted]
}

func newAnswerBudget(bytes int64) *answerBudget {
	return &answerBudget{all: semaphore.NewWeighted(bytes), share: bytes / 2}
}

// heldAnswer is what one answer holds of the budget. Nil holds nothing.
type heldAnswer struct {
	budget *answerBudget
	own    *semaphore.Weighted
	leave  func()
	bytes  int64
}

// acquire waits until the caller may hold the bytes, or refuses after answerTimeout.
func (b *answerBudget) acquire(ctx context.Context, caller string, bytes int64) (*heldAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	own, leave := b.callers.enter(caller, func() *semaphore.Weighted { return semaphore.NewWeighted(b.share) })
	err := own.Acquire(ctx, bytes)
	if err == nil {
		if err = b.all.Acquire(ctx, bytes); err != nil {
			own.Release(bytes)
		}
	}
	if err != nil {
		leave()
		return nil, domain.Throttled("too many answers are being made or read; read them, and try again")
	}
	return &heldAnswer{b, own, leave, bytes}, nil
}

// shrink releases all but the bytes.
func (h *heldAnswer) shrink(bytes int64) {
	if h == nil || bytes >= h.bytes {
		return
	}
	h.own.Release(h.bytes - bytes)
	h.budget.all.Release(h.bytes - bytes)
	h.bytes = bytes
}

func (h *heldAnswer) release() {
	if h != nil {
		h.shrink(0)
		h.leave()
	}
}

// expectLarge makes the answer count as a large one. While that waits for its turn it keeps so
// many bytes of the memory of small answers: no more than it has read, so as not to keep others from it.
func (s *Server) expectLarge(ctx context.Context, x *request, kept int64) (err error) {
	small := x.held
	small.shrink(kept)
	defer small.release()
	x.held, err = s.large.acquire(ctx, x.caller.Actor, largeAnswer)
	return err
}

// withRoom returns a context in which what is read of the log makes the answer a large one when it
// takes more than that of a small one.
func (s *Server) withRoom(ctx context.Context, x *request) context.Context {
	return projections.WithRoom(ctx, smallReading, func(ctx context.Context, held int) error {
		return s.expectLarge(ctx, x, int64(held)*smallAnswer/smallReading)
	})
}
