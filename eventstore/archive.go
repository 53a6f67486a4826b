package eventstore

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// The beginning of the log may be in archives (see commands/archive). The database keeps
// what of it something still needs, and all that is not of the clinic's events or their
// deliveries. Archives follow one another, and are restored in the opposite order.

// ArchiveStream says what was archived, and restored.
const ArchiveStream = "archive-00000000-0000-0000-0000-000000000000"

// ErrArchived says that the unit goes on with what is archived: nothing was appended.
var ErrArchived = errors.New("what this is about is archived")

// codes of medilab.refuse_archived and of medilab.check_archiving.
const (
	codeArchived    = "MA001"
	codeNeededAgain = "MA002"
)

// IsNeededAgain reports whether an append that records an archive was refused because some
// of what it drops is needed again.
func IsNeededAgain(err error) bool { return HasCode(err, codeNeededAgain) }

// Cut is an archived range of the log, as its entry says (domain.LogArchived).
type Cut struct {
	First      Position  `json:"first"`
	Last       Position  `json:"archived_to"`
	To         time.Time `json:"to"` // when its last entry was recorded
	SealBefore Seal      `json:"seal_before"`
	Seal       Seal      `json:"seal"`
	Kept       Seal      `json:"kept"` // see KeptHash
	Totals     string    `json:"totals"`
	Manifest   string    `json:"manifest"`
}

// querier is a pool or a connection.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Cuts returns the ranges that are archived now, in order, and the version of their stream.
func (l *Log) Cuts(ctx context.Context) (cuts []Cut, version int64, err error) {
	return cutsOf(ctx, l.pool)
}

func cutsOf(ctx context.Context, db querier) (cuts []Cut, version int64, err error) {
	rows, _ := db.Query(ctx, `SELECT type, version, data FROM medilab.events WHERE stream = $1 ORDER BY version`, ArchiveStream)
	var name string
	var data []byte
	_, err = pgx.ForEachRow(rows, []any{&name, &version, &data}, func() error {
		var cut Cut
		if err := json.Unmarshal(data, &cut); err != nil {
			return err
		}
		if name == "log.archived" {
			cuts = append(cuts, cut)
		} else if len(cuts) > 0 {
			cuts = cuts[:len(cuts)-1]
		}
		return nil
	})
	return cuts, version, Doing("read what is archived", err)
}

// ArchivedTo returns the last position that is archived, or 0.
func (l *Log) ArchivedTo(ctx context.Context) (to Position, err error) {
	err = l.pool.QueryRow(ctx, `SELECT medilab.archived_to()`).Scan(&to)
	return to, Doing("read what is archived", err)
}

// explainGap returns up to where the log is archived, and a *GapError unless that covers the
// positions.
func (l *Log) explainGap(ctx context.Context, first, last Position) (archived Position, err error) {
	archived, err = l.ArchivedTo(ctx)
	if err == nil && last > archived {
		err = &GapError{Position: max(first, archived+1)}
	}
	return archived, err
}

// pastArchive returns the events of a page up to a position that begins with a gap, if that
// is archived.
func (l *Log) pastArchive(ctx context.Context, after, to Position, events []Event) ([]Event, error) {
	for i := range events {
		if events[i].Position > to {
			events = events[:i]
			break
		}
	}
	end := to
	if len(events) > 0 {
		end = events[0].Position - 1
	}
	_, err := l.explainGap(ctx, after+1, end)
	return events, err
}

// SealRow is what the log keeps of one batch.
type SealRow struct {
	First      Position  `json:"first"`
	Last       Position  `json:"last"`
	RecordedAt time.Time `json:"recorded_at"`
	Seal       Seal      `json:"seal"`
	Resealed   Seal      `json:"resealed,omitempty"` // of entries that were encrypted since
}

// isEmpty reports whether it seals no events.
func (s *SealRow) isEmpty() bool { return s.Last < s.First }

// covers reports whether it is the seal of the events, after the seals before.
func (s *SealRow) covers(before, resealed Seal, events *digest) bool {
	if s.Resealed != nil {
		return bytes.Equal(sealOf(slices.Concat(resealed, before), *s, events), s.Resealed)
	}
	return bytes.Equal(sealOf(before, *s, events), s.Seal)
}

// Seals returns up to limit seals of batches that end after the position, in order.
func (l *Log) Seals(ctx context.Context, after Position, limit int) ([]SealRow, error) {
	return sealsBetween(ctx, l.pool, after, math.MaxInt64, limit)
}

// sealsBetween is Seals of batches that end up to another position.
func sealsBetween(ctx context.Context, db querier, after, to Position, limit int) ([]SealRow, error) {
	rows, _ := db.Query(ctx, `SELECT s.first_position, s.last_position, s.recorded_at, s.seal, r.seal
		FROM medilab.seals AS s LEFT JOIN medilab.resealed AS r USING (last_position)
		WHERE s.last_position > $1 AND s.last_position <= $2 ORDER BY s.last_position LIMIT $3`, after, to, limit)
	seals, err := pgx.CollectRows(rows, pgx.RowToStructByPos[SealRow])
	return seals, Doing("read seals", err)
}

