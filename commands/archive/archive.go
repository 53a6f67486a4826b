// Package archive moves the beginning of the log into files and back. An archive is a range
// of the log with its seals, compressed and signed. What it holds of the clinic's events and
// their deliveries leaves the database, once nothing needs it any more; all else, such as
// the configuration, stays there too. Each step can be cut off and taken up again.
package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/commands/receipts"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// Archiver makes and restores archives of one database. All fields are required.
type Archiver struct {
	Log        *eventstore.Log
	Pool       *pgxpool.Pool
	Signer     *receipts.Signer
	ReadModels ReadModels
	Actor      string
	Progress   func(doing string, done, total eventstore.Position)
}

// ReadModels are those of the database.
type ReadModels interface {
	// KeepTotals keeps what the log adds up to at the position, and returns its checksum. The
	// read models must have come that far.
	KeepTotals(ctx context.Context, at eventstore.Position, progress func(done, total eventstore.Position)) (string, error)
	// ForgetTotals drops what was kept at other positions than those.
	ForgetTotals(ctx context.Context, but []eventstore.Position) error
	// RebuildLists rebuilds what lists entries of the log.
	RebuildLists(ctx context.Context, progress func(done, total eventstore.Position)) error
}

// Result is what an export or an import did.
type Result struct {
	Manifest
	Kept   int64 `json:"kept"`   // entries up to the end that the database keeps
	Before int64 `json:"before"` // bytes of the log's table with its indexes
	After  int64 `json:"after"`
}

// lock lets one export or import at a time work on a database ("archive" as bytes).
const lock int64 = 0x61726368697665

// measured does the work on the archive exclusively. Before and after it, it ends what is left to
// be done after what the log has on record; see finish.
func (a *Archiver) measured(ctx context.Context, drop bool, work func(*Result) error) (result Result, err error) {
	busy := domain.Conflict("another archive command is running: wait for its end")
	err = eventstore.Exclusively(ctx, a.Pool, lock, "archive", busy, func(*pgxpool.Conn) error {
		if err := a.finish(ctx, drop); err != nil {
			return err
		}
		if result.Before, err = a.size(ctx); err != nil {
			return err
		}
		if err := work(&result); err != nil {
			return err
		}
		if err := a.finish(ctx, drop); err != nil {
			return err
		}
		result.After, err = a.size(ctx)
		return err
	})
	return result, err
}

// Export archives what was recorded before the time, and is not archived yet, into the
// folder. First it ends what an earlier export or import left undone. Nothing to archive is a
// *domain.Error of KindConflict.
func (a *Archiver) Export(ctx context.Context, before time.Time, dir string) (Result, error) {
	return a.measured(ctx, true, func(result *Result) (err error) {
		result.Manifest, result.Kept, err = a.export(ctx, before, dir)
		return err
	})
}

func (a *Archiver) export(ctx context.Context, before time.Time, dir string) (m Manifest, kept int64, err error) {
	cuts, version, err := a.Log.Cuts(ctx)
	if err != nil {
		return m, 0, err
	}
	m, err = a.begin(ctx, before, cuts)
	if err != nil {
		return m, 0, err
	}
	g := &gathering{archiver: a, cut: m.Last}
	if err := g.begin(ctx); err != nil {
		return m, 0, err
	}
	if err := a.checkFolder(dir, m); err != nil {
		return m, 0, err
	}
	w, err := newWriter(dir, &m)
	if err != nil {
		return m, 0, err
	}
	defer w.abandon()
	if err := a.writeRange(ctx, g, w); err != nil {
		return m, 0, err
	}
	totals, err := a.ReadModels.KeepTotals(ctx, m.Last, a.doing("keeping totals"))
	if err != nil {
		return m, 0, err
	}
	if _, err := g.settle(ctx); err != nil {
		return m, 0, err
	}
	if err := a.writeEarlier(ctx, w); err != nil {
		return m, 0, err
	}
	m.CreatedAt = a.Log.Clock().Now().UTC()
	signed, err := a.Signer.SignArchive(m)
	if err != nil {
		return m, 0, err
	}
	if err := check(ctx, dir, &m, a.doing("reading back")); err != nil {
		return m, 0, fmt.Errorf("read back what was written: %w", err)
	}
	if err := publish(dir, m.name(), signed); err != nil {
		return m, 0, err
	}
	kept, err = a.record(ctx, g, m, totals, string(signed), version)
	return m, kept, err
}

