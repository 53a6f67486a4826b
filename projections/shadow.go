package projections

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// The suffixes of shadow tables: those of a rebuild, which are swapped in, and
// those of a check, which are compared.
var (
	nextTables  = Tables{suffix: "_next"}
	checkTables = Tables{suffix: "_check"}
)

// shadow is a set of tables like those of some read models, to be filled from
// the beginning of the log.
type shadow struct {
	*Projections
	conn     *pgxpool.Conn // holds rebuildLock
	tables   Tables
	names    []string // of the tables, without the suffix
	models   []string // that are being rebuilt; none: a check
	applier  *applier
	position eventstore.Position // of the last event applied
	archived eventstore.Position // the end of the newest archive
}

// rebuildLock lets one rebuild or check at a time fill shadow tables ("rebuild" as bytes).
const rebuildLock int64 = 0x72656275696c64

const insufficientPrivilege = "42501" // SQLSTATE

// exclusively does the work on a connection that holds rebuildLock, or returns a
// *domain.Error of KindConflict; of KindForbidden, where the role may not make tables.
func (p *Projections) exclusively(ctx context.Context, work func(*pgxpool.Conn) error) error {
	busy := domain.Conflict("read models are being rebuilt or checked already: wait for that to end")
	err := eventstore.Exclusively(ctx, p.pool, rebuildLock, "rebuild", busy, work)
	if eventstore.HasCode(err, insufficientPrivilege) {
		return &domain.Error{Kind: domain.KindForbidden, Message: "this server's role in the database may not do it: run it on the command line as the owner of the tables", Err: err}
	}
	return err
}

// newShadow creates the shadow tables of the models, empty.
func (p *Projections) newShadow(ctx context.Context, conn *pgxpool.Conn, tables Tables, chosen []Model) (*shadow, error) {
	s := &shadow{Projections: p, conn: conn, tables: tables, names: tablesOf(chosen)}
	var deadLetters Tables // no model can take them, so only all models make them again
	if len(chosen) == len(models) {
		deadLetters = tables
		s.names = append(s.names, "parked")
	}
	var err error
	if s.archived, err = p.log.ArchivedTo(ctx); err != nil {
		return nil, err
	}
	s.applier = newApplier(chosen, tables, deadLetters)
	s.applier.leaveTotals(chosen, s.archived)
	if err := dropShadows(ctx, conn); err != nil {
		return nil, err
	}
	for _, name := range s.names {
		if err := s.create(ctx, name); err != nil {
			return nil, fmt.Errorf("create a shadow of %s: %w", name, err)
		}
	}
	return s, s.copyTotals(ctx, chosen)
}

// create makes a table with the columns, indexes and storage parameters of the
// named one.
func (s *shadow) create(ctx context.Context, name string) error {
	_, err := s.conn.Exec(ctx, s.tables.SQL(`CREATE TABLE {`+name+`} (LIKE medilab.`+name+` INCLUDING ALL)`))
	if err != nil {
		return err
	}
	var parameters *string // LIKE leaves them out
	err = s.conn.QueryRow(ctx, `SELECT array_to_string(reloptions, ', ') FROM pg_class WHERE oid = ('medilab.' || $1)::regclass`, name).Scan(&parameters)
	if err != nil || parameters == nil {
		return err
	}
	_, err = s.conn.Exec(ctx, s.tables.SQL(`ALTER TABLE {`+name+`} SET (`+*parameters+`)`))
	return err
}

// dropShadows drops all shadow tables, also those that a crash left behind, and
// the notes about rebuilds.
func dropShadows(ctx context.Context, conn *pgxpool.Conn) error {
	names := append(tablesOf(models), "parked")
	drop := `UPDATE medilab.read_models SET building = NULL WHERE building IS NOT NULL`
	for _, tables := range []Tables{nextTables, checkTables} {
		drop += `; DROP TABLE IF EXISTS ` + tables.list(names)
	}
	_, err := conn.Exec(ctx, drop)
	return doing("drop shadow tables", err)
}

// fill applies what the log holds up to the position, a transaction a page.
func (s *shadow) fill(ctx context.Context, to eventstore.Position, progress Progress) error {
	return s.log.Scan(ctx, s.position, to, s.pace.page, func(page []eventstore.Event) error {
		if err := s.apply(ctx, page); err != nil {
			return err
		}
		progress(s.position, to)
		return nil
	})
}

// follow applies what a page holds up to the position. Where entries are missing before it or in it,
// fill says whether they are archived.
func (s *shadow) follow(ctx context.Context, page []eventstore.Event, to eventstore.Position) error {
	for len(page) > 0 && page[len(page)-1].Position > to {
		page = page[:len(page)-1]
	}
	if len(page) == 0 {
		return nil
	}
	if last := page[len(page)-1].Position; page[0].Position != s.position+1 || last != s.position+eventstore.Position(len(page)) {
		return s.fill(ctx, last, func(_, _ eventstore.Position) {})
	}
	return s.apply(ctx, page)
}

