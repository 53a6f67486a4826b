package eventstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// Flaw is a kind of damage to the log. It is a closed set.
type Flaw string

// What can be wrong with a log.
const (
	FlawGap       Flaw = "gap"       // a position is missing
	FlawSeal      Flaw = "seal"      // events are not what was sealed when they were appended
	FlawVersion   Flaw = "version"   // a stream's versions are not 1, 2, ...
	FlawUndecoded Flaw = "undecoded" // an event does not decode
	FlawSchema    Flaw = "schema"    // a table is not what keeps the log unchanged
)

// Damage is one thing that is wrong with the log.
type Damage struct {
	Flaw     Flaw
	Position Position // where, or the first of where; 0: a whole stream
	Stream   string
	Text     string // in words
}

// seal is one row of medilab.seals.
type seal struct {
	first, last Position
	recordedAt  time.Time
	sum         []byte
	resealed    []byte // of entries that were encrypted since; see encrypt.go
}

// covers reports whether it is the seal of the events, after the seals before.
func (s *seal) covers(before, resealed Seal, events hash.Hash) bool {
	if s.resealed != nil {
		return bytes.Equal(sealOf(slices.Concat(resealed, before), *s, events), s.resealed)
	}
	return bytes.Equal(sealOf(before, *s, events), s.sum)
}

// Verify checks the whole log up to its present head: that its tables are what keeps it
// unchanged, that no position is missing, that every event is what was sealed when it was
// appended, decodes, and has the version that its place in its stream demands. It reports
// what is wrong and goes on; the error is that the checking failed. Memory is constant.
func (l *Log) Verify(ctx context.Context, report func(Damage), progress func(done, total Position)) error {
	pooled, err := l.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("verify the log: %w", err)
	}
	// A search path may put others before the functions and operators of Postgres.
	db := pooled.Hijack()
	defer db.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it only reads
	if _, err := db.Exec(ctx, `SET search_path = pg_catalog`); err != nil {
		return fmt.Errorf("verify the log: %w", err)
	}
	// What is up to the head does not change, so no transaction need be open for as
	// long as this takes.
	v := verifier{log: l, db: db, report: report, progress: progress, next: 1, digest: sha256.New()}
	if err := v.schema(ctx); err != nil {
		return err
	}
	if ok, err := v.ends(ctx); err != nil || !ok {
		return err
	}
	if err := v.archived(ctx); err != nil {
		return err
	}
	if err := v.encrypted(ctx); err != nil {
		return err
	}
	if err := v.seals(ctx); err != nil {
		return err
	}
	return v.versions(ctx)
}

// ends reads the head, and reports rows where no append puts one: who reads by position
// does not see them, who reads a stream does.
func (v *verifier) ends(ctx context.Context) (ok bool, err error) {
	var heads, events, seals int64
	err = v.db.QueryRow(ctx, `SELECT h.position, h.last_seal, (SELECT count(*) FROM medilab.log_head),
			(SELECT count(*) FROM medilab.events WHERE position < 1 OR position > h.position OR position IS NULL),
			(SELECT count(*) FROM medilab.seals WHERE last_position < 1 OR last_position > h.position OR last_position IS NULL)
		FROM medilab.log_head AS h`).Scan(&v.head, &v.headSeal, &heads, &events, &seals)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		v.damage(FlawSeal, 0, "", "the log has no head")
		return false, nil
	case err != nil:
		return false, fmt.Errorf("verify the log: %w", err)
	}
	for name, n := range map[string]int64{"events": events, "seals": seals} {
		if n > 0 {
			v.damage(FlawSeal, 0, "", "medilab.%s holds rows before position 1 or behind the log's head, %d, that the log did not append: %d", name, v.head, n)
		}
	}
	if heads > 1 {
		v.damage(FlawSeal, 0, "", "the log has %d heads", heads)
	}
	return true, nil
}

// verifier walks the log and its seals side by side.
type verifier struct {
	log      *Log
	db       *pgx.Conn
	report   func(Damage)
	progress func(done, total Position)
	head     Position
	headSeal []byte

	next   Position // that should come
	before []byte   // the seal before
	digest hash.Hash

	resealed []byte // the seal before of encrypted entries
	replaced struct {
		To   Position `json:"encrypted_to"`
		Seal Seal     `json:"seal"`
	}

	page []Event // read ahead
	read Position
}

func (v *verifier) damage(flaw Flaw, at Position, stream, text string, args ...any) {
	v.report(Damage{Flaw: flaw, Position: at, Stream: stream, Text: fmt.Sprintf(text, args...)})
}

