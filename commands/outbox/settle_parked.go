package outbox

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// What people do about parked events. Either ends the parking for good, once, and is in the log
// with who did it, in the transaction that does it.

// RetryParked takes a parked event into the log after all, as what was emitted: its type may be
// known by now. A *domain.Error of KindConflict says why it still cannot be accepted; then it
// stays where it is.
func RetryParked(ctx context.Context, c *commands.Commands, caller commands.Caller, id int64) (commands.Accepted, error) {
	p, err := findParked(ctx, c, id)
	if err != nil {
		return commands.Accepted{}, err
	}
	triggered, err := accept(c.Catalog, p.emission)
	if err != nil {
		return commands.Accepted{}, domain.Conflict("it still cannot be accepted: " + err.Error())
	}
	unit := p.settled(caller, domain.AdminParkedRetried)
	event := domain.EventID(p.emission.id)
	unit.Writes = append(unit.Writes, write(p.emission, triggered, p.act().Stream()))
	appended, err := c.Directory.Append(ctx, unit)
	var lost *eventstore.ConflictError
	if errors.As(err, &lost) && lost.Stream == event.Stream() {
		return commands.Accepted{}, domain.Conflict("another event is recorded under its event_id: it can only be discarded")
	}
	if err := p.refused(err); err != nil {
		return commands.Accepted{}, err
	}
	return commands.Accepted{EventID: event, EventType: domain.EventType(triggered.EventType), AcceptedAt: appended.RecordedAt}, nil
}

// DiscardParked drops a parked event with its data.
func DiscardParked(ctx context.Context, c *commands.Commands, caller commands.Caller, id int64) error {
	p, err := findParked(ctx, c, id)
	if err != nil {
		return err
	}
	_, err = c.Log.Append(ctx, p.settled(caller, domain.AdminParkedDiscarded))
	return p.refused(err)
}

// parked is one parked event, to be settled.
type parked struct {
	emission
	place  int64 // its id among the parked
	since  int64 // microseconds since 1970
	reason string
}

func findParked(ctx context.Context, c *commands.Commands, id int64) (parked, error) {
	p := parked{place: id}
	err := c.Pool.QueryRow(ctx, `
		SELECT event_id, event_type, event_data::text, coalesce(correlation_id, ''), coalesce(source, ''), emitted_by,
			(extract(epoch FROM parked_at) * 1000000)::bigint, reason
		FROM medilab.parked_events WHERE id = $1`, id).
		Scan(&p.id, &p.eventType, &p.data, &p.correlationID, &p.source, &p.emittedBy, &p.since, &p.reason)
	if errors.Is(err, pgx.ErrNoRows) {
		return parked{}, domain.NotFound("parked event")
	}
	return p, commands.Failed("look for a parked event", err)
}

// act names what is done about it. There is one name, so of two that do something one comes
// first, and the other finds it gone.
func (p parked) act() domain.AdminID {
	return domain.AdminID(uuid.NewSHA1(p.id, fmt.Appendf(nil, "parked %d %d", p.place, p.since)))
}

// settled is what ends the parking, with the record of it.
func (p parked) settled(caller commands.Caller, action domain.AdminAction) eventstore.Unit {
	const most = 200 // letters of what the emitter wrote
	acted := domain.AdminActed{Action: action, Detail: fmt.Sprintf("event %s of type %s, emitted by %s: %s", p.id, shortened(p.eventType, most), p.emittedBy, shortened(p.reason, most))}
	return eventstore.Unit{
		Writes: []eventstore.Write{{
			Stream:   p.act().Stream(),
			Events:   []eventstore.NewEvent{{Type: acted.ChangeType(), Data: domain.AppendJSON(nil, acted), Value: acted}},
			Metadata: eventstore.Metadata{Actor: caller.Actor, CorrelationID: p.correlationID, RequestID: caller.RequestID},
		}},
		With: []eventstore.Statement{{SQL: `DELETE FROM medilab.parked_events WHERE id = $1`, Args: []any{p.place}}},
	}
}

// refused says what a failure of the append means.
func (p parked) refused(err error) error {
	var lost *eventstore.ConflictError
	if errors.As(err, &lost) && lost.Stream == p.act().Stream() {
		return domain.NotFound("parked event")
	}
	return commands.Failed("settle a parked event", err)
}

func shortened(text string, most int) string {
	letters := []rune(text)
	if len(letters) <= most {
		return text
	}
	return string(letters[:most]) + "..."
}
