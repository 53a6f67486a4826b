package commands

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/envelope"
	"github.com/medilab/webhooks/eventstore"
)

// EncryptedLog is what an encryption of the log did.
type EncryptedLog struct {
	Until   eventstore.Position `json:"until"`   // what older versions wrote is encrypted up to there
	Entries int                 `json:"entries"` // that were replaced now
	// Undecoded is how many entries do not decode. They stay as they are.
	Undecoded int `json:"undecoded"`
}

// encryptionStep is about how many entries are encrypted at once.
const encryptionStep = 500

// EncryptLog encrypts what versions that did not encrypt wrote, in steps, while others use the
// log; cut off, it goes on where it was. What tells of a subject that is erased by now is
// erased, and its deliveries are cancelled. progress is called after each step.
func (c *Commands) EncryptLog(ctx context.Context, caller Caller, progress func(done, total eventstore.Position)) (result EncryptedLog, err error) {
	for {
		was, err := c.Log.Encryption(ctx)
		if err != nil {
			return result, Failed("encrypt the log", err)
		}
		progress(was.Done, was.Until)
		if result.Until = was.Until; was.Done >= was.Until {
			return result, Failed("cancel the deliveries of subjects that are erased", c.endEncrypted(ctx, caller))
		}
		archived, err := c.Log.ArchivedTo(ctx)
		if err == nil && archived > was.Done {
			err = domain.Conflict("archives hold entries in clear: import them first")
		}
		var step *encryption
		if err == nil {
			_, err = c.Directory.Execute(ctx, func(ctx context.Context) (unit eventstore.Unit, err error) {
				step = &encryption{Commands: c, found: map[uuid.UUID][]int64{}}
				return step.decide(ctx, caller)
			})
		}
		if eventstore.IsArchiving(err) {
			err = domain.Conflict("an archive command is running: wait for its end")
		}
		if err != nil {
			return result, Failed("encrypt the log", err)
		}
		result.Entries, result.Undecoded = result.Entries+step.entries, result.Undecoded+step.undecoded
	}
}

// endEncrypted cancels what waits of subjects that were erased before what tells of them was
// encrypted. It finds that in the records of all steps, also of those of a run that was cut off.
func (c *Commands) endEncrypted(ctx context.Context, caller Caller) error {
	rows, _ := c.Pool.Query(ctx, `SELECT stream, max(position) FROM medilab.events WHERE stream LIKE 'subject-%' AND type = $1 GROUP BY stream`, domain.SubjectErased{}.ChangeType())
	erased, err := eventstore.CollectMap[string, eventstore.Position](rows) // by the stream of a subject, when it was erased last
	if err != nil || len(erased) == 0 {
		return err
	}
	rows, _ = c.Pool.Query(ctx, `SELECT position FROM medilab.events WHERE stream = $1 ORDER BY version`, eventstore.EncryptionStream)
	records, err := pgx.CollectRows(rows, pgx.RowTo[eventstore.Position])
	if err != nil {
		return err
	}
	return c.Log.EachAt(ctx, records, func(page []eventstore.Event) error {
		var ended []eventstore.Position
		for _, e := range page {
			record, ok := e.Value.(domain.PayloadsEncrypted)
			if !ok {
				return domain.Internal("read what was encrypted", e.Err)
			}
			for _, of := range record.Subjects {
				to := erased[domain.SubjectStream(envelope.Owner(of.Owner))]
				for _, position := range of.Positions {
					if position := eventstore.Position(position); position < to {
						ended = append(ended, position)
					}
				}
			}
		}
		_, err := c.cancelErased(ctx, caller, ended)
		return err
	})
}

// encryption is one step.
type encryption struct {
	*Commands
	unit      eventstore.Unit
	found     map[uuid.UUID][]int64 // positions of what tells of a subject
	entries   int
	undecoded int
}

