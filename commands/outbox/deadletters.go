package outbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/strictjson"
	"github.com/medilab/webhooks/eventstore"
)

// ParkedEvent is a dead letter: an emitted event that cannot be accepted, and why.
type ParkedEvent struct {
	ID            int64           `json:"id"`
	EventID       uuid.UUID       `json:"event_id"`
	EventType     string          `json:"event_type"`
	EventData     json.RawMessage `json:"event_data"`
	CorrelationID *string         `json:"correlation_id"`
	Source        *string         `json:"source"`
	EmittedBy     string          `json:"emitted_by"` // database role, or source:NAME
	EmittedAt     time.Time       `json:"emitted_at"`
	ParkedAt      time.Time       `json:"parked_at"`
	Reason        string          `json:"reason"`
	Redacted      bool            `json:"redacted,omitempty"` // event_data is null, as the caller may not read it

	mended     string // what became of its data, for the log
	fromSource bool
	imported   bool
	trace      domain.Trace // perhaps malformed
}

// maxPageBytes bounds the data of a page of dead letters; the first comes whatever its size.
const maxPageBytes = 16 << 20

// Parked returns up to limit dead letters with ids below before (0: all), newest first, and
// reports whether there are more.
func Parked(ctx context.Context, pool *pgxpool.Pool, before int64, limit int) (found []ParkedEvent, more bool, err error) {
	rows, _ := pool.Query(ctx, `
		WITH page AS (SELECT * FROM medilab.parked_events WHERE $1::bigint = 0 OR id < $1 ORDER BY id DESC LIMIT $2),
		sized AS (SELECT id, sum(octet_length(event_data::text)) OVER (ORDER BY id DESC) - octet_length(event_data::text) AS above FROM page)
		SELECT id, event_id, event_type, event_data::text, correlation_id, source, emitted_by, emitted_at, parked_at,
			regexp_replace(regexp_replace(reason, '^((event_data: )?the JSON .* at byte [0-9]+) \(in .*\)', '\1'), -- which earlier versions took from the data
				'^((event_data: )?the JSON .* at byte [0-9]+: invalid (escape sequence|surrogate pair)) .* in string$', '\1 in string'),
			from_source, imported, coalesce(traceparent, ''), coalesce(tracestate, ''), EXISTS (SELECT FROM medilab.parked_events AS p WHERE p.id < page.id)
		FROM page JOIN sized USING (id) WHERE above < $3 ORDER BY id DESC`, before, limit, maxPageBytes)
	found, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (p ParkedEvent, err error) {
		err = row.Scan(&p.ID, &p.EventID, &p.EventType, (*[]byte)(&p.EventData), &p.CorrelationID, &p.Source,
			&p.EmittedBy, &p.EmittedAt, &p.ParkedAt, &p.Reason, &p.fromSource, &p.imported, &p.trace.Traceparent, &p.trace.Tracestate, &more) // more is as the last row says
		p.EmittedAt, p.ParkedAt = p.EmittedAt.UTC(), p.ParkedAt.UTC()
		return p, err
	})
	return found, more, eventstore.Doing("list parked events", err)
}

// Message is what a source sent that cannot be accepted.
type Message struct {
	Actor  string
	Event  commands.NewEvent // as much of it as could be read
	Raw    []byte
	Reason string
}

