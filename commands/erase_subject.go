package commands

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/envelope"
	"github.com/medilab/webhooks/eventstore"
)

// Erased is what an erasure reached.
type Erased struct {
	Events    int                 `json:"events"` // that told of the subject, tests included
	Cancelled int                 `json:"deliveries_cancelled"`
	Position  eventstore.Position `json:"position"` // of subject.erased
	// UnencryptedUntil is the last position that a version wrote which did not encrypt, until
	// EncryptLog has: what the log holds up to there is not erased. Zero: there is none.
	UnencryptedUntil eventstore.Position `json:"unencrypted_until,omitempty"`
	// ArchivedTo is the last archived position: Events leaves out what is only in archives,
	// which cannot be read any more either. Zero: nothing is archived.
	ArchivedTo eventstore.Position `json:"archived_to,omitempty"`
}

// SubjectIndex finds the events, and tests, that tell of a subject. It may lag behind the log.
type SubjectIndex interface {
	// AwaitSubjects waits for it to hold the log up to the position, if it is kept now.
	AwaitSubjects(ctx context.Context, to eventstore.Position) error
	SubjectEvents(ctx context.Context, owner envelope.Owner, after, to eventstore.Position, limit int) ([]eventstore.Position, error)
}

// EraseSubject destroys the keys of the subject in the append that says so: what told of it
// cannot be read from then on, also not the part that tells of others. Then it cancels its
// deliveries, of which those that it does not reach are cancelled when their turn comes.
func (c *Commands) EraseSubject(ctx context.Context, caller Caller, subject, reason string) (Erased, error) {
	if reason = strings.TrimSpace(reason); reason == "" {
		return Erased{}, domain.CheckFields([]domain.FieldError{{Field: "reason", Message: "is required"}})
	}
	if err := domain.CheckReason("reason", reason); err != nil {
		return Erased{}, err
	}
	owner, err := c.Directory.Keys.Owner(ctx, subject)
	if err != nil {
		return Erased{}, Failed("erase a subject", err)
	}
	return c.erase(ctx, caller, owner, domain.SubjectErased{Reason: reason})
}

// Erasure is one that the log has, for those who restore an older log.
type Erasure struct {
	Subject  uuid.UUID `json:"subject"`
	ErasedAt time.Time `json:"erased_at"`
}

// newErasure returns the erasure of the subject that was recorded at the time.
func newErasure(subject uuid.UUID, erased domain.SubjectErased, recordedAt time.Time) Erasure {
	if !erased.ErasedAt.IsZero() {
		recordedAt = erased.ErasedAt
	}
	return Erasure{subject, recordedAt}
}

// MissingErasures returns those of all that known lacks, each once.
func MissingErasures(all, known []Erasure) (missing []Erasure) {
	seen := make(map[Erasure]bool, len(known))
	isNew := func(e *Erasure) bool {
		e.ErasedAt = e.ErasedAt.UTC() // equal times are then the same
		was := seen[*e]
		seen[*e] = true
		return !was
	}
	for _, e := range known {
		isNew(&e)
	}
	for _, e := range all {
		if isNew(&e) {
			missing = append(missing, e)
		}
	}
	return missing
}

// Erasures returns those that the log has, the oldest first.
func (c *Commands) Erasures(ctx context.Context) (all []Erasure, err error) {
	rows, _ := c.Pool.Query(ctx, `SELECT position FROM medilab.events WHERE stream LIKE 'subject-%' AND type = $1 ORDER BY position`, domain.SubjectErased{}.ChangeType())
	positions, err := pgx.CollectRows(rows, pgx.RowTo[eventstore.Position])
	if err != nil {
		return nil, fmt.Errorf("list erasures: %w", err)
	}
	err = c.Log.EachAt(ctx, positions, func(page []eventstore.Event) error {
		for _, e := range page {
			_, id, failed := domain.ParseStream(e.Stream)
			if erased, ok := e.Value.(domain.SubjectErased); ok && failed == nil {
				all = append(all, newErasure(id, erased, e.RecordedAt))
			}
		}
		return nil
	})
	return all, err
}

