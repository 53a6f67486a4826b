// Package emit lets a clinic's own service emit webhook events inside its own Postgres
// transaction: an event exists if and only if that transaction commits.
//
//	ids, err := emit.Emit(ctx, tx, emit.Event{
//		Type: "patient.created",
//		Data: json.RawMessage(`{"patient_id": 123}`),
//	})
//
// It needs the database that the service webhooks uses, and a role with USAGE on the schema
// medilab and EXECUTE on the function medilab.emit; nothing else of this module comes with it.
package emit

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Event is something that happened in the clinic.
type Event struct {
	// Type is one of the known types, as in patient.created.
	Type string
	// Data is a JSON object of at most 10 MB; receivers get it byte for byte.
	Data json.RawMessage
	// CorrelationID is the caller's own, to find the event again; may be empty.
	CorrelationID string
	// Source says where the event comes from; empty is "go".
	Source string
	// ID makes emitting the same event twice harmless. Zero: Emit makes one.
	ID uuid.UUID
}

// New makes an event whose data is v as encoding/json writes it, without escaping HTML.
func New(eventType string, v any) (Event, error) {
	var data strings.Builder
	encoder := json.NewEncoder(&data)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return Event{}, fmt.Errorf("encode the data of %s: %w", eventType, err)
	}
	return Event{Type: eventType, Data: json.RawMessage(strings.TrimSuffix(data.String(), "\n"))}, nil
}

// PgxQuerier is what Emit needs of pgx: a pgx.Tx, *pgx.Conn or *pgxpool.Pool.
type PgxQuerier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// SQLQuerier is what Emit needs of database/sql, with any Postgres driver: a *sql.Tx,
// *sql.Conn or *sql.DB.
type SQLQuerier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// Emit emits the events in the transaction tx, a pgx.Tx or a *sql.Tx, and returns their ids in
// the same order. Given a connection or a pool instead, it is a transaction of its own. Many
// events take one round trip.
//
// An unknown type and data that is no JSON object are refused at once with the database's
// error; as with every error in Postgres the transaction can then only be rolled back.
func Emit(ctx context.Context, tx any, events ...Event) ([]uuid.UUID, error) {
	emit, err := on(tx)
	if err != nil {
		return nil, err
	}
	ids := make([]uuid.UUID, len(events))
	events = append([]Event(nil), events...)
	for i := range events {
		e := &events[i]
		if !json.Valid(e.Data) {
			return nil, fmt.Errorf("emit %s: the data of event %d is not JSON", e.Type, i+1)
		}
		if e.ID == uuid.Nil {
			if e.ID, err = uuid.NewV7(); err != nil {
				return nil, fmt.Errorf("emit %s: make an id: %w", e.Type, err)
			}
		}
		if e.Source == "" {
			e.Source = "go"
		}
		ids[i] = e.ID
	}
	if len(events) == 0 {
		return ids, nil
	}
	if err := emit(ctx, statement, columns(events)); err != nil {
		return nil, fmt.Errorf("emit: %w", err)
	}
	return ids, nil
}

// Arrays go as text, which every driver can send. Rows come from unnest in its order, so the
// events are emitted in theirs.
const statement = `
	SELECT medilab.emit(e.type, e.data::json, nullif(e.correlation_id, ''), e.id::uuid, e.source)
	FROM unnest($1::text::text[], $2::text::text[], $3::text::text[], $4::text::text[], $5::text::text[])
		AS e (type, data, correlation_id, id, source)`

// run executes the statement and reads its rows to the end.
type run func(ctx context.Context, statement string, args []any) error

func on(tx any) (run, error) {
	switch tx := tx.(type) {
	case PgxQuerier:
		return func(ctx context.Context, statement string, args []any) error {
			rows, err := tx.Query(ctx, statement, args...)
			if err != nil {
				return err
			}
			rows.Close()
			return rows.Err()
		}, nil
	case SQLQuerier:
		return func(ctx context.Context, statement string, args []any) error {
			rows, err := tx.QueryContext(ctx, statement, args...)
			if err != nil {
				return err
			}
			for rows.Next() { // a driver may stop the statement when its rows are not read
			}
			return errors.Join(rows.Err(), rows.Close())
		}, nil
	}
	return nil, fmt.Errorf("emit: %T is neither a pgx.Tx nor a *sql.Tx", tx)
}

func columns(events []Event) []any {
	var types, data, correlations, ids, sources array
	for _, e := range events {
		types.add(e.Type)
		data.add(string(e.Data))
		correlations.add(e.CorrelationID)
		ids.add(e.ID.String())
		sources.add(e.Source)
	}
	return []any{types.text(), data.text(), correlations.text(), ids.text(), sources.text()}
}

// array builds the text form of a Postgres text[].
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
