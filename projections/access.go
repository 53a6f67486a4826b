package projections

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/envelope"
	"github.com/medilab/webhooks/eventstore"
)

// The readings of payloads: the positions of all of them.

var accessModel = Model{
	Name: "access", SchemaVersion: 1, Tables: []string{"accesses"},
	New: func(t Tables) Projection { return &accesses{newListTable(t, "accesses", false, blockBits)} },
}

type accesses struct{ table listTable }

func (p *accesses) Project(_ context.Context, _ Querier, events []eventstore.Event) ([]eventstore.Statement, error) {
	lists := positionLists{}
	for i := range events {
		if _, ok := events[i].Value.(domain.DataRead); ok {
			lists.add(0, 0, events[i].Position)
		}
	}
	return p.table.statements(lists, events[0].Position), nil
}

// Access is one reading of payloads.
type Access struct {
	Position eventstore.Position `json:"position"`
	At       time.Time           `json:"at"`
	Actor    string              `json:"actor"`
	What     string              `json:"what"`                // the operation of the API, or the command
	IDs      []string            `json:"ids"`                 // of events and calls
	Asked    map[string]string   `json:"asked" schema:"null"` // null: ids says all
	Reason   *string             `json:"reason"`
}

// AccessFilter says which readings to list.
type AccessFilter struct {
	Subject  *Subject       // nil is any
	Event    domain.EventID // zero is any
	Actor    string         // as the log has it, or the id or name of a token; "" is any
	From, To time.Time      // at or after, before; zero is any
	Limit    int
	Cursor   Cursor
}

var accessesSQL = newestPositions("accesses", "t.kind = 0", "$3::bigint")

// Accesses lists readings of payloads, the newest first. A replay of the log counts as a
// reading of all that it was asked for. A page may be short, or empty, and still have more
// after it.
func (p *Projections) Accesses(ctx context.Context, f AccessFilter) (page Page[Access], err error) {
	if err := p.awaitHead(ctx); err != nil {
		return page, err
	}
	low, high, err := p.between(ctx, f.From, f.To, f.Cursor)
	if err != nil {
		return page, err
	}
	step := f.Limit
	if f.Subject != nil || f.Actor != "" || f.Event != (domain.EventID{}) {
		step = maxAccessStep
	}
	wanted, err := p.wanted(ctx, f)
	if err != nil {
		return page, err
	}
	page.Items = []Access{}
	for looked := 0; looked < maxAccesses; looked += step {
		some, err := pageAt(ctx, p, p.closed, step, newAccess, accessesSQL, low, high, step+1)
		if err != nil {
			return page, fmt.Errorf("list readings: %w", err)
		}
		for i, one := range some.Items {
			ok, err := wanted(ctx, one)
			if err != nil {
				return page, fmt.Errorf("list readings: %w", err)
			}
			if ok {
				page.Items = append(page.Items, one)
			}
			if more := i < len(some.Items)-1 || some.NextCursor != 0; len(page.Items) == f.Limit && more {
				page.NextCursor = Cursor(one.Position)
				return page, nil
			}
		}
		if page.NextCursor = some.NextCursor; page.NextCursor == 0 {
			break
		}
		high = int64(page.NextCursor)
	}
	return page, nil
}

// What is looked at for one page of readings.
const (
	maxAccessStep = 1000
	maxAccesses   = 20 * maxAccessStep
)

func newAccess(e *eventstore.Event) (Access, bool) {
	read, ok := e.Value.(domain.DataRead)
	return Access{Position: e.Position, At: e.RecordedAt, Actor: read.Actor, What: read.What, IDs: read.IDs, Asked: read.Asked, Reason: orNil(read.Reason)}, ok
}

// wanted returns what reports whether a reading is to be listed.
func (p *Projections) wanted(ctx context.Context, f AccessFilter) (func(context.Context, Access) (bool, error), error) {
	var event *eventstore.Event
	if f.Event != (domain.EventID{}) {
		first, err := p.log.LoadFirst(ctx, []string{f.Event.Stream()})
		if err != nil {
			return nil, err
		}
		if len(first) > 0 {
			event = &first[0]
		}
	}
	subject := subject{p, f.Subject, map[string]bool{}}
	return func(ctx context.Context, a Access) (bool, error) {
		switch {
		case f.Actor != "" && !isActor(a.Actor, f.Actor):
			return false, nil
		case f.Event != (domain.EventID{}) && !slices.Contains(a.IDs, f.Event.String()) && !a.replayed(event):
			return false, nil
		case f.Subject == nil:
			return true, nil
		}
		return subject.read(ctx, a)
	}, nil
}

