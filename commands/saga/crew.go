package saga

import (
	"fmt"
	"runtime/debug"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
)

// crew is a Watermill handler that has each message handled by a goroutine which
// stays for the next one. Watermill begins a goroutine a message, whose small
// stack a call, which goes deep, has to grow and copy twice: that
// was a fortieth of all CPU time of this process. The one that was busy last
// goes first, as its stack is the least likely to have been shrunk since.
type crew struct {
	handler message.NoPublishHandlerFunc
	most    int // how many may wait for work

	mu        sync.Mutex
	free      []*hand // the one that was busy last stands last
	dismissed bool
}

// hand is one of the crew. Whoever took it alone gives it work.
type hand struct {
	work chan *message.Message
	done chan error
}

func newCrew(most int, handler message.NoPublishHandlerFunc) *crew {
	return &crew{handler: handler, most: most}
}

// handle gives the message to one of the crew and returns what came of it.
func (c *crew) handle(msg *message.Message) error {
	h := c.take()
	defer c.put(h)
	h.work <- msg
	return <-h.done
}

// close lets go of all who wait for work, now and later.
func (c *crew) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dismissed = true
	for _, h := range c.free {
		close(h.work)
	}
	c.free = nil
}

func (c *crew) take() *hand {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.free); n > 0 {
		h := c.free[n-1]
		c.free[n-1] = nil
		c.free = c.free[:n-1]
		return h
	}
	h := &hand{work: make(chan *message.Message, 1), done: make(chan error, 1)}
	go func() {
		for msg := range h.work {
			h.done <- c.try(msg)
		}
	}()
	return h
}

func (c *crew) put(h *hand) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dismissed || len(c.free) >= c.most {
		close(h.work)
		return
	}
	c.free = append(c.free, h)
}

// try turns a panic into an error, as Watermill does for its own goroutines.
func (c *crew) try(msg *message.Message) (err error) {
	defer func() {
		if problem := recover(); problem != nil {
			err = fmt.Errorf("panic: %v\n%s", problem, debug.Stack())
		}
	}()
	return c.handler(msg)
}
