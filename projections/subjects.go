package projections

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/envelope"
	"github.com/medilab/webhooks/eventstore"
)

// The subjects: for each the positions of the events, and of the tests, that tell of it. A row
// holds those of one in 128 subjects in a block of 4096 positions, so that a page of the log
// changes few rows even if it tells of many subjects.

const (
	subjectBits = 12 // those of a position within its block
	subjectSize = 2 + len(envelope.Owner{})
)

// addSubject adds the position to those that tell of the owner, as its place within the block
// and the owner: so the order of the bytes is that of the log.
func (l positionLists) addSubject(owner envelope.Owner, at Position) {
	key := listKey{kind: int32(owner[0] >> 1), block: int64(at >> subjectBits)}
	l[key] = append(binary.BigEndian.AppendUint16(l[key], uint16(at&(1<<subjectBits-1))), owner[:]...)
}

var subjectsModel = Model{
	Name: "subjects", SchemaVersion: 47, Tables: []string{"subject_places"},
	New: func(t Tables) Projection {
		table := newListTable(t, "subject_places", false, subjectBits)
		return &subjects{table: table, merge: table.insert + fmt.Sprintf(` ON CONFLICT (kind, block) DO UPDATE SET places = (
			SELECT string_agg(DISTINCT place, ''::bytea ORDER BY place) FROM (SELECT t.places || EXCLUDED.places AS places) AS joined,
				generate_series(1, length(places), %d) AS n, substr(places, n, %[1]d) AS place)`, subjectSize)}
	},
}

type subjects struct {
	table listTable
	merge string
}

func (p *subjects) Project(_ context.Context, _ Querier, events []eventstore.Event) ([]eventstore.Statement, error) {
	lists, former := positionLists{}, positionLists{}
	for i := range events {
		owners := domain.SubjectsOf(events[i].Value)
		slices.SortFunc(owners, func(a, b envelope.Owner) int { return bytes.Compare(a[:], b[:]) })
		for _, owner := range owners {
			lists.addSubject(owner, events[i].Position)
		}
		replaced, _ := events[i].Value.(domain.PayloadsEncrypted)
		for _, of := range replaced.Subjects {
			for _, position := range of.Positions {
				former.addSubject(envelope.Owner(of.Owner), Position(position))
			}
		}
	}
	statements := p.table.statements(lists, events[0].Position)
	if len(former) > 0 { // a rebuild has found them where they are
		for key, places := range former {
			former[key] = inOrder(places)
		}
		_, kinds, blocks, places, _ := former.rows(0)
		statements = append(statements, eventstore.Statement{SQL: p.merge, Args: []any{kinds, blocks, places}})
	}
	return statements, nil
}

// inOrder returns the places in their order, each once.
func inOrder(places []byte) []byte {
	all := slices.SortedFunc(slices.Chunk(places, subjectSize), bytes.Compare)
	return slices.Concat(slices.CompactFunc(all, bytes.Equal)...)
}

// subjectEvents is a query of the positions that tell of the owner $1, below $2 and above $3, in an
// order, $4 at most. Blocks are unpacked in their order, as far as is needed.
func subjectEvents(order string) string {
	last, step := "0", -subjectSize
	first := fmt.Sprintf("length(places) - %d", subjectSize)
	if order == "ASC" {
		first, last, step = last, first, subjectSize
	}
	return fmt.Sprintf(`SELECT position FROM (
		SELECT block, places FROM medilab.subject_places
		WHERE kind = get_byte($1, 0) >> 1 AND block BETWEEN ($3::bigint + 1) >> %[1]d AND ($2::bigint - 1) >> %[1]d AND position($1 IN places) > 0
		ORDER BY kind %[2]s, block %[2]s
	) AS blocks
	CROSS JOIN LATERAL generate_series(%[3]s, %[4]s, %[5]d) AS n
	CROSS JOIN LATERAL (SELECT (block << %[1]d) + (get_byte(places, n) << 8) + get_byte(places, n + 1) AS position) AS unpacked
	WHERE substr(places, n + 3, %[6]d) = $1 AND position < $2 AND position > $3
	LIMIT $4`, subjectBits, order, first, last, step, len(envelope.Owner{}))
}

var oldestOfSubject, newestOfSubject = subjectEvents("ASC"), subjectEvents("DESC")