// ParkMessage keeps the message with the reason, once however often it is sent; it reports whether it
// was not there yet. Another one with its id is kept too. Its raw text stands in the place of data
// that cannot be read.
func ParkMessage(ctx context.Context, pool *pgxpool.Pool, m Message) (added bool, err error) {
	e, id := m.Event.Event, uuid.UUID(m.Event.ID)
	if id == uuid.Nil {
		id = uuid.New()
	}
	data := []byte(e.EventData)
	if domain.CheckJSON(data) != nil {
		data, _ = json.Marshal(string(m.Raw)) // text always can be
	}
	timed := !e.OccurredAt.IsZero()
	if !timed {
		e.OccurredAt = time.Now()
	}
	tag, err := pool.Exec(ctx, `
		INSERT INTO medilab.parked_events (event_id, event_type, event_data, correlation_id, source, emitted_by, emitted_at, reason, from_source, imported, traceparent, tracestate)
		SELECT $1, $2, $3::text::json, nullif($4, ''), nullif($5, ''), $6, $7, $8, true, $9, $10, $11
		WHERE NOT EXISTS (SELECT FROM medilab.parked_events WHERE event_id = $1 AND emitted_by = $6 AND from_source
			AND event_type = $2 AND event_data::text = $3 AND coalesce(correlation_id, '') = $4 AND coalesce(source, '') = $5 AND imported = $9
			AND (emitted_at = $7 OR NOT $12))`,
		id, domain.Storable(e.EventType), string(data), domain.Storable(e.CorrelationID), domain.Storable(e.Source), m.Actor, e.OccurredAt, domain.Storable(m.Reason), e.Imported, domain.Storable(e.Traceparent), domain.Storable(e.Tracestate), timed)
	return tag.RowsAffected() > 0, eventstore.Doing("park a message", err)
}

// RetryParked appends a dead letter to the log as it was emitted, as its type may be known by now,
// or with mended data, which nil leaves. A *domain.Error of KindConflict says why it still cannot
// be accepted; then it stays.
func RetryParked(ctx context.Context, c *commands.Commands, caller commands.Caller, id int64, mended json.RawMessage) (commands.Accepted, error) {
	p, err := findParked(ctx, c, id)
	if err != nil {
		return commands.Accepted{}, err
	}
	action := domain.AdminParkedRetried
	if mended != nil {
		if err := checkMended(ctx, c, p, mended); err != nil {
			return commands.Accepted{}, err
		}
		action = domain.AdminParkedMended
		was, err := digest(ctx, c, p.EventData)
		if err != nil {
			return commands.Accepted{}, err
		}
		is, err := digest(ctx, c, mended)
		if err != nil {
			return commands.Accepted{}, err
		}
		p.mended = fmt.Sprintf("; its data, %s, became %s", was, is)
		p.EventData = bytes.Clone(mended)
	}
	triggered, err := accept(ctx, c.Log.Limiter, c.Catalog, p.emission(), domain.CheckOccurred(p.EmittedAt, c.Now())...)
	if err != nil {
		return commands.Accepted{}, domain.Conflict("it still cannot be accepted: " + err.Error())
	}
	event := accepted{p.emission(), domain.EventID(p.EventID), triggered}
	appended, err := c.Directory.Execute(ctx, func(ctx context.Context) (eventstore.Unit, error) {
		recorded, err := c.Log.LoadFirst(ctx, []string{p.removal().Stream(), event.event.Stream()})
		switch {
		case err != nil:
			return eventstore.Unit{}, err
		case len(recorded) == 0:
		case recorded[0].Stream == p.removal().Stream():
			return eventstore.Unit{}, domain.NotFound("parked event")
		case event.caller().Appended(recorded[0]):
			return eventstore.Unit{}, domain.Conflict("another event is recorded under its event_id: it can only be discarded")
		default:
			event = event.ownID()
		}
		unit := p.remove(caller, action)
		unit.Writes = append(unit.Writes, event.write(p.removal().Stream()))
		return unit, nil
	})
	if err := p.removed(err); err != nil {
		return commands.Accepted{}, err
	}
	return commands.Accepted{EventID: event.event, EventType: domain.EventType(triggered.EventType), AcceptedAt: appended.RecordedAt}, nil
}

// checkMended returns what is wrong with the data that somebody gave for the dead letter.
func checkMended(ctx context.Context, c *commands.Commands, p ParkedEvent, data json.RawMessage) error {
	event := domain.EventTriggered{EventType: p.EventType, EventData: data}
	refused := c.Catalog.TriggeredFields(event)
	if len(refused) == 0 {
		return c.CheckData(ctx, event)
	}
	return domain.CheckFields(slices.DeleteFunc(refused, func(f domain.FieldError) bool { return f.Field != "event_data" }))
}