// seals goes through the batches as they were sealed.
func (v *verifier) seals(ctx context.Context) error {
	const page = 1000
	last := v.next - 1
	for {
		rows, _ := v.db.Query(ctx, `SELECT s.first_position, s.last_position, s.recorded_at, s.seal, r.seal
			FROM medilab.seals AS s LEFT JOIN medilab.resealed AS r USING (last_position)
			WHERE s.last_position > $1 AND s.last_position <= $2 ORDER BY s.last_position LIMIT $3`, last, v.head, page)
		list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s seal, err error) {
			err = row.Scan(&s.first, &s.last, &s.recordedAt, &s.sum, &s.resealed)
			return s, err
		})
		if err != nil {
			return fmt.Errorf("verify the log: %w", err)
		}
		for _, s := range list {
			if err := v.batch(ctx, s); err != nil {
				return err
			}
			last = s.last
		}
		v.progress(last, v.head)
		if len(list) < page {
			break
		}
	}
	if last < v.head {
		return v.batch(ctx, seal{first: last + 1, last: v.head})
	}
	if !bytes.Equal(v.before, v.headSeal) {
		v.damage(FlawSeal, last, "", "the last seal, up to %d, is not the one that the log's head holds", last)
	}
	return nil
}

// batch checks the events of one seal. Without a sum the seal is missing; the next one
// says then whether the events are what they were.
func (v *verifier) batch(ctx context.Context, s seal) error {
	if s.first != v.next {
		v.damage(FlawSeal, v.next, "", "the seal up to %d starts at %d: it should at %d", s.last, s.first, v.next)
	}
	v.digest.Reset()
	whole, sameTime := true, true
	for at := s.first; at <= s.last; {
		e, ok, err := v.event(ctx, at)
		if err != nil {
			return err
		}
		if !ok || e.Position > s.last {
			v.damage(FlawGap, at, "", "positions %d to %d are missing", at, s.last)
			whole = false
			break
		}
		if e.Position > at {
			v.damage(FlawGap, at, "", "positions %d to %d are missing", at, e.Position-1)
			whole = false
		}
		v.page = v.page[1:]
		hashEvent(v.digest, &e)
		sameTime = sameTime && e.RecordedAt.Equal(s.recordedAt)
		if e.Err != nil {
			v.damage(FlawUndecoded, e.Position, e.Stream, "the event does not decode: %v", e.Err)
		}
		at = e.Position + 1
	}
	v.next = s.last + 1
	if s.sum == nil {
		v.damage(FlawSeal, s.first, "", "positions %d to %d are not sealed", s.first, s.last)
		v.before = v.sum(s)
		return nil
	}
	v.checkRecord(s)
	if whole && (!sameTime || !s.covers(v.before, v.resealed, v.digest)) {
		v.damage(FlawSeal, s.first, "", "positions %d to %d are not what was sealed at %s", s.first, s.last, s.recordedAt.UTC().Format(time.RFC3339Nano))
	}
	v.before, v.resealed = s.sum, s.resealed
	return nil
}

func (v *verifier) sum(s seal) []byte { return sealOf(v.before, s, v.digest) }

// sealOf computes the seal as the append did, see appendSQL.
func sealOf(before []byte, s seal, events hash.Hash) []byte {
	all := sha256.New()
	all.Write(before)
	var number [8]byte
	binary.BigEndian.PutUint64(number[:], uint64(s.first))
	all.Write(number[:])
	binary.BigEndian.PutUint64(number[:], uint64(s.recordedAt.UnixMicro()))
	all.Write(number[:])
	all.Write(events.Sum(nil))
	return all.Sum(nil)
}

// event returns the first event at the position or after it.
func (v *verifier) event(ctx context.Context, at Position) (Event, bool, error) {
	for len(v.page) > 0 && v.page[0].Position < at {
		v.page = v.page[1:]
	}
	for len(v.page) == 0 && v.read < v.head {
		if err := v.readPage(ctx, max(v.read, at-1)); err != nil {
			return Event{}, false, err
		}
	}
	if len(v.page) == 0 {
		return Event{}, false, nil
	}
	return v.page[0], true, nil
}

// readPage reads what follows the position.
func (v *verifier) readPage(ctx context.Context, after Position) (err error) {
	const most = 2000
	if v.page, err = readPage(ctx, v.db, after, v.head, most); err != nil {
		return err
	}
	if err := v.log.open(ctx, v.page); err != nil {
		return err
	}
	v.read = v.head
	if n := len(v.page); n > 0 {
		v.read = v.page[n-1].Position
	}
	return nil
}

// versions looks for streams with holes. The index of streams has them in
// order, so the database needs no memory for it either.
func (v *verifier) versions(ctx context.Context) error {
	tx, err := v.db.Begin(ctx)
	if err != nil {
		return fmt.Errorf("verify the log: %w", err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // it only reads: nothing to undo
	// The order of the index is the order of the window: nothing is sorted.
	if _, err := tx.Exec(ctx, `SET LOCAL enable_seqscan = off`); err != nil {
		return fmt.Errorf("verify the log: %w", err)
	}
	rows, _ := tx.Query(ctx, `
		SELECT stream, version, before FROM (
			SELECT stream, version, lag(version, 1, 0::bigint) OVER (PARTITION BY stream ORDER BY version) AS before FROM medilab.events
		) AS v WHERE version <> before + 1`)
	var stream string
	var version, before int64
	_, err = pgx.ForEachRow(rows, []any{&stream, &version, &before}, func() error {
		v.damage(FlawVersion, 0, stream, "version %d of %s follows version %d", version, stream, before)
		return nil
	})
	if err != nil {
		return fmt.Errorf("verify the log: %w", err)
	}
	return nil
}
