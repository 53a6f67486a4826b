// Package remote sends events to MediLab Webhooks over HTTP, for services that do not share its
// Postgres. (Those that do should use package emit: their events are part of their transactions.)
//
//	client, err := remote.New(remote.Config{URL: "https://webhooks.clinic.example", Token: token})
//	...
//	id, err := client.Emit(ctx, remote.Event{Type: "patient.created", Data: json.RawMessage(`{"patient_id": 123}`)})
//	...
//	err = client.Close(ctx) // at the end: waits until every event is answered
//
// Events are sent in the background, in the order in which they were emitted and in batches of what
// has gathered meanwhile. Each has an id before it is first sent, so that sending it again after a
// lost answer makes no second event. Until it is answered an event is in memory only: a process that
// is killed loses it. The package links only the standard library and google/uuid.
package remote

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
)

// Event is something that happened in the clinic.
type Event struct {
	// Type is one of the known event types, such as patient.created.
	Type string
	// Data is a JSON object of less than 10 MB; receivers get it byte for byte.
	Data json.RawMessage
	// CorrelationID is the caller's own, to find the event by; may be empty.
	CorrelationID string
	// Source says where the event comes from; empty means "go".
	Source string
	// ID makes emitting the same event twice harmless, when OccurredAt is given too. If zero, Emit
	// assigns one. If another caller has used it already, the event gets a new one and keeps this as
	// client_event_id.
	ID uuid.UUID
	// OccurredAt is when it happened, not in the future. If zero, that is when Emit was called.
	OccurredAt time.Time
	// Traceparent is the trace that the event is part of (W3C Trace Context); may be empty.
	Traceparent string
	// Tracestate goes with Traceparent; may be empty.
	Tracestate string
}

var (
	// ErrFull is what TryEmit returns while Config.MaxBytes of events wait.
	ErrFull = errors.New("remote: too many events wait to be sent")
	// ErrClosed is returned for events that are emitted after Close.
	ErrClosed = errors.New("remote: the client is closed")
)

// Config says where events go. URL and Token are required.
type Config struct {
	// URL is the server's root, without /api/v1.
	URL string
	// Token has the scope events:write.
	Token string
	// MaxBytes bounds the memory of events that have no answer yet; 0 means 32 MB.
	MaxBytes int
	// Client makes the requests; nil means one with a timeout of 30 seconds.
	Client *http.Client
	// Refused is called for each event that the server will never accept, and for each that was
	// not sent when Close gave up. The client forgets it then. Calls are made one at a time; sending
	// waits for them, so that a call must not wait for room in the client. Nil drops such events.
	Refused func(Event, error)
	// Retrying is called when the server does not answer or does not accept events at all, as with
	// a token that has expired, before each further attempt. May be nil.
	Retrying func(err error, wait time.Duration)
}

// Client sends events. It is safe for concurrent use. Close it.
type Client struct {
	config   Config
	endpoint string
	stopping context.Context // done when Close gives up
	stop     context.CancelFunc
	ended    chan struct{} // closed when the sender has ended

	mu       sync.Mutex
	queue    []item // not answered yet, in order; the first of them are being sent
	bytes    int    // of queue
	emitted  uint64 // events that were ever in queue
	answered uint64 // of emitted
	closed   bool
	changed  chan struct{} // closed and replaced whenever one of the above changes
}

// item is an event as it is sent.
type item struct {
	event Event // its data are part of body
	timed bool  // Emit chose OccurredAt
	body  []byte
}

// size is roughly what an item takes in memory.
func (i item) size() int { return len(i.body) + 512 }