// begin says which range to archive.
func (a *Archiver) begin(ctx context.Context, before time.Time, cuts []eventstore.Cut) (Manifest, error) {
	m := Manifest{First: 1, SealBefore: eventstore.Seal{}}
	if n := len(cuts); n > 0 {
		m.First, m.SealBefore = cuts[n-1].Last+1, cuts[n-1].Seal
	}
	last, err := a.Log.SealBefore(ctx, before)
	if err != nil {
		return m, err
	}
	if last.Last < m.First {
		return m, domain.Conflict("there is nothing before that time that is not archived already")
	}
	m.Last, m.Seal, m.To = last.Last, last.Seal, last.RecordedAt.UTC()
	if m.ResealedBefore, err = a.Log.ResealedAt(ctx, m.First-1); err != nil {
		return m, err
	}
	if err := a.checkReplays(ctx); err != nil {
		return m, err
	}
	return m, a.awaitReaders(ctx, m.Last)
}

// checkReplays refuses to archive while a replay may need what goes.
func (a *Archiver) checkReplays(ctx context.Context) error {
	jobs := commands.Replays{Log: a.Log, Pool: a.Pool}
	open, err := jobs.Unfinished(ctx, domain.ReplayID{})
	if err == nil && len(open) > 0 {
		err = domain.Conflict(fmt.Sprintf("replay %s is not finished and may need what is to be archived: wait for its end, or cancel it", open[0]))
	}
	return err
}

