package projections

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// What totals were at the end of an archive is kept in tables of their own, as the log no
// longer says it. The log has their checksum.

const totalsSuffix = "_at_"

func totalsAt(at eventstore.Position) Tables { return Tables{suffix: fmt.Sprint(totalsSuffix, at)} }

// totals returns the models of totals among some.
func totals(of []Model) []Model {
	return slices.DeleteFunc(slices.Clone(of), func(m Model) bool { return !m.Totals })
}

// lists returns the others, which list what the log holds.
func lists(of []Model) []Model {
	return slices.DeleteFunc(slices.Clone(of), func(m Model) bool { return m.Totals })
}

func tablesOf(models []Model) (names []string) {
	for _, m := range models {
		names = append(names, m.Tables...)
	}
	return names
}

// afterArchive leaves out events that the totals hold already.
type afterArchive struct {
	Projection
	archived eventstore.Position
}

func (p afterArchive) Project(ctx context.Context, db Querier, events []eventstore.Event) ([]eventstore.Statement, error) {
	for len(events) > 0 && events[0].Position <= p.archived {
		events = events[1:]
	}
	if len(events) == 0 {
		return nil, nil
	}
	return p.Projection.Project(ctx, db, events)
}

// leaveTotals lets the totals among the models begin after what is archived.
func (a *applier) leaveTotals(models []Model, archived eventstore.Position) {
	for i, m := range models {
		if m.Totals {
			a.projections[i] = afterArchive{a.projections[i], archived}
		}
	}
}

// copyTotals fills the tables of totals with what they were at the end of the newest archive.
func (s *shadow) copyTotals(ctx context.Context, chosen []Model) error {
	if s.archived == 0 {
		return nil
	}
	for _, table := range tablesOf(totals(chosen)) {
		_, err := s.conn.Exec(ctx, s.tables.SQL(`INSERT INTO {`+table+`} SELECT * FROM `)+totalsAt(s.archived).SQL(`{`+table+`}`))
		if err != nil {
			return fmt.Errorf("copy the totals of what is archived: %w", err)
		}
	}
	return nil
}

// checkArchived refuses what was filled while the log was archived or restored.
func (s *shadow) checkArchived(ctx context.Context) error {
	archived, err := s.log.ArchivedTo(ctx)
	if err == nil && archived != s.archived {
		err = domain.Conflict("the log was archived or restored meanwhile: try again")
	}
	return err
}

// KeepTotals keeps the totals of the log up to the position, and returns their checksum.
// Read models that have not come that far are a *domain.Error of KindConflict.
func (p *Projections) KeepTotals(ctx context.Context, at eventstore.Position, progress func(done, total eventstore.Position)) (sum string, err error) {
	position, err := p.Position(ctx)
	if err == nil && position < at {
		err = domain.Conflict(fmt.Sprintf("the read models are at %d, and what is to be archived ends at %d; let serve run until they have caught up", position, at))
	}
	if err != nil {
		return "", err
	}
	err = p.exclusively(ctx, func(conn *pgxpool.Conn) error {
		tables, chosen := totalsAt(at), totals(models)
		if _, err := conn.Exec(ctx, `DROP TABLE IF EXISTS `+tables.list(tablesOf(chosen))); err != nil {
			return fmt.Errorf("keep totals: %w", err)
		}
		s, err := p.newShadow(ctx, conn, tables, chosen)
		if err == nil {
			err = s.fill(ctx, at, progress)
		}
		if err == nil {
			sum, err = p.totalsSum(ctx, at)
		}
		return err
	})
	return sum, err
}

// totalsSum returns the checksum of the totals at the end of an archive.
func (p *Projections) totalsSum(ctx context.Context, at eventstore.Position) (string, error) {
	names := tablesOf(totals(models))
	sums, _, err := p.checksums(ctx, totalsAt(at), names)
	if err != nil {
		return "", fmt.Errorf("check the totals of what is archived: %w", err)
	}
	var text strings.Builder
	for _, name := range names {
		fmt.Fprintf(&text, "%s %d %s;", name, sums[name].rows, sums[name].sum)
	}
	return text.String(), nil
}

