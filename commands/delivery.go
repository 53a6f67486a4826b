package commands

import (
	"context"
	"time"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// Queue looks into the queue of deliveries.
type Queue interface {
	// Untried returns which of the deliveries wait for their first attempt, alone or
	// for a batch: those have no stream yet.
	Untried(ctx context.Context, ids []domain.DeliveryID) (map[domain.DeliveryID]domain.Delivery, error)
	// Waits reports whether the delivery waits for its next attempt, which no node has taken.
	Waits(ctx context.Context, id domain.DeliveryID) (bool, error)
	// WaitingBehind returns, for each of the deliveries that waits for another of its key,
	// the one directly before it.
	WaitingBehind(ctx context.Context, ids []domain.DeliveryID) (map[domain.DeliveryID]domain.DeliveryID, error)
	// OfReplay returns what the replay asked for and has not ended.
	OfReplay(ctx context.Context, id domain.ReplayID) ([]Replayed, error)
	// Hold keeps what waits of it from being attempted until Release.
	Hold(ctx context.Context, id domain.ReplayID) error
	Release(ctx context.Context, id domain.ReplayID) error
	// Backlog returns the newest deliveries that wait for their first attempt, of events
	// before the position, which was recorded before due. The zero webhook is any.
	Backlog(ctx context.Context, webhook domain.WebhookID, below eventstore.Position, due time.Time, limit int) ([]domain.Delivery, error)
	// WaitingOf returns the deliveries of the events that have not ended, whatever asked for
	// them, and which of the dispatched ones are in a batch, whatever became of that.
	WaitingOf(ctx context.Context, events []domain.EventID, dispatched []domain.DeliveryID) ([]domain.DeliveryID, error)
	// Age returns how long the delivery that is due for longest has waited.
	Age(ctx context.Context, directory *Directory) (time.Duration, error)
}

// Replayed is a delivery that a replay asked for, in the queue.
type Replayed struct {
	ID        domain.DeliveryID
	EventID   domain.EventID // of a batch: its first member's
	WebhookID domain.WebhookID
	Version   int64
	Free      bool // no node has it
	Ordered   bool // it is in a line
	Due       bool // it is on its way, or waits to be: not for the time of a retry
	Held      bool // by Hold
}

// Delivery returns a delivery as it stands. One that nobody tried yet has no
// stream: then the queue knows what it delivers to whom.
func (c *Commands) Delivery(ctx context.Context, id domain.DeliveryID) (domain.Delivery, error) {
	d, err := c.foldDelivery(ctx, id)
	if err != nil || d.Version > 0 {
		return d, err
	}
	untried, err := c.Queue.Untried(ctx, []domain.DeliveryID{id})
	if err != nil {
		return domain.Delivery{}, Failed("look for a delivery", err)
	}
	if d, ok := untried[id]; ok {
		return d, nil
	}
	// It may have ended between the two looks.
	if d, err = c.foldDelivery(ctx, id); err == nil && d.Version == 0 {
		err = domain.NotFound("delivery")
	}
	return d, err
}

func (c *Commands) foldDelivery(ctx context.Context, id domain.DeliveryID) (d domain.Delivery, err error) {
	events, err := c.Log.Load(ctx, id.Stream())
	if err != nil {
		return d, Failed("look for a delivery", err)
	}
	for _, e := range events {
		change, ok := e.Value.(domain.Change)
		if !ok {
			return d, domain.Internal("read a delivery", e.Err)
		}
		if _, test := change.(domain.DeliveryTested); test {
			return d, domain.Conflict("this was a test call, which ended with its one attempt; make another test instead")
		}
		d = d.Evolve(change, e.RecordedAt)
	}
	return d, nil
}

// changeDelivery appends what decide says of the delivery. The result is the delivery
// after the change. What is asked of a member of a batch is asked of the batch, unless it
// leaves that: decide gets it, and the member, else nil.
func (c *Commands) changeDelivery(ctx context.Context, caller Caller, id domain.DeliveryID,
	decide func(d domain.Delivery, member *domain.Delivery) (domain.Change, error),
) (domain.Delivery, error) {
	var d domain.Delivery
	var member *domain.Delivery
	var change domain.Change
	appended, err := c.Directory.Execute(ctx, func(ctx context.Context) (_ eventstore.Unit, err error) {
		if d, err = c.Delivery(ctx, id); err != nil {
			return eventstore.Unit{}, err
		}
		stream := id
		member = nil
		if joined := d; joined.State == domain.DeliveryJoined {
			stream, member = joined.BatchID, &joined
			if d, err = c.foldDelivery(ctx, stream); err != nil {
				return eventstore.Unit{}, err
			}
		}
		if change, err = decide(d, member); err != nil {
			return eventstore.Unit{}, err
		}
		cancelled, _ := change.(domain.DeliveryCancelled)
		if cancelled.Was != domain.DeliveryJoined {
			return caller.unit(stream.Stream(), d.Version, change), nil
		}
		batch := eventstore.Statement{SQL: unmovedSQL, Args: []any{stream.Stream(), d.Version}}
		d, member = *member, nil
		unit := caller.unit(id.Stream(), d.Version, change)
		unit.With = append(unit.With, batch)
		return unit, nil
	})
	if err != nil {
		return domain.Delivery{}, Failed("change a delivery", err)
	}
	if d = d.Evolve(change, appended.RecordedAt); member != nil {
		d = member.In(d)
	}
	return d, nil
}

// unmovedSQL undoes the append with a bucket that has no width, which is a conflict, if the stream has
// gone on since that was decided.
const unmovedSQL = `SELECT width_bucket(0, 0, CASE WHEN max(version) > $2 THEN 0 ELSE 1 END, 1) FROM medilab.events WHERE stream = $1`

// DeliveryFigures say how busy this node is with calls.
type DeliveryFigures struct {
	InFlight     int            // calls
	Waiting      int            // claimed, not yet called
	WaitingBytes int            // payload bytes of all in memory
	Lanes        int            // webhooks that were delivered to
	FullLanes    int            // of them, with deliveries that wait as no more calls may be in flight
	Workers      int            // the bound on calls in flight
	Lacks        domain.Outcome // what this node lacks for its calls; "": nothing
}