func (s *encryption) decide(ctx context.Context, caller Caller) (eventstore.Unit, error) {
	if err := s.Directory.CatchUp(ctx); err != nil {
		return s.unit, err
	}
	decidedBy(&s.unit, s.Directory.snapshot.Load())
	was, err := s.Log.Encryption(ctx)
	if err != nil || was.Done >= was.Until {
		return eventstore.Unit{}, err
	}
	replaced, err := s.Log.Replace(ctx, was, encryptionStep, func(events []eventstore.Event) error { return s.encrypt(ctx, events) })
	if err != nil {
		return s.unit, err
	}
	s.entries = replaced.Entries
	record := domain.PayloadsEncrypted{EncryptedTo: int64(replaced.Last), Entries: replaced.Entries, Seal: fmt.Sprintf("%x", []byte(replaced.Seal))}
	for owner, positions := range s.found {
		record.Subjects = append(record.Subjects, domain.SubjectEntries{Owner: owner, Positions: positions})
	}
	s.unit.Writes = caller.unit(eventstore.EncryptionStream, was.Version, record).Writes
	s.unit.With = []eventstore.Statement{replaced.With}
	return s.unit, nil
}

// encrypt encrypts what is in clear.
func (s *encryption) encrypt(ctx context.Context, events []eventstore.Event) error {
	sent, err := s.sent(ctx, events)
	if err != nil {
		return err
	}
	for i := range events {
		e := &events[i]
		content, ok := e.Value.(domain.Enveloped)
		if e.Err != nil {
			s.undecoded++
		}
		if !ok || content.IsOpened() {
			continue
		}
		owners := sent[e.Stream]
		if _, answered := domain.OutcomeOf(e.Value); !answered {
			if owners, err = s.subjectsOf(ctx, e); err != nil {
				return err
			}
			for _, owner := range owners {
				s.found[uuid.UUID(owner)] = append(s.found[uuid.UUID(owner)], int64(e.Position))
			}
		}
		keys, rows, err := s.Directory.Keys.ForPast(ctx, owners, e.RecordedAt)
		if err != nil {
			return err
		}
		s.unit.Keys = append(s.unit.Keys, rows...)
		e.Data = domain.AppendJSON(nil, content.Enclosed(keys))
	}
	return nil
}

// sent returns the subjects of what deliveries with an outcome sent, by their streams: an answer
// may tell of them.
func (s *encryption) sent(ctx context.Context, events []eventstore.Event) (map[string][]envelope.Owner, error) {
	carried := map[string][]string{} // by the stream of a delivery, the streams of its events
	var batches []string
	for i := range events {
		if call, ok := domain.OutcomeOf(events[i].Value); ok {
			carried[events[i].Stream] = []string{call.EventID.Stream()}
			if call.EventType == string(domain.BatchEventType) {
				batches = append(batches, events[i].Stream)
			}
		}
	}
	begun, err := s.Log.LoadFirst(ctx, batches)
	if err != nil {
		return nil, err
	}
	for _, e := range begun {
		batched, _ := e.Value.(domain.DeliveryBatched)
		for _, m := range batched.Members {
			carried[e.Stream] = append(carried[e.Stream], m.EventID.Stream())
		}
	}
	streams := slices.Concat(slices.Collect(maps.Values(carried))...)
	slices.Sort(streams)
	triggered, err := s.Log.LoadFirst(ctx, slices.Compact(streams))
	if err != nil {
		return nil, err
	}
	owners := map[string][]envelope.Owner{}
	for i := range triggered {
		if owners[triggered[i].Stream], err = s.subjectsOf(ctx, &triggered[i]); err != nil {
			return nil, err
		}
	}
	sent := map[string][]envelope.Owner{}
	for delivery, streams := range carried {
		for _, stream := range streams {
			sent[delivery] = append(sent[delivery], owners[stream]...)
		}
	}
	return sent, nil
}

// subjectsOf returns of whom an event of the clinic, or a test, tells.
func (s *encryption) subjectsOf(ctx context.Context, e *eventstore.Event) ([]envelope.Owner, error) {
	switch c := e.Value.(type) {
	case domain.EventTriggered:
		if !c.IsOpened() {
			return s.Directory.Keys.Owners(ctx, domain.EventType(c.EventType), c.EventData)
		}
	case domain.DeliveryTested:
		if !c.IsOpened() {
			return s.Directory.Keys.Owners(ctx, domain.EventType(c.EventType), c.EventData)
		}
	}
	return domain.SubjectsOf(e.Value), nil
}