// SealBefore returns the last batch that was recorded before the time; of none, the zero
// value.
func (l *Log) SealBefore(ctx context.Context, at time.Time) (s SealRow, err error) {
	err = l.pool.QueryRow(ctx, `SELECT first_position, last_position, recorded_at, seal FROM medilab.seals
		WHERE last_position <= medilab.position_before($1) ORDER BY last_position DESC LIMIT 1`, at).Scan(&s.First, &s.Last, &s.RecordedAt, &s.Seal)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return s, fmt.Errorf("find a time in the log: %w", err)
	}
	return s, nil
}

// Chain checks that entries are what was sealed, batch after batch.
type Chain struct {
	next   Position
	before Seal
	// resealed is that of the entries before, if they were encrypted since.
	resealed Seal
	first    Position // of the batch
	at       time.Time
	digest   *digest
}

// NewChain begins a chain at the position, after a seal, and that of entries that were
// encrypted since, if they were.
func NewChain(first Position, before, resealed Seal) *Chain {
	return &Chain{next: first, first: first, before: before, resealed: resealed, digest: newDigest()}
}

// Add takes in the next entry.
func (c *Chain) Add(e *Event) error {
	if e.Position != c.next {
		return fmt.Errorf("position %d follows %d", e.Position, c.next-1)
	}
	if c.first == e.Position {
		c.at = e.RecordedAt
	}
	if !e.RecordedAt.Equal(c.at) {
		return fmt.Errorf("position %d was not recorded with its batch", e.Position)
	}
	c.digest.add(e)
	c.next++
	return nil
}

// Close compares the batch with its seal.
func (c *Chain) Close(s SealRow) error {
	if s.First != c.first || s.Last != c.next-1 || !s.RecordedAt.Equal(c.at) || !s.covers(c.before, c.resealed, c.digest) {
		return fmt.Errorf("positions %d to %d are not what was sealed", s.First, s.Last)
	}
	c.end(s.Seal, s.Resealed)
	return nil
}

// reseal ends the batch, and returns what seals its entries as they are now.
func (c *Chain) reseal(s SealRow) Seal {
	now := sealOf(slices.Concat(c.resealed, c.before), s, c.digest)
	c.end(s.Seal, now)
	return now
}

func (c *Chain) end(sealed, resealed Seal) {
	c.before, c.resealed, c.first = sealed, resealed, c.next
	c.digest.Reset()
}

// addAll takes in whole batches, and calls end at the end of each.
func (c *Chain) addAll(events []Event, seals []SealRow, end func(SealRow) error) error {
	for i := range events {
		if err := c.Add(&events[i]); err != nil {
			return err
		}
		if len(seals) > 0 && seals[0].Last == events[i].Position {
			if err := end(seals[0]); err != nil {
				return err
			}
			seals = seals[1:]
		}
	}
	return nil
}

// Ends reports whether the chain has come to the seal.
func (c *Chain) Ends(at Position, seal Seal) bool {
	return c.next == at+1 && c.first == c.next && bytes.Equal(c.before, seal)
}

// staysSQL reads the log up to $2, without or with $4 the streams in medilab.archiving.
const staysSQL = `SELECT ` + eventColumns + ` FROM medilab.events AS e WHERE position > $1 AND position <= $2
	AND EXISTS (SELECT FROM medilab.archiving AS a WHERE a.stream = e.stream AND a.cut <= $5) = $4 ORDER BY position LIMIT $3`

