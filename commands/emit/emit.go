// Package emit lets a clinic's own service emit webhook events inside its own Postgres
// transaction: an event exists if and only if that transaction commits.
//
//	ids, err := emit.Emit(ctx, tx, emit.Event{
//		Type: "patient.created",
//		Data: json.RawMessage(`{"patient_id": 123}`),
//	})
//
// The database must be the one that MediLab Webhooks uses, and its owner must have let the role
// emit: SELECT medilab.allow_emit('role'). The package links nothing of the
// server: beyond the standard library only google/uuid and pgx's pgconn, without which a
// pgx.Tx cannot be recognized. Package emitwatermill has a Watermill publisher.
package emit

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
)

// Event is something that happened in the clinic.
type Event struct {
	// Type is one of the known event types, such as patient.created.
	Type string
	// Data is a JSON object of at most 10 MB; receivers get it byte for byte.
	Data json.RawMessage
	// CorrelationID is the caller's own, to find the event by; may be empty.
	CorrelationID string
	// Source says where the event comes from; empty means "go".
	Source string
	// ID makes emitting the same event twice harmless. If zero, Emit assigns one. If another caller
	// has used it already, the event gets a new one and keeps this as client_event_id.
	ID uuid.UUID
	// OccurredAt is when it happened, not in the future. If zero, that is now.
	OccurredAt time.Time
}

// New returns an event whose data is v encoded by encoding/json without HTML escaping.
func New(eventType string, v any) (Event, error) {
	var data strings.Builder
	encoder := json.NewEncoder(&data)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return Event{}, fmt.Errorf("encode the data of %s: %w", eventType, err)
	}
	return Event{Type: eventType, Data: json.RawMessage(strings.TrimSuffix(data.String(), "\n"))}, nil
}

// Emit emits the events in the transaction tx, a pgx.Tx or a *sql.Tx of any Postgres driver,
// and returns their ids in the same order. With a connection or a pool instead (*pgx.Conn,
// *pgxpool.Pool, *sql.Conn, *sql.DB) all events are emitted in one transaction of their own.
// Any number of events takes one round trip; without events, Emit only checks tx's type.
//
// An unknown type and data that are not a JSON object are refused at once with the database's
// error, after which the transaction can only be rolled back, as after any error in Postgres.
func Emit(ctx context.Context, tx any, events ...Event) ([]uuid.UUID, error) {
	exec, err := execOf(tx)
	if err != nil || len(events) == 0 {
		return nil, err
	}
	ids := make([]uuid.UUID, len(events))
	var types, data, correlations, idTexts, sources, times array
	for i, e := range events {
		if !json.Valid(e.Data) {
			return nil, fmt.Errorf("emit %s: the data of event %d is not JSON", e.Type, i+1)
		}
		if e.ID == uuid.Nil {
			e.ID = uuid.Must(uuid.NewV7())
		}
		if e.Source == "" {
			e.Source = "go"
		}
		ids[i] = e.ID
		types.add(e.Type)
		data.add(string(e.Data))
		correlations.add(e.CorrelationID)
		idTexts.add(e.ID.String())
		sources.add(e.Source)
		at := ""
		if !e.OccurredAt.IsZero() {
			at = e.OccurredAt.UTC().Format(time.RFC3339Nano)
		}
		times.add(at)
	}
	if err := exec(ctx, statement, types.text(), data.text(), correlations.text(), idTexts.text(), sources.text(), times.text()); err != nil {
		return nil, fmt.Errorf("emit: %w", err)
	}
	return ids, nil
}

// Arrays are passed as text, which every driver can send. unnest returns rows in order, so the
// events are emitted in order.
const statement = `
	SELECT medilab.emit(e.type, e.data::json, nullif(e.correlation_id, ''), e.id::uuid, e.source, nullif(e.occurred_at, '')::timestamptz)
	FROM unnest($1::text::text[], $2::text::text[], $3::text::text[], $4::text::text[], $5::text::text[], $6::text::text[])
		AS e (type, data, correlation_id, id, source, occurred_at)`

type pgxExecer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

type sqlExecer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// execOf returns a function that executes a statement in tx.
func execOf(tx any) (func(ctx context.Context, statement string, args ...any) error, error) {
	switch tx := tx.(type) {
	case pgxExecer:
		return func(ctx context.Context, statement string, args ...any) error {
			_, err := tx.Exec(ctx, statement, args...)
			return err
		}, nil
	case sqlExecer:
		return func(ctx context.Context, statement string, args ...any) error {
			_, err := tx.ExecContext(ctx, statement, args...)
			return err
		}, nil
	}
	return nil, fmt.Errorf("emit: %T is neither a pgx.Tx nor a *sql.Tx", tx)
}

// array builds the text form of a Postgres text[] that is not empty.
type array struct{ b strings.Builder }

var escapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

func (a *array) add(element string) {
	if a.b.Len() == 0 {
		a.b.WriteString(`{"`)
	} else {
		a.b.WriteString(`,"`)
	}
	a.b.WriteString(escapes.Replace(element))
	a.b.WriteByte('"')
}

func (a *array) text() string { return a.b.String() + "}" }
