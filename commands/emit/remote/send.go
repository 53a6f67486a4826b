package remote

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
)

const (
	// The server takes batches of 1,000 events and 10 MB. One event may have nearly as much.
	maxEvents, maxBody = 1000, 8 << 20

	minWait, maxWait = 200 * time.Millisecond, 30 * time.Second
	mostAsked        = time.Hour // by Retry-After
)

// run sends what is queued until the client is closed and all is answered, or Close gives up.
func (c *Client) run() {
	defer close(c.ended)
	for batch := c.next(); len(batch) > 0; batch = c.next() {
		c.deliver(batch)
		c.release(len(batch))
	}
}

// next waits for events and returns the first of them, as many as one request takes.
func (c *Client) next() []item {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.queue) == 0 {
		if c.closed {
			return nil
		}
		changed := c.changed
		c.mu.Unlock()
		<-changed
		c.mu.Lock()
	}
	size, ids := 0, map[uuid.UUID]bool{}
	for i, next := range c.queue[:min(len(c.queue), maxEvents)] {
		// An event that was emitted twice is a repetition in the next request, and a mistake in the same.
		if size += len(next.body) + 1; size > maxBody && i > 0 || ids[next.event.ID] {
			return c.queue[:i:i]
		}
		ids[next.event.ID] = true
	}
	n := min(len(c.queue), maxEvents)
	return c.queue[:n:n]
}

// release forgets the first n events, which are answered.
func (c *Client) release(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range n {
		c.bytes -= c.queue[i].size()
	}
	clear(c.queue[:n])
	if c.queue = c.queue[n:]; len(c.queue) == 0 {
		c.queue = nil
	}
	c.answered += uint64(n)
	c.announce()
}

// deliver returns when each event of the batch is accepted or refused. A batch is accepted whole or
// not at all: events that the server names are taken out, and a batch in which it names none is halved.
func (c *Client) deliver(batch []item) {
	for failures := 0; len(batch) > 0; {
		err := c.send(batch)
		if err == nil {
			return
		}
		answer, answered := errors.AsType[*Error](err)
		switch {
		case !answered || !answer.refuses:
			if stopped := c.pause(err, failures); stopped != nil {
				c.refuse(stopped, batch...)
				return
			}
			failures++
		case len(answer.named) > 0:
			batch, failures = c.without(batch, answer), 0
		case len(batch) == 1:
			c.refuse(err, batch[0])
			return
		default:
			c.deliver(batch[:len(batch)/2])
			batch, failures = batch[len(batch)/2:], 0
		}
	}
}

// without refuses the events that the answer names, and returns the others. A clock that is ahead of
// the server's is no reason to refuse: where Emit chose the time, the server may.
func (c *Client) without(batch []item, answer *Error) (rest []item) {
	for i, one := range batch {
		wrong := strings.Join(answer.named[i], "; ")
		if one.timed && strings.HasPrefix(wrong, "occurred_at ") {
			one.event.OccurredAt = time.Time{}
			if again, err := one.event.encode(false); err == nil {
				one, wrong = again, ""
			}
		}
		if wrong == "" {
			rest = append(rest, one)
		} else {
			c.refuse(&Error{Status: answer.Status, Detail: wrong}, one)
		}
	}
	return rest
}

func (c *Client) refuse(err error, batch ...item) {
	for _, one := range batch {
		if c.config.Refused != nil {
			c.config.Refused(one.event, err)
		}
	}
}

// pause waits before the next attempt. Its error says that there is none.
func (c *Client) pause(err error, failures int) error {
	longest := min(maxWait, minWait<<min(failures, 10))
	wait := longest/2 + rand.N(longest/2)
	if answer, ok := errors.AsType[*Error](err); ok {
		wait = max(wait, min(answer.retryAfter, mostAsked))
	}
	if c.stopping.Err() == nil && c.config.Retrying != nil {
		c.config.Retrying(err, wait)
	}
	select {
	case <-c.stopping.Done():
		return fmt.Errorf("remote: the client was closed before there was an answer: %w", err)
	case <-time.After(wait):
		return nil
	}
}

// send makes one request. Its error is an *Error if the server answered.
func (c *Client) send(batch []item) error {
	body := bytes.NewBufferString(`{"events":[`)
	for i, one := range batch {
		if i > 0 {
			body.WriteByte(',')
		}
		body.Write(one.body)
	}
	body.WriteString("]}")
	req, err := http.NewRequestWithContext(c.stopping, http.MethodPost, c.endpoint, body)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.config.Token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.config.Client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // it is only read
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if resp.StatusCode == http.StatusAccepted {
		return nil // whatever became of the rest of the answer
	}
	if err != nil {
		return err
	}
	return newError(resp, answer, len(batch))
}
