// Package commands holds the use cases, a file each: load, decide, append.
package commands

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/commands/vault"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// Refresher runs something once for all who ask for it at the same time.
type Refresher = eventstore.Refresher

// Commands is what can be asked of the system: a method a use case. All fields
// are required. Safe for concurrent use.
type Commands struct {
	Log       *eventstore.Log
	Directory *Directory
	Vault     *vault.Vault
	Catalog   domain.Catalog
	Attempter *Attempter
	Queue     Queue
	Subjects  SubjectIndex
	Erased    func()        // is called before an erasure is answered, after Directory.OnErasure; nil: nothing is
	Pool      *pgxpool.Pool // for webhook numbers
	Failed    FailedDeliveries

	former   formerKeys
	changing [64]sync.Mutex // see changeWebhook
}

// begin begins a stream with the change.
func (c *Commands) begin(ctx context.Context, caller Caller, stream string, change domain.Change) (eventstore.Appended, error) {
	return c.Directory.Append(ctx, caller.unit(stream, 0, change))
}

// unit appends the changes to the stream that holds expected events; without changes, it
// is nothing to append.
func (c Caller) unit(stream string, expected int64, changes ...domain.Change) eventstore.Unit {
	if len(changes) == 0 {
		return eventstore.Unit{}
	}
	return eventstore.Unit{Writes: []eventstore.Write{Write(stream, expected, c.metadata(), changes...)}}
}

// fold returns the state after the changes of a stream, or fails at one that cannot be read.
func fold[S interface {
	Evolve(change domain.Change, at time.Time) S
}](state S, events []eventstore.Event) (S, error) {
	for _, e := range events {
		change, ok := e.Value.(domain.Change)
		if !ok {
			return state, fmt.Errorf("stream %s cannot be read: %w", e.Stream, e.Err)
		}
		state = state.Evolve(change, e.RecordedAt)
	}
	return state, nil
}

// Write appends the changes to the stream that holds expected events.
func Write(stream string, expected int64, metadata eventstore.Metadata, changes ...domain.Change) eventstore.Write {
	events := make([]eventstore.NewEvent, len(changes))
	for i, change := range changes {
		events[i] = eventstore.NewEvent{Type: change.ChangeType(), Data: domain.AppendJSON(nil, change), Value: change}
	}
	return eventstore.Write{Stream: stream, Expected: expected, Events: events, Metadata: metadata}
}

// Failed returns a failure of the log or the database with the kind that tells a caller
// what to do: later when they could not be reached, nothing when they refused
// what we asked. Errors that have a kind keep it.
func Failed(doing string, err error) error {
	var known *domain.Error
	switch {
	case err == nil, errors.As(err, &known):
		return err
	case eventstore.IsConflict(err):
		return &domain.Error{Kind: domain.KindConflict, Message: "others changed the same at the same time; try again", Err: fmt.Errorf("%s: %w", doing, err)}
	case errors.Is(err, eventstore.ErrArchived):
		return domain.Conflict("its event is archived: restore the archive first")
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return domain.Unavailable("the service took too long; try again", fmt.Errorf("%s: %w", doing, err))
	case eventstore.IsOutage(err):
		return domain.Unavailable("the service cannot take this now; try again", fmt.Errorf("%s: %w", doing, err))
	}
	return domain.Internal(doing, err)
}

// IsRefusal reports whether err is about the event, which is never accepted as it is, rather than a
// failure to record it.
func IsRefusal(err error) bool {
	switch domain.KindOf(err) {
	case domain.KindInvalid, domain.KindMalformed, domain.KindConflict, domain.KindTooLarge:
		return true
	}
	return false
}

// Now is the database's time.
func (c *Commands) Now() time.Time { return c.Log.Clock().Now() }