// eachUpTo calls yield for what stays of the log up to the position when what is archived up
// to the cut goes, or for what goes.
func eachUpTo(ctx context.Context, db querier, to, cut Position, goes bool, yield func(*Event) error) error {
	const page = 1000
	for after, n := Position(0), page; n == page; {
		rows, err := db.Query(ctx, staysSQL, after, to, page, goes, cut)
		n = 0
		err = stream(rows, err, func(e Event) error {
			after = e.Position
			n++
			return yield(&e)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// EachArchiving calls yield for what goes of the log up to the position, in order.
func (l *Log) EachArchiving(ctx context.Context, to, cut Position, yield func(*Event) error) error {
	return eachUpTo(ctx, l.pool, to, cut, true, yield)
}

func hashKept(h *digest, e *Event) {
	fmt.Fprintf(h, "%d %d ", e.Position, e.RecordedAt.UnixMicro())
	h.add(e)
}

// KeptHash returns the SHA-256 of what stays of the log up to the cut, and of how many
// entries.
func (l *Log) KeptHash(ctx context.Context, cut Position) (sum string, n int64, err error) {
	h := newDigest()
	err = eachUpTo(ctx, l.pool, cut, cut, false, func(e *Event) error {
		hashKept(h, e)
		n++
		return nil
	})
	return hex.EncodeToString(h.Sum(nil)), n, err
}

// archived checks what is kept of the archived beginning of the log, and lets the check of
// the seals begin after it.
func (v *verifier) archived(ctx context.Context) error {
	cuts, _, err := cutsOf(ctx, v.db)
	if err != nil || len(cuts) == 0 {
		return err
	}
	next, before := Position(1), Seal{}
	for _, cut := range cuts {
		if cut.First != next || !bytes.Equal(cut.SealBefore, before) {
			v.damage(FlawSeal, cut.First, "", "the archive from %d to %d does not follow the one before it", cut.First, cut.Last)
		}
		next, before = cut.Last+1, cut.Seal
	}
	last := cuts[len(cuts)-1]
	h := newDigest()
	err = eachUpTo(ctx, v.db, last.Last, last.Last, false, func(e *Event) error {
		hashKept(h, e)
		if v.log.config.Codec.decode(e); e.Err != nil {
			v.damage(FlawUndecoded, e.Position, e.Stream, "the event does not decode: %v", e.Err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if !bytes.Equal(h.Sum(nil), last.Kept) {
		v.damage(FlawSeal, last.Last, "", "what is kept of the archived positions 1 to %d is not what was kept when they were archived", last.Last)
	}
	var sealed Seal
	err = v.db.QueryRow(ctx, `SELECT seal FROM medilab.seals WHERE last_position = $1`, last.Last).Scan(&sealed)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("verify the log: %w", err)
	}
	if !bytes.Equal(sealed, last.Seal) {
		v.damage(FlawSeal, last.Last, "", "the seal at %d is not the one of the archive that ends there", last.Last)
	}
	v.next, v.before = last.Last+1, last.Seal
	v.resealed, err = resealedAt(ctx, v.db, last.Last)
	return err
}

// ListsUndone is the stream of the row of medilab.archiving that is in force while lists of what the log
// holds are not rebuilt after an archive was recorded, or restored. Under "~~" they are rebuilt, and space is
// still to be freed.
const ListsUndone = "~"

// ListsRebuilt notes that this is done, and leaves the note that space is to be freed.
var ListsRebuilt = Statement{SQL: `UPDATE medilab.archiving SET stream = stream || '~' WHERE stream = $1 AND cut <= medilab.archived_to()`, Args: []any{ListsUndone}}

// ListsBehind reports whether such a row is in force.
func (l *Log) ListsBehind(ctx context.Context) (behind bool, err error) {
	err = l.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM medilab.archiving WHERE stream = $1 AND cut <= medilab.archived_to())`, ListsUndone).Scan(&behind)
	return behind, Doing("read what is archived", err)
}

// DropArchived drops the next streams that are archived, after the given one, and returns the
// last of them; "": all are gone.
func (l *Log) DropArchived(ctx context.Context, after string, streams int) (last string, err error) {
	err = l.pool.QueryRow(ctx, `SELECT coalesce(medilab.drop_archived($1, $2), '')`, after, streams).Scan(&last)
	return last, Doing("drop what is archived", err)
}

// Restore puts entries and seals of an archive back, which are in force with log.restored.
// Those that are there already stay as they are.
func (l *Log) Restore(ctx context.Context, events []Event, seals []SealRow) error {
	var c columns
	c.fill(events)
	positions, times := make([]int64, len(events)), make([]time.Time, len(events))
	for i := range events {
		positions[i], times[i] = int64(events[i].Position), events[i].RecordedAt
	}
	var q pgx.Batch
	// Until they are in force they are as what is still to be dropped.
	q.Queue(`INSERT INTO medilab.archiving (stream, event, cut)
		SELECT DISTINCT s, right(s, 36)::uuid, medilab.archived_to() FROM unnest($1::text[], $2::bigint[]) AS e (s, p)
		WHERE NOT EXISTS (SELECT FROM medilab.events AS k WHERE k.position = e.p)
		ON CONFLICT DO NOTHING`, c.streams, positions)
	q.Queue(`INSERT INTO medilab.events (position, stream, version, type, data, metadata, recorded_at)
		SELECT p, s, v, t, d, m::json, r FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bytea[], $5::text[], $6::bigint[], $7::timestamptz[])
			AS e (s, v, t, d, m, p, r)
		ON CONFLICT (position) DO NOTHING`, c.streams, c.versions, c.types, c.data, c.metadata, positions, times)
	for _, s := range seals {
		q.Queue(`INSERT INTO medilab.seals (first_position, last_position, recorded_at, seal) VALUES ($1, $2, $3, $4)
			ON CONFLICT (last_position) DO NOTHING`, s.First, s.Last, s.RecordedAt, []byte(s.Seal))
	}
	err := l.pool.SendBatch(ctx, &q).Close()
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok && refused.Code == uniqueViolation {
		return fmt.Errorf("an event was accepted again under an id that is archived, so that the archive cannot be restored: %s", refused.Detail)
	}
	if err != nil {
		return fmt.Errorf("restore positions %d to %d: %w", events[0].Position, events[len(events)-1].Position, err)
	}
	return nil
}