// awaitReaders returns when what reads the log has come to the position.
func (a *Archiver) awaitReaders(ctx context.Context, to eventstore.Position) error {
	const patience, pause = 10 * time.Second, 100 * time.Millisecond
	for waited := time.Duration(0); ; waited += pause {
		var at eventstore.Position
		err := a.Pool.QueryRow(ctx, `SELECT coalesce(min(position), $1) FROM medilab.readers WHERE node IS NOT NULL`, to).Scan(&at)
		switch {
		case err != nil:
			return fmt.Errorf("archive: %w", err)
		case at >= to:
			return nil
		case waited >= patience:
			return domain.Conflict(fmt.Sprintf("the log is processed up to %d, and what is to be archived ends at %d; let serve run until it has caught up", at, to))
		}
		if err := eventstore.Sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// checkFolder refuses a folder with an archive of the range that is of another history of the
// log. One of this history was not put on record: it is written again.
func (a *Archiver) checkFolder(dir string, m Manifest) error {
	signed, err := os.ReadFile(filepath.Join(dir, m.name()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var there Manifest
	if err == nil {
		err = receipts.VerifyArchive(string(signed), a.Signer.PublicKeys(), &there)
	}
	if err != nil || !bytes.Equal(there.Seal, m.Seal) {
		return domain.Conflict("the folder has another archive of the same positions: choose another folder")
	}
	return nil
}

// writeRange writes the range, and gathers what of the log up to its end may go.
func (a *Archiver) writeRange(ctx context.Context, g *gathering, w *writer) error {
	const page = 2000
	var seals []eventstore.SealRow
	sealed := w.manifest.First - 1
	chain := w.manifest.chain()
	return a.Log.Scan(ctx, 0, w.manifest.Last, page, func(events []eventstore.Event) (err error) {
		if err := g.add(ctx, events); err != nil {
			return err
		}
		for i := range events {
			if events[i].Position < w.manifest.First {
				continue // an archive has it already
			}
			if len(seals) == 0 {
				if seals, err = a.Log.Seals(ctx, sealed, page); err != nil {
					return err
				}
				sealed = seals[len(seals)-1].Last
			}
			if err := errors.Join(chain.Add(&events[i]), w.entry(&events[i])); err != nil {
				return err
			}
			if seals[0].Last == events[i].Position {
				if err := errors.Join(chain.Close(seals[0]), w.seal(seals[0])); err != nil {
					return fmt.Errorf("%w; see audit verify", err)
				}
				seals = seals[1:]
			}
		}
		a.Progress("archiving", events[len(events)-1].Position, w.manifest.Last)
		return nil
	})
}

// writeEarlier writes what archives before this one had to leave in the database, and which
// goes now.
func (a *Archiver) writeEarlier(ctx context.Context, w *writer) error {
	if err := w.end(); err != nil { // of the range
		return err
	}
	w.earlier = true
	err := a.Log.EachArchiving(ctx, w.manifest.First-1, w.manifest.Last, w.entry)
	return errors.Join(err, w.end())
}

// record puts the archive on record: from then on what it holds may go. What became needed
// meanwhile stays.
func (a *Archiver) record(ctx context.Context, g *gathering, m Manifest, totals, signed string, version int64) (kept int64, _ error) {
	const tries = 20
	for try := 1; ; try++ {
		hash, n, err := a.Log.KeptHash(ctx, m.Last)
		if err != nil {
			return 0, err
		}
		out, err := g.settle(ctx) // so that the append, which others wait for, checks little
		if err != nil {
			return 0, err
		}
		if out > 0 { // the hash is not of what stays
			if try == tries {
				return 0, domain.Conflict("what is to be archived is needed again and again: try later")
			}
			continue
		}
		err = a.append(ctx, version, domain.LogArchived{
			First: int64(m.First), ArchivedTo: int64(m.Last), To: m.To, SealBefore: fmt.Sprintf("%x", []byte(m.SealBefore)), Seal: fmt.Sprintf("%x", []byte(m.Seal)),
			Entries: m.Entries, Earlier: m.Earlier, Kept: hash, Totals: totals, Manifest: signed,
		}, eventstore.Statement{SQL: `SELECT medilab.check_archiving($1)`, Args: []any{g.settled}})
		if !eventstore.IsNeededAgain(err) || try == tries {
			return n, err
		}
		if err := a.checkReplays(ctx); err != nil {
			return 0, err
		}
	}
}

func (a *Archiver) append(ctx context.Context, version int64, change domain.Change, with ...eventstore.Statement) error {
	if err := ctx.Err(); err != nil { // an append goes on without its caller
		return err
	}
	_, err := a.Log.Append(ctx, eventstore.Unit{With: with,
		Writes: []eventstore.Write{commands.Write(eventstore.ArchiveStream, version, eventstore.Metadata{Actor: a.Actor}, change)}})
	return eventstore.Doing("record an archive", err)
}

// finish does what is to be done after what the log has on record: lists of what the log holds are
// rebuilt, what is archived is dropped, and the space is free. An import that was cut off before it was
// on record can go on, unless drop. Lists come first, so that they can be verified for the rest of it.
func (a *Archiver) finish(ctx context.Context, drop bool) error {
	cuts, _, err := a.Log.Cuts(ctx)
	if err != nil {
		return err
	}
	at := eventstore.Position(0)
	but := make([]eventstore.Position, len(cuts))
	for i, cut := range cuts {
		but[i], at = cut.Last, cut.Last
	}
	var streams int64
	var marked, lists bool
	err = a.Pool.QueryRow(ctx, `SELECT count(*) FILTER (WHERE stream < $2), coalesce(bool_or(stream >= $2), false), coalesce(bool_or(stream = $2), false)
		FROM medilab.archiving WHERE cut <= $1`, at, eventstore.ListsUndone).Scan(&streams, &marked, &lists)
	if err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	if !marked && (!drop || streams == 0) {
		return nil
	}
	if lists {
		if err := a.ReadModels.RebuildLists(ctx, a.doing("rebuilding lists")); err != nil {
			return err
		}
	}
	if err := a.ReadModels.ForgetTotals(ctx, but); err != nil {
		return err
	}
	const step = 500
	for last, dropped := "", int64(0); last != "" || dropped == 0; dropped += step {
		a.Progress("dropping", eventstore.Position(min(dropped, streams)), eventstore.Position(max(streams, 1)))
		if last, err = a.Log.DropArchived(ctx, last, step); err != nil {
			return err
		}
	}
	for _, sql := range []string{`VACUUM medilab.events`, `VACUUM medilab.seals`, forgetSQL, `VACUUM medilab.archiving`} {
		if _, err := a.Pool.Exec(ctx, sql); err != nil {
			return fmt.Errorf("free the space of what was archived: %w", err)
		}
	}
	return nil
}

func (a *Archiver) size(ctx context.Context) (bytes int64, err error) {
	err = a.Pool.QueryRow(ctx, `SELECT pg_total_relation_size('medilab.events')`).Scan(&bytes)
	return bytes, eventstore.Doing("measure the log", err)
}

func (a *Archiver) doing(what string) func(done, total eventstore.Position) {
	return func(done, total eventstore.Position) { a.Progress(what, done, total) }
}
