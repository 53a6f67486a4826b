package eventstore

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Seal is what a batch was sealed with. It covers every event before it.
type Seal []byte

// MarshalText writes hex.
func (s Seal) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, s), nil }

// UnmarshalText reads hex.
func (s *Seal) UnmarshalText(text []byte) (err error) {
	*s, err = hex.DecodeString(string(text))
	return err
}

// Anchor is the log's seal at a time, to be kept where nobody who can change the
// database can change it. Who owns the database can cut off the log's end, or
// rewrite it all and seal it again; what an anchor says cannot be made true again.
type Anchor struct {
	Position   Position  `json:"position"`
	Seal       Seal      `json:"seal"`
	RecordedAt time.Time `json:"recorded_at"`
}

// ErrEmpty says that the log holds nothing yet.
var ErrEmpty = errors.New("the log is empty")

// Anchor returns the log's present end, or ErrEmpty.
func (l *Log) Anchor(ctx context.Context) (Anchor, error) {
	var a Anchor
	err := l.pool.QueryRow(ctx, `SELECT position, last_seal, recorded_at FROM medilab.log_head`).Scan(&a.Position, &a.Seal, &a.RecordedAt)
	if err != nil {
		return Anchor{}, fmt.Errorf("read the log's end: %w", err)
	}
	if a.Position == 0 {
		return Anchor{}, ErrEmpty
	}
	a.RecordedAt = a.RecordedAt.UTC()
	return a, nil
}

// CheckAnchor returns what contradicts the anchor; "" when nothing does. That the
// events are what their seals say is for Verify to check.
func (l *Log) CheckAnchor(ctx context.Context, a Anchor) (string, error) {
	var head Position
	var seal Seal
	err := l.pool.QueryRow(ctx, `SELECT h.position, s.seal FROM medilab.log_head AS h LEFT JOIN medilab.seals AS s ON s.last_position = $1`, a.Position).Scan(&head, &seal)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return "the log has no head", nil
	case err != nil:
		return "", fmt.Errorf("check an anchor: %w", err)
	case head < a.Position:
		return fmt.Sprintf("the log ends at %d, and was anchored at %d on %s: its end was cut off", head, a.Position, a.RecordedAt.UTC().Format(time.RFC3339)), nil
	case seal == nil:
		if to, err := l.ArchivedTo(ctx); err != nil || a.Position < to {
			return "", err // the archive has it, see Verify
		}
		fallthrough
	case !bytes.Equal(seal, a.Seal):
		return fmt.Sprintf("the seal at %d is not the one that was anchored on %s: events up to there were rewritten", a.Position, a.RecordedAt.UTC().Format(time.RFC3339)), nil
	}
	return "", nil
}