// digest names data without showing it.
func digest(ctx context.Context, c *commands.Commands, data []byte) (string, error) {
	hash, err := c.Directory.HashedText(ctx, string(data))
	return fmt.Sprintf("%d bytes with keyed SHA-256 %s", len(data), hash), commands.Failed("mend a parked event", err)
}

// DiscardParked deletes a dead letter with its data.
func DiscardParked(ctx context.Context, c *commands.Commands, caller commands.Caller, id int64) error {
	p, err := findParked(ctx, c, id)
	if err != nil {
		return err
	}
	_, err = c.Directory.Append(ctx, p.remove(caller, domain.AdminParkedDiscarded))
	return p.removed(err)
}

func findParked(ctx context.Context, c *commands.Commands, id int64) (ParkedEvent, error) {
	found, _, err := Parked(ctx, c.Pool, id+1, 1)
	if err != nil {
		return ParkedEvent{}, commands.Failed("look for a parked event", err)
	}
	if len(found) == 0 || found[0].ID != id {
		return ParkedEvent{}, domain.NotFound("parked event")
	}
	return found[0], nil
}

func (p ParkedEvent) emission() emission {
	e := emission{id: p.EventID, eventType: p.EventType, data: p.EventData, emittedBy: p.EmittedBy, fromSource: p.fromSource, imported: p.imported,
		traceparent: p.trace.Traceparent, tracestate: p.trace.Tracestate, emittedAt: p.EmittedAt}
	if p.CorrelationID != nil {
		e.correlationID = *p.CorrelationID
	}
	if p.Source != nil {
		e.source = *p.Source
	}
	return e
}

// removal identifies the one removal of the dead letter: when two callers remove it at the same
// time, one of them conflicts.
func (p ParkedEvent) removal() domain.AdminID {
	return domain.AdminID(uuid.NewSHA1(p.EventID, fmt.Appendf(nil, "parked %d %d", p.ID, p.ParkedAt.UnixMicro())))
}

// Places in reasons, which earlier versions named by the event's data.
var dataPlace, unknownField = regexp.MustCompile(`^event_data[.[].* (must|is|breaks) `), regexp.MustCompile(`^.* is not a field of `)

// remove returns what deletes the dead letter and records in the log who did. It fails with
// codeGone if the dead letter is gone, as when it was erased.
func (p ParkedEvent) remove(caller commands.Caller, action domain.AdminAction) eventstore.Unit {
	const most = 400 // bytes of what the emitter wrote
	reason := unknownField.ReplaceAllLiteralString(dataPlace.ReplaceAllString(p.Reason, "event_data $1 "), "* is not a field of ")
	acted := domain.AdminActed{Action: action, Detail: fmt.Sprintf("event %s of type %s, emitted by %s: %s%s",
		p.EventID, strictjson.Shorten(p.EventType, most), p.EmittedBy, strictjson.Shorten(reason, most), p.mended)}
	return eventstore.Unit{
		Writes: []eventstore.Write{commands.Write(p.removal().Stream(), 0,
			eventstore.Metadata{Actor: caller.Actor, CorrelationID: p.emission().correlationID, RequestID: caller.RequestID}, acted)},
		With: []eventstore.Statement{{SQL: `WITH gone AS (DELETE FROM medilab.parked_events WHERE id = $1 RETURNING id) SELECT ln(count(*)) FROM gone`, Args: []any{p.ID}}},
	}
}

// removed returns what a failure of the append means.
func (p ParkedEvent) removed(err error) error {
	var lost *eventstore.ConflictError
	if errors.As(err, &lost) && lost.Stream == p.removal().Stream() || eventstore.HasCode(err, codeGone) {
		return domain.NotFound("parked event")
	}
	return commands.Failed("settle a parked event", err)
}