// New returns a client. It contacts nobody until the first event.
func New(config Config) (*Client, error) {
	u, err := url.Parse(config.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("remote: the URL must be that of a server, such as https://webhooks.clinic.example")
	}
	if config.Token == "" {
		return nil, errors.New("remote: a token is required")
	}
	if config.MaxBytes == 0 {
		config.MaxBytes = 32 << 20
	}
	if config.Client == nil {
		config.Client = &http.Client{Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	c := &Client{config: config, endpoint: u.JoinPath("api/v1/webhooks/events/trigger/batch").String(), ended: make(chan struct{}), changed: make(chan struct{})}
	c.stopping, c.stop = context.WithCancel(context.Background())
	go c.run()
	return c, nil
}

// Emit takes the event over to be sent and returns its id. While there is no room it waits, until
// ctx ends. An error means that the event was not taken over.
func (c *Client) Emit(ctx context.Context, event Event) (uuid.UUID, error) {
	next, err := prepare(event)
	for err == nil {
		changed, full := c.add(next)
		if !errors.Is(full, ErrFull) {
			return next.event.ID, full
		}
		select {
		case <-changed:
		case <-ctx.Done():
			err = fmt.Errorf("%w: %w", ErrFull, ctx.Err())
		}
	}
	return uuid.Nil, err
}

// TryEmit is Emit that returns ErrFull instead of waiting.
func (c *Client) TryEmit(event Event) (uuid.UUID, error) {
	next, err := prepare(event)
	if err == nil {
		_, err = c.add(next)
	}
	return next.event.ID, err
}

// add queues the item. If the error is ErrFull, there may be room when changed is closed.
func (c *Client) add(next item) (changed <-chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return nil, ErrClosed
	case next.size() > c.config.MaxBytes:
		return nil, fmt.Errorf("remote: an event of %d bytes never fits in %d", next.size(), c.config.MaxBytes)
	case c.bytes+next.size() > c.config.MaxBytes:
		return c.changed, ErrFull
	}
	c.queue = append(c.queue, next)
	c.bytes += next.size()
	c.emitted++
	c.announce()
	return nil, nil
}

// announce wakes up all that wait for a change. The caller holds mu.
func (c *Client) announce() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// Flush waits until all that was emitted before has been accepted or refused, or until ctx ends.
func (c *Client) Flush(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for target := c.emitted; c.answered < target; {
		if ctx.Err() != nil {
			return fmt.Errorf("remote: %d events have no answer yet: %w", target-c.answered, ctx.Err())
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		c.mu.Lock()
	}
	return nil
}

// Close takes no more events and waits until those that were emitted are answered. When ctx ends
// before, it calls Config.Refused for each of the others and returns an error.
func (c *Client) Close(ctx context.Context) error {
	c.mu.Lock()
	c.closed = true
	c.announce()
	c.mu.Unlock()
	err := c.Flush(ctx)
	c.stop()
	<-c.ended
	return err
}

// prepare returns the event as it will be sent, each time with the same bytes.
func prepare(event Event) (item, error) {
	if data := bytes.TrimLeft(event.Data, " \t\r\n"); len(data) == 0 || data[0] != '{' || !json.Valid(data) {
		return item{}, fmt.Errorf("remote: the data of %s are not a JSON object", event.Type)
	}
	if event.ID == uuid.Nil {
		event.ID = uuid.Must(uuid.NewV7())
	}
	event.Source = cmp.Or(event.Source, "go")
	timed := event.OccurredAt.IsZero()
	if timed {
		event.OccurredAt = time.Now()
	}
	event.OccurredAt = event.OccurredAt.UTC()
	return event.encode(timed)
}

// encode returns the event with a body. The data go as they are; json.Marshal would compact them.
func (e Event) encode(timed bool) (item, error) {
	head, err := json.Marshal(struct {
		Type          string    `json:"event_type"`
		ID            uuid.UUID `json:"event_id"`
		Source        string    `json:"source"`
		CorrelationID string    `json:"correlation_id,omitempty"`
		OccurredAt    time.Time `json:"occurred_at,omitzero"`
		Traceparent   string    `json:"traceparent,omitempty"`
		Tracestate    string    `json:"tracestate,omitempty"`
	}{e.Type, e.ID, e.Source, e.CorrelationID, e.OccurredAt, e.Traceparent, e.Tracestate})
	if err != nil {
		return item{}, fmt.Errorf("remote: encode %s: %w", e.Type, err)
	}
	head = append(head[:len(head)-1], `,"event_data":`...)
	body := slices.Concat(head, e.Data, []byte("}"))
	e.Data = body[len(head) : len(body)-1]
	return item{event: e, timed: timed, body: body}, nil
}