// Lost returns those of the erasures that the log does not have, as it was restored from an
// older backup.
func (c *Commands) Lost(ctx context.Context, erasures []Erasure) (lost []Erasure, err error) {
	if len(erasures) == 0 {
		return nil, nil
	}
	known, err := c.Erasures(ctx)
	if err != nil {
		return nil, Failed("list erasures", err)
	}
	return MissingErasures(erasures, known), nil
}

// EraseAgain makes the erasures that the log has lost again, all in one append, but for those that another
// process has made again. It returns what cancels the deliveries that wait, which can be called again.
func (c *Commands) EraseAgain(ctx context.Context, caller Caller, lost []Erasure) (cancel func(context.Context) error, _ error) {
	all := map[envelope.Owner][]domain.Change{}
	for _, e := range lost {
		again := domain.SubjectErased{Reason: "erased before, and restored from a backup", ErasedAt: e.ErasedAt}
		all[envelope.Owner(e.Subject)] = append(all[envelope.Owner(e.Subject)], again)
	}
	appended, before, err := c.destroy(ctx, caller, all)
	return func(ctx context.Context) error {
		err := c.Subjects.AwaitSubjects(ctx, appended.First)
		for owner := range before {
			if err == nil {
				_, _, err = c.endDeliveries(ctx, caller, owner, before[owner], appended.First)
			}
		}
		return err
	}, err
}

func (c *Commands) erase(ctx context.Context, caller Caller, owner envelope.Owner, change domain.SubjectErased) (Erased, error) {
	appended, before, err := c.destroy(ctx, caller, map[envelope.Owner][]domain.Change{owner: {change}})
	if err != nil {
		return Erased{}, err
	}
	if c.Erased != nil {
		c.Erased()
	}
	if err := c.Subjects.AwaitSubjects(ctx, appended.First); err != nil {
		return Erased{}, Failed("find the deliveries of a subject that is erased", err)
	}
	erased := Erased{Position: appended.First}
	var events map[domain.EventID]bool
	if erased.Events, events, err = c.endDeliveries(ctx, caller, owner, before[owner], erased.Position); err != nil {
		return Erased{}, err
	}
	if erased.Cancelled, err = c.cancelledSince(ctx, erased.Position, events); err != nil {
		return Erased{}, Failed("count the deliveries of a subject that is erased", err)
	}
	clear, err := c.Log.Encryption(ctx)
	if clear.Done < clear.Until {
		erased.UnencryptedUntil = clear.Until
	}
	if err == nil {
		erased.ArchivedTo, err = c.Log.ArchivedTo(ctx)
	}
	return erased, Failed("erase a subject", err)
}

// destroy records the erasures of subjects, destroys their keys, and drops what waits of them and
// is not in the log. It returns the position of the erasure of each that came before, if any did.
func (c *Commands) destroy(ctx context.Context, caller Caller, changes map[envelope.Owner][]domain.Change) (eventstore.Appended, map[envelope.Owner]eventstore.Position, error) {
	before := make(map[envelope.Owner]eventstore.Position, len(changes))
	appended, err := c.Directory.Execute(ctx, func(ctx context.Context) (unit eventstore.Unit, err error) {
		owners := make([]uuid.UUID, 0, len(changes))
		clear(before)
		for owner, changes := range changes {
			former, err := c.Log.Load(ctx, domain.SubjectStream(owner))
			if err != nil {
				return unit, err
			}
			if changes = notRecorded(owner, changes, former); len(changes) == 0 {
				continue
			}
			before[owner] = 0
			if n := len(former); n > 0 {
				before[owner] = former[n-1].Position
			}
			owners = append(owners, uuid.UUID(owner))
			unit.Writes = append(unit.Writes, caller.unit(domain.SubjectStream(owner), int64(len(former)), changes...).Writes...)
		}
		unit.With = append(unit.With, eventstore.Statement{SQL: `DELETE FROM medilab.data_keys WHERE owner = ANY($1)`, Args: []any{owners}})
		waiting, err := c.waitingFor(ctx, func(owner envelope.Owner) bool { return slices.Contains(owners, uuid.UUID(owner)) })
		unit.With = append(unit.With, waiting...)
		return unit, err
	})
	return appended, before, Failed("erase a subject", err)
}

