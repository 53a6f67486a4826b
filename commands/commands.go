package commands

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/commands/vault"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// Commands is what can be asked of the system: a method a use case. All fields
// are required. Safe for concurrent use.
type Commands struct {
	Log       *eventstore.Log
	Directory *Directory
	Vault     *vault.Vault
	Catalog   domain.Catalog
	Attempter *Attempter
	Pool      *pgxpool.Pool // for what is no stream: webhook numbers, the queue
}

// Caller is who asks; it stands in the metadata of what follows.
type Caller struct {
	Actor     string // the token's name, or the part of the system that asks
	RequestID string
}

func (c Caller) metadata() eventstore.Metadata {
	return eventstore.Metadata{Actor: c.Actor, RequestID: c.RequestID}
}

// races is how often a use case decides again after another writer was first.
const races = 20

// append records the changes in the stream that holds expected events.
func (c *Commands) append(ctx context.Context, caller Caller, stream string, expected int64, changes []domain.Change) (eventstore.Appended, error) {
	appended, err := c.Log.Append(ctx, eventstore.Unit{Writes: []eventstore.Write{{
		Stream: stream, Expected: expected, Events: newEvents(changes), Metadata: caller.metadata(),
	}}})
	if err != nil {
		return eventstore.Appended{}, err
	}
	return appended, c.settle(ctx, appended)
}

// settle makes sure that the directory has what was just appended, also when
// another process appended in between.
func (c *Commands) settle(ctx context.Context, appended eventstore.Appended) error {
	if c.Directory.Position() >= appended.First {
		return nil
	}
	return c.Directory.CatchUp(ctx)
}

func newEvents(changes []domain.Change) []eventstore.NewEvent {
	events := make([]eventstore.NewEvent, len(changes))
	for i, change := range changes {
		events[i] = eventstore.NewEvent{Type: change.ChangeType(), Data: change.AppendJSON(nil), Value: change}
	}
	return events
}

// Failed gives a failure of the log or the database the kind that tells a caller
// what to do: later when they could not be reached, nothing when they refused
// what we asked. Errors that have a kind keep it.
func Failed(doing string, err error) error {
	var known *domain.Error
	var refused *pgconn.PgError
	switch {
	case err == nil, errors.As(err, &known):
		return err
	case eventstore.IsConflict(err):
		return &domain.Error{Kind: domain.KindConflict, Message: "others changed the same at the same time; try again", Err: fmt.Errorf("%s: %w", doing, err)}
	case errors.Is(err, eventstore.ErrBusy), errors.Is(err, eventstore.ErrUnavailable), errors.Is(err, eventstore.ErrClosed):
		return domain.Unavailable("the service cannot take this now; try again", fmt.Errorf("%s: %w", doing, err))
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return domain.Unavailable("the service took too long; try again", fmt.Errorf("%s: %w", doing, err))
	case errors.As(err, &refused) && !outage(refused):
		return domain.Internal(doing, err)
	case refused != nil || pgconn.Timeout(err) || connectionLost(err):
		return domain.Unavailable("the database cannot be reached; try again", fmt.Errorf("%s: %w", doing, err))
	}
	return domain.Internal(doing, err)
}

// outage tells by the class of its SQLSTATE a server that cannot serve now from
// one that refused what it was asked.
func outage(e *pgconn.PgError) bool {
	switch e.Code[:min(2, len(e.Code))] {
	case "08", "25", "40", "53", "55", "57", "58": // connection, role, rollback, resources, locks, operator, system
		return true
	}
	return false
}

// connectionLost tells failures of the way to the server, before or in an answer.
func connectionLost(err error) bool {
	var connect *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &connect) || errors.As(err, &network) || pgconn.SafeToRetry(err) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

// Now is the database's time.
func (c *Commands) Now() time.Time { return c.Log.Clock().Now() }