const (
	// StreamReading is the What of reading the stream of what happens.
	StreamReading = "stream"
	// StreamRecord is how long after a reading its stream may have shown more.
	StreamRecord = time.Hour
)

// replayed reports whether the reading was a replay of the log that may have held the event,
// or what became of it.
func (a Access) replayed(e *eventstore.Event) bool {
	if a.Asked == nil || e == nil {
		return false
	}
	if after, err := strconv.ParseInt(a.Asked["after"], 10, 64); err == nil && e.Position <= Position(after) {
		return false
	}
	if e.Position > a.Position && (a.What != StreamReading || e.RecordedAt.After(a.At.Add(StreamRecord))) {
		return false
	}
	if a.Asked["subject"] != "" {
		return slices.ContainsFunc(domain.SubjectsOf(e.Value), a.exported)
	}
	if named := a.Asked["event"]; named != "" {
		id, err := uuid.Parse(named)
		return err == nil && domain.EventID(id).Stream() == e.Stream
	}
	before, ok := domain.ParseTime(a.Asked["to"])
	return !ok || e.RecordedAt.Before(before)
}

// exported reports whether the reading was an export of the subject.
func (a Access) exported(owner envelope.Owner) bool {
	return a.Asked["subject"] == uuid.UUID(owner).String()
}

// Subject is a person whom events tell of.
type Subject struct {
	Owner envelope.Owner // of the keys of what tells of them
	// Tells reports whether an event that is in clear, as of an older version, does.
	Tells func(eventType domain.EventType, data []byte) bool
}

// subject finds the readings of what is about somebody.
type subject struct {
	projections *Projections
	*Subject
	about map[string]bool // what is known of ids
}

// read reports whether the reading showed something about the subject. A replay of more than
// one event may have.
func (s *subject) read(ctx context.Context, a Access) (bool, error) {
	ids := a.IDs
	if a.Asked != nil {
		named := a.Asked["event"]
		if a.Asked["subject"] != "" {
			return a.exported(s.Owner), nil
		}
		if named == "" {
			return true, nil
		}
		ids = []string{named}
	}
	const atOnce = 20 // events may be large
	for some := range slices.Chunk(ids, atOnce) {
		if err := s.learn(ctx, some); err != nil {
			return false, err
		}
		if slices.ContainsFunc(some, func(id string) bool { return s.about[id] }) {
			return true, nil
		}
	}
	return false, nil
}

// learn finds out whether events, and test calls, are about the subject.
func (s *subject) learn(ctx context.Context, ids []string) error {
	var streams []string
	var positions []eventstore.Position
	for _, text := range ids {
		id, err := uuid.Parse(text)
		if _, known := s.about[text]; known || err != nil {
			continue
		}
		s.about[text] = false
		streams = append(streams, domain.EventID(id).Stream())
		positions = append(positions, eventstore.Position(domain.CallID(id).Position()))
	}
	events, err := s.projections.log.LoadFirst(ctx, streams)
	if err != nil {
		return err
	}
	calls, err := s.projections.log.GetMany(ctx, positions)
	if err != nil {
		return err
	}
	for _, e := range append(events, calls...) {
		_, id, err := domain.ParseStream(e.Stream)
		switch change := e.Value.(type) {
		case domain.EventTriggered:
			s.about[id.String()] = err == nil && s.matches(change, change.EventType, change.EventData)
		case domain.DeliveryTested:
			call := domain.CallAt(domain.DeliveryID(id), int64(e.Position))
			s.about[call.String()] = err == nil && s.matches(change, change.EventType, change.EventData)
		}
	}
	return nil
}

func (s *subject) matches(change domain.Change, eventType string, data []byte) bool {
	return slices.Contains(domain.SubjectsOf(change), s.Owner) || len(data) > 0 && s.Tells(domain.EventType(eventType), data)
}
