package eventstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
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

// Verify checks the whole log up to its present head: that its tables are what keeps it
// unchanged, that no position is missing, that every event is what was sealed when it was
// appended, decodes, and has the version that its place in its stream demands. It reports
// what is wrong and goes on; the error is that the checking failed. Memory is constant.
func (l *Log) Verify(ctx context.Context, report func(Damage), progress func(done, total Position)) error {
	return l.VerifyEach(ctx, report, progress, func([]Event) {})
}

// VerifyEach is Verify that yields each page of entries that it reads: decoded and closed, as Scan's are,
// but whatever is wrong with them, and with the gaps that the log has.
func (l *Log) VerifyEach(ctx context.Context, report func(Damage), progress func(done, total Position), yield func(page []Event)) error {
	var conns [3]*pgx.Conn
	for i := range conns {
		var err error
		if conns[i], err = l.plainConn(ctx); err != nil {
			return err
		}
		defer conns[i].Close(context.WithoutCancel(ctx)) //nolint:errcheck // it only reads
	}
	// What is up to the head does not change, so no transaction need be open for as
	// long as this takes.
	v := verifier{log: l, db: conns[0], events: conns[1], streams: conns[2], report: report, progress: progress, yield: yield, next: 1, digest: newDigest()}
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
	ofVersions := make(chan error, 1)
	go func() { ofVersions <- v.versions(ctx) }()
	err := v.seals(ctx) // whatever becomes of the versions
	return errors.Join(err, <-ofVersions)
}

// plainConn returns a connection of its own that has no search path: one may put others before the
// functions and operators of Postgres.
func (l *Log) plainConn(ctx context.Context) (*pgx.Conn, error) {
	pooled, err := l.pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("verify the log: %w", err)
	}
	db := pooled.Hijack()
	if _, err := db.Exec(ctx, `SET search_path = pg_catalog`); err != nil {
		db.Close(context.WithoutCancel(ctx)) //nolint:errcheck // the one before says it
		return nil, fmt.Errorf("verify the log: %w", err)
	}
	return db, nil
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
	events   *pgx.Conn // for events alone
	streams  *pgx.Conn // for their versions alone
	report   func(Damage)
	progress func(done, total Position)
	yield    func(page []Event)
	head     Position
	headSeal []byte

	reporting sync.Mutex

	next   Position // that should come
	before []byte   // the seal before

	sealed          []SealRow // read ahead
	batch           SealRow   // that the next event should be of
	digest          *digest
	whole, sameTime bool

	resealed []byte // the seal before of encrypted entries
	replaced struct {
		To   Position `json:"encrypted_to"`
		Seal Seal     `json:"seal"`
	}
}

func (v *verifier) damage(flaw Flaw, at Position, stream, text string, args ...any) {
	v.reporting.Lock()
	defer v.reporting.Unlock()
	v.report(Damage{Flaw: flaw, Position: at, Stream: stream, Text: fmt.Sprintf(text, args...)})
}

// seals goes through the batches as they were sealed, and the events beside them.
func (v *verifier) seals(ctx context.Context) error {
	v.batch = SealRow{First: v.next, Last: v.next - 1}
	type page struct{ events, opened []Event }
	const rows = 2500
	err := sideBySide(ctx, func(ctx context.Context, yield func(*page) error) error {
		return readPages(ctx, v.events, eventColumns, v.next-1, v.head, Filter{}, rows, maxPageBytes, func(events []Event) error {
			return yield(&page{events: events})
		})
	}, func(ctx context.Context, p *page) error {
		v.log.decode(p.events)
		p.opened = slices.Clone(p.events)
		return v.log.Open(ctx, p.opened)
	}, func(p *page) error {
		for i := range p.events {
			for p.events[i].Position > v.batch.Last {
				if err := v.nextBatch(ctx); err != nil {
					return err
				}
			}
			v.event(&p.opened[i])
		}
		v.yield(p.events)
		v.progress(p.events[len(p.events)-1].Position, v.head)
		return nil
	})
	for err == nil && v.batch.Last < v.head {
		err = v.nextBatch(ctx)
	}
	if err != nil {
		return err
	}
	v.endBatch()
	if (v.batch.Seal != nil || v.batch.isEmpty()) && !bytes.Equal(v.before, v.headSeal) {
		v.damage(FlawSeal, v.head, "", "the last seal, up to %d, is not the one that the log's head holds", v.head)
	}
	return nil
}

