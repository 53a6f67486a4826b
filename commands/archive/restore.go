package archive

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/medilab/webhooks/commands/receipts"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// Import puts the newest archive, which the folder must hold, back into the database.
func (a *Archiver) Import(ctx context.Context, dir string) (Result, error) {
	return a.measured(ctx, false, func(result *Result) (err error) {
		result.Manifest, err = a.restore(ctx, dir)
		return err
	})
}

func (a *Archiver) restore(ctx context.Context, dir string) (m Manifest, err error) {
	cuts, version, err := a.Log.Cuts(ctx)
	if err != nil {
		return m, err
	}
	if len(cuts) == 0 {
		return m, domain.Conflict("nothing is archived: the database holds the whole log")
	}
	cut := cuts[len(cuts)-1]
	m = Manifest{First: cut.First, Last: cut.Last}
	signed, err := os.ReadFile(filepath.Join(dir, m.name()))
	if err != nil {
		return m, fmt.Errorf("the archive to be restored first is that of positions %d to %d: %w", cut.First, cut.Last, err)
	}
	if string(signed) != cut.Manifest {
		return m, domain.Conflict(m.name() + " is not the archive that the log has on record")
	}
	if err := receipts.VerifyArchive(cut.Manifest, a.Signer.PublicKeys(), &m); err != nil {
		return m, err
	}
	if err := check(ctx, dir, &m, a.doing("checking")); err != nil {
		return m, err
	}
	if err := a.putBack(ctx, dir, &m); err != nil {
		return m, err
	}
	before := int64(0)
	if len(cuts) > 1 {
		before = int64(cuts[len(cuts)-2].Last)
	}
	return m, a.append(ctx, version, domain.LogRestored{Restored: int64(m.Last), ArchivedTo: before},
		eventstore.Statement{SQL: `INSERT INTO medilab.archiving (stream, event, cut) VALUES ($1, gen_random_uuid(), 0)`, Args: []any{eventstore.ListsUndone}})
}

func (a *Archiver) putBack(ctx context.Context, dir string, m *Manifest) error {
	const page = 500
	var events []eventstore.Event
	var seals []eventstore.SealRow
	done := eventstore.Position(0)
	flush := func() error {
		if len(events) == 0 {
			return nil
		}
		err := a.Log.Restore(ctx, events, seals)
		done += eventstore.Position(len(events))
		a.Progress("restoring", done, eventstore.Position(m.Entries+m.Earlier))
		events, seals = events[:0], seals[:0]
		return err
	}
	for _, f := range m.Files {
		err := read(ctx, dir, f, func(e *eventstore.Event, s *eventstore.SealRow) error {
			if s != nil {
				seals = append(seals, *s)
				return nil
			}
			if len(events) == page {
				if err := flush(); err != nil {
					return err
				}
			}
			events = append(events, *e)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return flush()
}