// notRecorded returns those of the erasures that the owner's stream does not have. One that is made for
// the first time has no time yet, and is none of them.
func notRecorded(owner envelope.Owner, erasures []domain.Change, stream []eventstore.Event) []domain.Change {
	return slices.DeleteFunc(slices.Clone(erasures), func(c domain.Change) bool {
		again, _ := c.(domain.SubjectErased)
		return slices.ContainsFunc(stream, func(e eventstore.Event) bool {
			was, ok := e.Value.(domain.SubjectErased)
			return ok && newErasure(uuid.UUID(owner), was, e.RecordedAt).ErasedAt.Equal(again.ErasedAt)
		})
	})
}

// endDeliveries cancels what waits of the subject, of events after one position up to another. It
// returns how many these are, tests included, and which, without tests.
func (c *Commands) endDeliveries(ctx context.Context, caller Caller, owner envelope.Owner, after, to eventstore.Position) (n int, events map[domain.EventID]bool, err error) {
	const page = 500
	for events = map[domain.EventID]bool{}; ; {
		positions, err := c.Subjects.SubjectEvents(ctx, owner, after, to, page)
		if err != nil {
			return n, events, Failed("find the deliveries of a subject that is erased", err)
		}
		ids, err := c.cancelErased(ctx, caller, positions)
		if err != nil {
			return n, events, Failed("cancel the deliveries of a subject that is erased", err)
		}
		for _, id := range ids {
			events[id] = true
		}
		if n += len(positions); len(positions) < page {
			return n, events, nil
		}
		after = positions[page-1]
	}
}