// nextBatch ends the batch and begins the next. What follows the last seal is one without a sum.
func (v *verifier) nextBatch(ctx context.Context) (err error) {
	const page = 1000
	v.endBatch()
	if len(v.sealed) == 0 {
		if v.sealed, err = sealsBetween(ctx, v.db, v.batch.Last, v.head, page); err != nil {
			return fmt.Errorf("verify the log: %w", err)
		}
	}
	if len(v.sealed) == 0 {
		v.sealed = []SealRow{{First: v.batch.Last + 1, Last: v.head}}
	}
	v.batch, v.sealed = v.sealed[0], v.sealed[1:]
	if v.batch.First != v.next {
		v.damage(FlawSeal, v.next, "", "the seal up to %d starts at %d: it should at %d", v.batch.Last, v.batch.First, v.next)
	}
	v.next, v.whole, v.sameTime = v.batch.First, true, true
	v.digest.Reset()
	return nil
}

// event checks an event of the batch.
func (v *verifier) event(e *Event) {
	if e.Position < v.next {
		return // no batch has it
	}
	if e.Position > v.next {
		v.missing(e.Position - 1)
	}
	v.digest.add(e)
	v.sameTime = v.sameTime && e.RecordedAt.Equal(v.batch.RecordedAt)
	if e.Err != nil {
		v.damage(FlawUndecoded, e.Position, e.Stream, "the event does not decode: %v", e.Err)
	}
	v.next = e.Position + 1
}

// missing reports that there is nothing up to the position.
func (v *verifier) missing(last Position) {
	v.damage(FlawGap, v.next, "", "positions %d to %d are missing", v.next, last)
	v.whole = false
}

// endBatch compares the batch with its seal. Where that is missing the next one says whether the
// events are what they were.
func (v *verifier) endBatch() {
	s := v.batch
	if s.isEmpty() {
		return
	}
	if v.next <= s.Last {
		v.missing(s.Last)
	}
	v.next = s.Last + 1
	if s.Seal == nil {
		v.damage(FlawSeal, s.First, "", "positions %d to %d are not sealed", s.First, s.Last)
		v.before = sealOf(v.before, s, v.digest)
		return
	}
	v.checkRecord(s)
	if v.whole && (!v.sameTime || !s.covers(v.before, v.resealed, v.digest)) {
		v.damage(FlawSeal, s.First, "", "positions %d to %d are not what was sealed at %s", s.First, s.Last, s.RecordedAt.UTC().Format(time.RFC3339Nano))
	}
	v.before, v.resealed = s.Seal, s.Resealed
}

// sealOf computes the seal as the append did, see appendSQL.
func sealOf(before []byte, s SealRow, events *digest) []byte {
	all := sha256.New()
	all.Write(before)
	var number [8]byte
	binary.BigEndian.PutUint64(number[:], uint64(s.First))
	all.Write(number[:])
	binary.BigEndian.PutUint64(number[:], uint64(s.RecordedAt.UnixMicro()))
	all.Write(number[:])
	all.Write(events.Sum(nil))
	return all.Sum(nil)
}

// versions looks for streams with holes. The index of streams has them in
// order, so the database needs no memory for it either.
func (v *verifier) versions(ctx context.Context) error {
	tx, err := v.streams.Begin(ctx)
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
	return Doing("verify the log", err)
}
