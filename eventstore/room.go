package eventstore

import (
	"context"
	"errors"
	"math"
	"sync"
)

// room is what the events that are read in a context may take together. Nil is without bound.
type room struct {
	most int
	grow func(ctx context.Context, held int) error

	mu    sync.Mutex
	held  int
	grown bool
}

type roomKey struct{}

// WithRoom returns a context in which streams and positions of up to so many bytes are read.
// Before there are more, grow is called once, with the bytes that are held. It may wait, as no
// connection is held then, and its error is that of the reading.
func WithRoom(ctx context.Context, most int, grow func(ctx context.Context, held int) error) context.Context {
	return context.WithValue(ctx, roomKey{}, &room{most: most, grow: grow})
}

var errNoRoom = errors.New("the events take more room than there is")

// left returns how many bytes more there is room for.
func (r *room) left() int {
	if r == nil {
		return math.MaxInt
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.grown {
		return math.MaxInt
	}
	return r.most - r.held
}

// more makes room for whatever is read from now on.
func (r *room) more(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.grown {
		return nil
	}
	err := r.grow(ctx, r.held)
	r.grown = err == nil
	return err
}

// admit takes the bytes, and makes room for them if there is not enough.
func (r *room) admit(ctx context.Context, bytes int) error {
	if bytes > r.left() {
		if err := r.more(ctx); err != nil {
			return err
		}
	}
	r.take(bytes)
	return nil
}

func (r *room) take(bytes int) {
	if r != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.held += bytes
	}
}
