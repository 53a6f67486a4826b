package saga

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// dispatcher decides, for every event of the log in order, to whom it goes. Most
// events say so themselves, as it was decided when they were appended
// (commands.Directory's Follow); the dispatcher finds the others. Its registry is
// the fold of exactly what stands before each event.
type dispatcher struct {
	log      *eventstore.Log
	logger   *slog.Logger
	registry *domain.Registry
	position eventstore.Position // up to where registry has folded the log
}

// readerDispatcher is the dispatcher's place in the log.
const readerDispatcher = "dispatcher"

// interested tells whether a batch holds an event that nobody has dispatched yet.
func interested(batch []eventstore.Event) bool {
	for i := range batch {
		if event, ok := batch[i].Value.(domain.EventTriggered); ok && event.Recipients == nil {
			return true
		}
	}
	return false
}

// apply dispatches a page. Doing it twice is a no-op: event.dispatched is
// appended at its version or not at all.
func (d *dispatcher) apply(ctx context.Context, page eventstore.Page) error {
	if err := d.foldUpTo(ctx, page.Events[0].Position-1); err != nil {
		return err
	}
	dispatched := map[string]bool{}
	for i := range page.Events {
		if page.Events[i].Type == (domain.EventDispatched{}).ChangeType() {
			dispatched[page.Events[i].Stream] = true
		}
	}
	var units []eventstore.Unit
	var unread []*eventstore.Event
	for i := range page.Events {
		e := &page.Events[i]
		switch c := e.Value.(type) {
		case domain.EventTriggered:
			if c.Recipients != nil || dispatched[e.Stream] {
				continue
			}
			unit, wanted, err := d.dispatch(e, c)
			if err != nil {
				return err
			}
			if wanted {
				units = append(units, unit)
			}
		case domain.Change:
			d.fold(e, c)
		default:
			if strings.HasPrefix(e.Stream, "event-") {
				unread = append(unread, e)
			}
		}
	}
	if err := d.setAside(ctx, page.Tx, unread); err != nil {
		return err
	}
	d.position = page.Last()
	for _, err := range d.log.AppendEach(ctx, units) {
		if err != nil && !eventstore.IsConflict(err) {
			d.position = -1 // the page comes again; fold anew
			return fmt.Errorf("dispatch: %w", err)
		}
	}
	return nil
}

func (d *dispatcher) dispatch(e *eventstore.Event, c domain.EventTriggered) (eventstore.Unit, bool, error) {
	id, err := uuid.Parse(strings.TrimPrefix(e.Stream, "event-"))
	if err != nil {
		return eventstore.Unit{}, false, fmt.Errorf("dispatch: stream %s at %d: %w", e.Stream, e.Position, err)
	}
	c.Recipients = d.registry.Recipients(domain.EventType(c.EventType), c.EventData)
	dispatched, _ := domain.DispatchOf(domain.EventID(id), c)
	if len(dispatched.Deliveries) == 0 {
		return eventstore.Unit{}, false, nil
	}
	return eventstore.Unit{Writes: []eventstore.Write{{
		Stream:   e.Stream,
		Expected: e.Version,
		Events:   []eventstore.NewEvent{{Type: dispatched.ChangeType(), Data: dispatched.AppendJSON(nil), Value: dispatched}},
		Metadata: eventstore.Metadata{Actor: commands.ActorDispatcher},
	}}}, true, nil
}

func (d *dispatcher) fold(e *eventstore.Event, c domain.Change) {
	if kind, id, err := domain.ParseStream(e.Stream); err == nil && kind == "webhook" {
		d.registry = d.registry.With(domain.WebhookID(id), c, e.RecordedAt)
	}
}

// foldUpTo makes the registry stand right before a page: it does already, unless
// this node has just become the reader or the page before failed.
func (d *dispatcher) foldUpTo(ctx context.Context, position eventstore.Position) error {
	if d.registry != nil && d.position == position {
		return nil
	}
	events, head, err := d.log.ReadConfiguration(ctx, 0)
	if err != nil {
		return err
	}
	if head < position {
		return errors.New("dispatch: the log ends before the page that came from it")
	}
	d.registry = domain.NewRegistry()
	for i := range events {
		if events[i].Position > position {
			break
		}
		if c, ok := events[i].Value.(domain.Change); ok {
			d.fold(&events[i], c)
		}
	}
	d.position = position
	return nil
}
