// Package projections keeps the read models: tables that answer questions about
// the log quickly. Each is a file with its shape, how a page of the log changes
// it, and its queries; models lists them all.
package projections

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/eventstore"
)

// Model is one read model.
type Model struct {
	Name string
	// SchemaVersion changes when the tables or how they are filled do, so that a database
	// filled by another version is rebuilt. Make it the number of the migration that comes
	// with it: there must be one, as the newest schema's node keeps the read models.
	SchemaVersion int
	// Tables are its tables in the schema medilab. A rebuild fills shadows of them.
	Tables []string
	// Totals says that they add up what the log holds, and still do when that is archived:
	// then a rebuild begins with what they were at the archive's end. Other models list what
	// the log holds now.
	Totals bool
	// New returns what fills the tables.
	New func(Tables) Projection
}

// Projection turns pages of the log into changes of its tables.
type Projection interface {
	// Project returns the few multi-row statements by which the page changes the
	// tables. It may read the tables of its own model, and the log up to the page,
	// so that what it makes of a log is always the same.
	//
	// Every event's Value is a domain.Change. An error means that the page is tried
	// again; an event whose statements the database refuses is dead-lettered.
	Project(ctx context.Context, db Querier, events []eventstore.Event) ([]eventstore.Statement, error)
}

// Querier reads in the transaction that the page is applied in. The error of Query is also
// that of its rows, so that those who collect them do without it.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// models are all read models, in the order in which they are applied.
var models = []Model{
	webhooksModel,
	callsModel,
	eventsModel,
	deliveriesModel,
	statsModel,
	alertsModel,
	accessModel,
	replaysModel,
	subjectsModel,
}

// Names lists the read models.
func Names() []string {
	return mapped(models, func(m Model) string { return m.Name })
}

// Tables are the tables of read models that are filled: the live ones, or their
// shadows.
type Tables struct{ suffix string }

// SQL returns a statement for these tables, which the text names as {table}.
func (t Tables) SQL(text string) string {
	return strings.NewReplacer("{", "medilab.", "}", t.suffix).Replace(text)
}

// list returns the named tables as a list in SQL.
func (t Tables) list(names []string) string {
	return t.SQL("{" + strings.Join(names, "}, {") + "}")
}

// mapped returns the values of rows.
func mapped[R, T any](rows []R, value func(R) T) []T {
	values := make([]T, len(rows))
	for i, r := range rows {
		values[i] = value(r)
	}
	return values
}

var doing = eventstore.Doing

// orNil returns a pointer to the value, nil for the zero value.
func orNil[T comparable](value T) *T {
	if value == *new(T) {
		return nil
	}
	return &value
}

// hash31 is the FNV-1a hash of an event type or a correlation id in 31 bits. Two
// that collide only cost a list some rows that it drops again.
func hash31(s string) int32 {
	h := uint32(2166136261)
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * 16777619
	}
	return int32((h ^ h>>31) & 0x7fffffff)
}

// hashOrNil is hash31, nil for no text.
func hashOrNil(s string) *int32 {
	if s == "" {
		return nil
	}
	return new(hash31(s))
}