// SubjectEvents returns up to limit positions, after one up to another, of events and tests
// that tell of the subject, as far as the read models hold the log: see AwaitSubjects.
func (p *Projections) SubjectEvents(ctx context.Context, owner envelope.Owner, after, to Position, limit int) ([]Position, error) {
	rows, _ := p.pool.Query(ctx, oldestOfSubject, owner[:], to+1, after, limit)
	positions, err := pgx.CollectRows(rows, pgx.RowTo[Position])
	return positions, doing("list the events of a subject", err)
}

// NewestOf returns the newest events about the subject, so many at most, the newest first; tests
// are none.
func (p *Projections) NewestOf(ctx context.Context, owner envelope.Owner, limit int) ([]Event, error) {
	if err := p.awaitData(ctx); err != nil {
		return nil, err
	}
	page, err := pageAt(ctx, p, p.log, limit, newEvent, newestOfSubject, owner[:], int64(math.MaxInt64), 0, limit+1)
	return page.Items, doing("list the newest events of a subject", err)
}

// AwaitSubjects waits for the read models to hold the log up to the position, but not for
// those that are not kept now.
func (p *Projections) AwaitSubjects(ctx context.Context, to Position) error {
	return p.waitBriefly(ctx, to, 5*time.Second)
}

// EachOf calls yield for each event about the subject, with its calls, the oldest first; for
// a test, the event is nil. A call of a batch comes once: EventID is the first of its events about the
// subject, and OwnEvents are all of these.
func (p *Projections) EachOf(ctx context.Context, owner envelope.Owner, yield func(event *Event, calls []Call) error) error {
	const page = 100
	head, err := p.log.Head(ctx)
	if err != nil {
		return err
	}
	if err := p.AwaitSubjects(ctx, head); err != nil {
		return err
	}
	of := &subjectCalls{p, owner, map[Position]bool{}}
	for after := Position(0); ; {
		positions, err := p.SubjectEvents(ctx, owner, after, head, page)
		if err != nil {
			return err
		}
		if err := p.log.EachAt(ctx, positions, func(events []eventstore.Event) error {
			for i := range events {
				if err := of.yield(ctx, &events[i], yield); err != nil {
					return err
				}
			}
			return nil
		}); err != nil || len(positions) < page {
			return err
		}
		after = positions[page-1]
	}
}

// subjectCalls finds the calls that sent the events of a subject, each once.
type subjectCalls struct {
	*Projections
	owner envelope.Owner
	found map[Position]bool // those of batches
}

func (s *subjectCalls) yield(ctx context.Context, e *eventstore.Event, yield func(*Event, []Call) error) error {
	if call, ok := newCall(e); ok {
		return yield(nil, []Call{call})
	}
	event, ok := newEvent(e)
	if !ok {
		return fmt.Errorf("read an event of a subject: position %d: %w", e.Position, e.Err)
	}
	var calls []Call
	for filter := (CallFilter{Event: event.ID, Limit: 1000}); ; {
		page, err := s.Calls(ctx, filter)
		if err != nil {
			return err
		}
		for _, call := range page.Items {
			if s.found[call.Position] {
				continue
			}
			if call.EventType == string(domain.BatchEventType) {
				s.found[call.Position], call.EventID = true, event.ID
				if call.OwnEvents, err = s.sentIn(ctx, call); err != nil {
					return err
				}
			}
			calls = append(calls, call)
		}
		if page.NextCursor == 0 {
			break
		}
		filter.Cursor = page.NextCursor
	}
	slices.Reverse(calls)
	return yield(&event, calls)
}

// sentIn returns the subject's events that the call of a batch sent.
func (s *subjectCalls) sentIn(ctx context.Context, call Call) (own []domain.EventID, err error) {
	begun, err := s.closed.LoadFirst(ctx, []string{call.DeliveryID.Stream()})
	if err != nil {
		return nil, err
	}
	var streams []string
	for _, batched := range each[domain.DeliveryBatched](begun) {
		for _, m := range batched.Members {
			if call.Record.Sent(m.EventID) {
				streams = append(streams, m.EventID.Stream())
			}
		}
	}
	events, err := s.closed.LoadFirst(ctx, streams)
	for i := range events {
		if id, err := domain.ParseEventStream(events[i].Stream); err == nil && slices.Contains(domain.SubjectsOf(events[i].Value), s.owner) {
			own = append(own, id)
		}
	}
	return own, err
}