func (s *shadow) apply(ctx context.Context, page []eventstore.Event) error {
	last := page[len(page)-1].Position
	err := inTx(ctx, s.conn, func(tx transaction) error {
		// A crash begins all of it again, so no page need be durable.
		if _, err := tx.Exec(ctx, `SET LOCAL synchronous_commit = off`); err != nil {
			return err
		}
		if err := s.applier.apply(ctx, tx, page); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE medilab.read_models SET building = $2 WHERE name = ANY($1)`, s.models, last)
		return err
	})
	if err == nil {
		s.position = last
	}
	return err
}

// swap replaces the tables by their shadows. Queries wait for the end of the
// transaction and then read the new tables.
func (s *shadow) swap(ctx context.Context, tx transaction) error {
	if err := s.lock(ctx, tx); err != nil {
		return fmt.Errorf("lock the read models: %w", err)
	}
	var swap strings.Builder
	for _, name := range s.names {
		fmt.Fprintf(&swap, `DROP TABLE medilab.%s; ALTER TABLE medilab.%[1]s%s RENAME TO %[1]s;`, name, s.tables.suffix)
		// LIKE names indexes by their table and columns.
		rows, _ := tx.Query(ctx, `SELECT indexname FROM pg_indexes WHERE schemaname = 'medilab' AND tablename = $1`, name+s.tables.suffix)
		indexes, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return err
		}
		for _, index := range indexes {
			fmt.Fprintf(&swap, `ALTER INDEX medilab.%s RENAME TO %s;`, index, name+strings.TrimPrefix(index, name+s.tables.suffix))
		}
		if err := s.copyRights(ctx, tx, name); err != nil {
			return fmt.Errorf("copy the rights of %s: %w", name, err)
		}
	}
	_, err := tx.Exec(ctx, swap.String())
	return err
}

// rightsSQL returns the statements that make the owner and the privileges of table $2 those of table $1:
// LIKE copies neither.
const rightsSQL = `
	WITH tables AS (
		SELECT oid, oid::regclass AS name, oid = $1::regclass AS is_model, relowner, coalesce(relacl, acldefault('r', relowner)) AS acl
		FROM pg_class WHERE oid IN ($1::regclass, $2::regclass)),
	rights AS (
		SELECT is_model, acl.*, '' AS columns FROM tables CROSS JOIN LATERAL aclexplode(acl) AS acl
		UNION ALL
		SELECT true, acl.*, '(' || quote_ident(attname) || ')' FROM pg_attribute CROSS JOIN LATERAL aclexplode(attacl) AS acl
		WHERE attrelid = $1::regclass AND NOT attisdropped),
	named AS (SELECT *, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END AS who FROM rights)
	SELECT concat_ws('; ',
		(SELECT format('ALTER TABLE %s OWNER TO %s', $2::regclass, relowner::regrole) FROM tables
			WHERE is_model AND relowner <> (SELECT relowner FROM tables WHERE NOT is_model)),
		(SELECT string_agg(DISTINCT format('REVOKE ALL ON %s FROM %s', $2::regclass, who), '; ') FROM named WHERE NOT is_model),
		(SELECT string_agg(format('GRANT %s %s ON %s TO %s%s', privilege_type, columns, $2::regclass, who, CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END), '; ')
			FROM named WHERE is_model))`

// copyRights makes the owner and the privileges of a table those of its shadow too.
func (s *shadow) copyRights(ctx context.Context, tx transaction, name string) error {
	var statements string
	if err := tx.QueryRow(ctx, rightsSQL, "medilab."+name, "medilab."+name+s.tables.suffix).Scan(&statements); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, statements)
	return err
}

const lockNotAvailable = "55P03" // SQLSTATE

// lock takes the locks of all tables or of none: while it waited for one it would
// hold another, and a query that reads both in the other order would be killed
// for the deadlock. Queries are brief, so some try finds no query running.
func (s *shadow) lock(ctx context.Context, tx transaction) error {
	const (
		tries = 600
		pause = 5 * time.Millisecond
	)
	for try := 1; ; try++ {
		if _, err := tx.Exec(ctx, `SAVEPOINT unlocked`); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `LOCK TABLE `+Tables{}.list(s.names)+` IN ACCESS EXCLUSIVE MODE NOWAIT`)
		if err == nil || try == tries || !eventstore.HasCode(err, lockNotAvailable) {
			return err
		}
		if _, err := tx.Exec(ctx, `ROLLBACK TO SAVEPOINT unlocked`); err != nil {
			return err
		}
		if err := eventstore.Sleep(ctx, pause); err != nil {
			return err
		}
	}
}
