// Package eventstore is the log: an append-only table in Postgres with dense
// positions in commit order, optimistic locking a stream, group commit, and
// readers that apply each page exactly once. It knows no domain event.
package eventstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Position is an event's place in the log: 1, 2, 3, ... without gaps, in the
// order of commits.
type Position int64

// Event is one entry of the log.
type Event struct {
	Position   Position
	Stream     string
	Version    int64 // 1, 2, ... in its stream
	Type       string
	Data       []byte // JSON, byte for byte as it was appended
	Metadata   []byte // JSON; see Metadata
	RecordedAt time.Time

	// Value is Data decoded by the log's Codec, nil when Err says why not.
	Value any
	Err   error
}

// NewEvent is an event to append. Value, when given, spares readers in this
// process from decoding Data.
type NewEvent struct {
	Type  string
	Data  []byte
	Value any
}

// Write appends events to one stream that must hold Expected events now, as its
// last load said. 0: the stream must be new.
type Write struct {
	Stream   string
	Expected int64
	Events   []NewEvent
	Metadata Metadata
}

// Statement is SQL that takes effect in the transaction of an append.
type Statement struct {
	SQL  string
	Args []any
	Rows func(pgx.Rows) error // reads what it returns, before the commit; nil: nothing
}

// Unit is appended whole or not at all.
type Unit struct {
	Writes []Write
	With   []Statement
	// Configuration, when set, is the configuration by which the unit was decided: the
	// unit is appended only while it is the current one, else the append returns
	// ErrConfigurationChanged.
	Configuration *Position
	// Generation, when set, is the log's generation in which the unit was decided: when
	// it is over, the append returns ErrTailLost.
	Generation int64
	// Keys encrypt events of the unit. The append stores those that are new.
	Keys []*DataKey
	// Rows is about how many rows the inline projections write for the unit beside its
	// events: they bound a batch.
	Rows int
}

// configures reports whether the stream is part of the configuration: log_head keeps the
// position of the last event of any of them. What destroys keys is, so that nothing is
// encrypted with a key that is gone.
func configures(stream string) bool {
	return strings.HasPrefix(stream, "webhook-") || strings.HasPrefix(stream, "subject-")
}

// IsConfiguration reports whether the stream is one of those that every process folds
// as the configuration: a webhook's, a token's or a subject's.
func IsConfiguration(stream string) bool {
	return configures(stream) || strings.HasPrefix(stream, "token-")
}

// configures reports whether the unit changes the configuration.
func (u *Unit) configures() bool {
	return slices.ContainsFunc(u.Writes, func(w Write) bool { return configures(w.Stream) })
}

// Appended says where and when a unit was recorded.
type Appended struct {
	First      Position // of the unit's first event
	RecordedAt time.Time
}

// Metadata is what the log keeps about how an event came to be.
type Metadata struct {
	Actor         string `json:"actor"`          // token name, or the part of the system that decided
	CorrelationID string `json:"correlation_id"` // the caller's
	CausationID   string `json:"causation_id"`   // the event that this one follows from
	RequestID     string `json:"request_id"`
}

// ReadMetadata returns what the event's metadata say; what they lack is empty.
func (e *Event) ReadMetadata() (Metadata, error) {
	var m Metadata
	if err := json.Unmarshal(e.Metadata, &m); err != nil {
		return Metadata{}, fmt.Errorf("metadata at %d: %w", e.Position, err)
	}
	return m, nil
}

// json returns the metadata's stored form; what is empty is left out.
func (m Metadata) json() []byte {
	const names = 80 // with their quotes
	dst := append(make([]byte, 0, names+len(m.Actor)+len(m.CorrelationID)+len(m.CausationID)+len(m.RequestID)), '{')
	field := func(name, value string) {
		if value == "" {
			return
		}
		if dst[len(dst)-1] != '{' {
			dst = append(dst, ',')
		}
		dst = append(dst, '"')
		dst = append(dst, name...)
		dst = append(dst, '"', ':')
		dst = appendString(dst, value)
	}
	field("actor", m.Actor)
	field("correlation_id", m.CorrelationID)
	field("causation_id", m.CausationID)
	field("request_id", m.RequestID)
	return append(dst, '}')
}

const hexDigits = "0123456789abcdef"

func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}

// ConflictError says that a stream did not hold the expected number of events:
// somebody else appended to it first.
type ConflictError struct {
	Stream   string
	Expected int64
}

func (e *ConflictError) Error() string {
	return "stream " + e.Stream + " holds other than " + strconv.FormatInt(e.Expected, 10) + " events"
}

// Errors of an append that did not happen, or of which nobody can say.
var (
	// ErrConfigurationChanged: the configuration is no longer the one that the unit
	// was decided by; nothing was appended; decide again.
	ErrConfigurationChanged = errors.New("the configuration has changed")
	// ErrBusy: the log cannot keep up; nothing was appended; try later.
	ErrBusy = errors.New("the log is busy")
	// ErrUnavailable: the database did not answer; the append may or may not
	// have happened.
	ErrUnavailable = errors.New("the log cannot be reached")
	// ErrClosed: the log is shut; nothing was appended.
	ErrClosed = errors.New("the log is closed")
)

// IsConflict reports whether err is a lost race.
func IsConflict(err error) bool {
	var conflict *ConflictError
	return errors.As(err, &conflict)
}

// Codec decodes stored events. It must be safe for concurrent use.
type Codec func(eventType string, data []byte) (any, error)

func (c Codec) decode(e *Event) {
	if c == nil || e.Value != nil {
		return
	}
	if e.Value, e.Err = c(e.Type, e.Data); e.Err != nil {
		e.Value = nil
		e.Err = fmt.Errorf("position %d: %w", e.Position, e.Err)
	}
}

// TextOf returns the text as it stands in stored metadata, without its quotes.
func TextOf(text string) string {
	quoted := appendString(nil, text)
	return string(quoted[1 : len(quoted)-1])
}