// cancelledSince returns how many deliveries of the events were cancelled, as erased, after the position:
// nodes cancel what is due as soon as the erasure is in the log, and leave members out of batches.
func (c *Commands) cancelledSince(ctx context.Context, after eventstore.Position, events map[domain.EventID]bool) (cancelled int, err error) {
	if len(events) == 0 {
		return 0, nil
	}
	var batches []string
	var members []domain.DeliveryID
	err = c.Log.Closed().Each(ctx, after, eventstore.Filter{Type: "delivery.*"}, func(e eventstore.Event) error {
		if change, ok := e.Value.(domain.DeliveryCancelled); ok && change.Reason == domain.CancelSubjectErased {
			switch {
			case domain.DeliveryOf(change.EventID, change.WebhookID).Stream() != e.Stream:
				batches = append(batches, e.Stream)
			case events[change.EventID]:
				cancelled++
			}
		}
		call, _ := domain.OutcomeOf(e.Value)
		for _, left := range call.LeftOut {
			if left.Reason == domain.CancelSubjectErased && events[left.EventID] {
				members = append(members, domain.DeliveryOf(left.EventID, call.WebhookID))
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	begun, err := c.Log.LoadFirst(ctx, batches)
	if err != nil {
		return 0, err
	}
	for _, e := range begun {
		batched, _ := e.Value.(domain.DeliveryBatched)
		for _, m := range batched.Members {
			if events[m.EventID] {
				members = append(members, m.DeliveryID)
			}
		}
	}
	joined, err := c.Queue.WaitingOf(ctx, nil, members) // the others left their batches: they are counted, or were before
	return cancelled + len(joined), err
}

// waitingFor returns the statements that drop the parked and emitted events that tell of the
// subjects and are not in the log. An emitted one may be parked after these were listed: it is then
// known by who emitted it when, as its id may be that of another.
func (c *Commands) waitingFor(ctx context.Context, erased func(envelope.Owner) bool) (statements []eventstore.Statement, err error) {
	for _, table := range []struct{ name, key string }{{"outbox", "seq"}, {"parked_events", "id"}} {
		rows, _ := c.Pool.Query(ctx, fmt.Sprintf(`SELECT %s, event_type, event_data::text, event_id, emitted_by, emitted_at FROM medilab.%s`, table.key, table.name))
		var ids []int64
		var events []uuid.UUID
		var emitters []string
		var times []time.Time
		var id int64
		var eventType domain.EventType
		var data []byte
		var event uuid.UUID
		var emittedBy string
		var emittedAt time.Time
		_, err = pgx.ForEachRow(rows, []any{&id, &eventType, &data, &event, &emittedBy, &emittedAt}, func() error {
			owners, err := c.ownersOf(ctx, eventType, data)
			if slices.ContainsFunc(owners, erased) {
				ids, events, emitters, times = append(ids, id), append(events, event), append(emitters, emittedBy), append(times, emittedAt)
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("look for events that wait: %w", err)
		}
		if ids != nil {
			statements = append(statements, eventstore.Statement{SQL: fmt.Sprintf(`DELETE FROM medilab.%s WHERE %s = ANY($1)`, table.name, table.key), Args: []any{ids}})
		}
		if ids != nil && table.name == "outbox" {
			statements = append(statements, eventstore.Statement{SQL: `DELETE FROM medilab.parked_events AS p USING unnest($1::uuid[], $2::text[], $3::timestamptz[]) AS o (event_id, emitted_by, emitted_at)
				WHERE p.event_id = o.event_id AND p.emitted_by = o.emitted_by AND p.emitted_at = o.emitted_at AND NOT p.from_source`, Args: []any{events, emitters, times}})
		}
	}
	return statements, nil
}

// ownersOf returns the subjects that an event which waits may tell of: where its data cannot be
// accepted, every value in it counts.
func (c *Commands) ownersOf(ctx context.Context, eventType domain.EventType, data []byte) ([]envelope.Owner, error) {
	text, isText := domain.JSONText(data) // of a source's message
	switch {
	case isText:
		data = []byte(text)
	case domain.CheckJSON(data) == nil:
		return c.Directory.Keys.Owners(ctx, eventType, data)
	}
	var owners []envelope.Owner
	for _, id := range domain.SubjectsInText(string(data)) {
		owner, err := c.Directory.Keys.Owner(ctx, id)
		if err != nil {
			return nil, err
		}
		owners = append(owners, owner)
	}
	return owners, nil
}

// cancelErased cancels the deliveries that wait of the events at the positions, and returns these
// events. What went in a batch leaves it, and what is left of that goes on.
func (c *Commands) cancelErased(ctx context.Context, caller Caller, positions []eventstore.Position) (all []domain.EventID, err error) {
	goesOn := map[domain.DeliveryID]bool{} // of batches: with what is not erased
	err = c.Log.EachAt(ctx, positions, func(events []eventstore.Event) error {
		var ids []domain.EventID
		var deliveries []domain.DeliveryID
		for _, e := range events {
			if id, err := domain.ParseEventStream(e.Stream); err == nil {
				ids = append(ids, id)
				dispatched, _ := domain.DispatchOf(id, e.Value)
				for _, d := range dispatched.Deliveries {
					deliveries = append(deliveries, d.DeliveryID)
				}
			}
		}
		all = append(all, ids...)
		waiting, err := c.Queue.WaitingOf(ctx, ids, deliveries)
		if err != nil {
			return err
		}
		for _, id := range waiting {
			_, err := c.changeDelivery(ctx, caller, id, func(d domain.Delivery, member *domain.Delivery) (domain.Change, error) {
				if member != nil {
					if d.State != domain.DeliveryPending && !d.Blocks {
						return nil, domain.Conflict("the batch has ended")
					}
					batch := member.BatchID
					if _, known := goesOn[batch]; !known || d.Blocks { // of a failed one, a replay may take events
						left, _, err := BatchEvents(ctx, c.Log, batch, true)
						if err != nil {
							return nil, err
						}
						goesOn[batch] = len(left) > 0
					}
					if goesOn[batch] {
						return domain.DecideLeave(*member, domain.CancelSubjectErased), nil
					}
				}
				return domain.DecideCancel(d, d.EventID, d.WebhookID, domain.CancelSubjectErased)
			})
			if err != nil && !errors.Is(err, domain.KindConflict) && !errors.Is(err, domain.KindNotFound) { // else it has ended
				return err
			}
		}
		return nil
	})
	return all, err
}