// ForgetTotals drops the totals that were kept at other positions.
func (p *Projections) ForgetTotals(ctx context.Context, but []eventstore.Position) error {
	for _, name := range tablesOf(totals(models)) {
		rows, _ := p.pool.Query(ctx, `SELECT tablename FROM pg_tables WHERE schemaname = 'medilab' AND tablename ~ ('^' || $1 || '[0-9]+$')`, name+totalsSuffix)
		tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return fmt.Errorf("forget totals: %w", err)
		}
		for _, table := range tables {
			if slices.ContainsFunc(but, func(at eventstore.Position) bool { return table == name+totalsAt(at).suffix }) {
				continue
			}
			if _, err := p.pool.Exec(ctx, `DROP TABLE medilab.`+pgx.Identifier{table}.Sanitize()); err != nil {
				return fmt.Errorf("forget totals: %w", err)
			}
		}
	}
	return nil
}

// coveredFrom returns what the log's last archived position is, and when it was recorded; 0
// and nil: there is none.
func (p *Projections) coveredFrom(ctx context.Context) (to eventstore.Position, at *time.Time, err error) {
	cuts, _, err := p.log.Cuts(ctx)
	if n := len(cuts); n > 0 {
		to, at = cuts[n-1].Last, &cuts[n-1].To
	}
	return to, at, err
}

// CoveredFrom returns when the log's last archived position was recorded; nil: nothing is
// archived.
func (p *Projections) CoveredFrom(ctx context.Context) (*time.Time, error) {
	_, at, err := p.coveredFrom(ctx)
	return at, err
}

// notFound returns a *domain.Error of KindNotFound, which names what is archived.
func (p *Projections) notFound(ctx context.Context, what string) error {
	to, at, err := p.coveredFrom(ctx)
	if err != nil {
		return err
	}
	missing := domain.NotFound(what)
	if to > 0 {
		missing.ArchivedTo = int64(to)
		missing.Message += fmt.Sprintf(" in the database; it may be in an archive: positions 1 to %d, recorded up to %s, are archived", to, at.Format(time.RFC3339))
	}
	return missing
}

// CheckArchived returns a *domain.Error of KindGone when what is asked for goes on from a
// position that is archived: an answer would have holes.
func (p *Projections) CheckArchived(ctx context.Context, f AuditFilter) error {
	to, at, err := p.coveredFrom(ctx)
	if err != nil || f.After >= to || f.Stream != "" || f.Event != (domain.EventID{}) {
		return err
	}
	return &domain.Error{Kind: domain.KindGone, ArchivedTo: int64(to), Message: fmt.Sprintf(
		"positions 1 to %d, recorded up to %s, are archived: go on with after=%[1]d, or restore the archives", to, at.Format(time.RFC3339))}
}

// RebuildLists rebuilds the models that list what the log holds.
func (p *Projections) RebuildLists(ctx context.Context, progress func(done, total eventstore.Position)) error {
	return p.Rebuild(ctx, mapped(lists(models), func(m Model) string { return m.Name }), progress)
}

// verifyTotals compares what was kept of totals with the log's checksum.
func (p *Projections) verifyTotals(ctx context.Context, report func(Problem)) error {
	cuts, _, err := p.log.Cuts(ctx)
	if err != nil {
		return err
	}
	for _, cut := range cuts {
		sum, err := p.totalsSum(ctx, cut.Last)
		if err != nil {
			return err
		}
		if sum != cut.Totals {
			report(Problem{Kind: ProblemReadModel, Position: cut.Last, Text: fmt.Sprintf(
				"the totals at %d, the end of an archive, are not those that the log has on record: restore the archive", cut.Last)})
		}
	}
	return nil
}
