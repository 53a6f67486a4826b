package projections

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// copies are tables beside those of read models, made like them, to be filled
// anew and then to take their place, or to be compared and dropped.
type copies struct {
	tables Tables
	names  []string // of the tables they are copies of
}

// index is an index of a table that is copied.
type index struct {
	table, name, definition string
	primary                 bool
}

// makeCopies makes empty copies of the named tables.
func makeCopies(ctx context.Context, db transaction, tables Tables, names []string) (*copies, error) {
	c := &copies{tables: tables, names: names}
	if err := c.drop(ctx, db); err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := c.makeTable(ctx, db, name); err != nil {
			return nil, fmt.Errorf("copy the table %s: %w", name, err)
		}
	}
	indexes, err := c.indexes(ctx, db)
	if err != nil {
		return nil, err
	}
	for _, i := range indexes {
		if err := execAll(ctx, db, c.indexSQL(i)); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// makeTable copies a table's columns and how they are stored.
func (c *copies) makeTable(ctx context.Context, db transaction, name string) error {
	_, err := db.Exec(ctx, c.tables.SQL(`CREATE TABLE {`+name+`} (LIKE medilab.`+name+` INCLUDING ALL EXCLUDING INDEXES)`))
	if err != nil {
		return err
	}
	rows, err := db.Query(ctx, `SELECT unnest(reloptions) FROM pg_class WHERE oid = ('medilab.' || $1)::regclass`, name)
	if err != nil {
		return err
	}
	options, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(options) == 0 {
		return err
	}
	_, err = db.Exec(ctx, c.tables.SQL(`ALTER TABLE {`+name+`} SET (`+strings.Join(options, ", ")+`)`))
	return err
}

func (c *copies) indexes(ctx context.Context, db transaction) ([]index, error) {
	rows, err := db.Query(ctx, `
		SELECT t.relname, i.relname, pg_get_indexdef(x.indexrelid), x.indisprimary
		FROM pg_index AS x JOIN pg_class AS i ON i.oid = x.indexrelid JOIN pg_class AS t ON t.oid = x.indrelid
		JOIN pg_namespace AS n ON n.oid = t.relnamespace
		WHERE n.nspname = 'medilab' AND t.relname = ANY($1) ORDER BY 1, 2`, c.names)
	if err != nil {
		return nil, fmt.Errorf("list indexes: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (i index, err error) {
		err = row.Scan(&i.table, &i.name, &i.definition, &i.primary)
		return i, err
	})
	if err != nil {
		return nil, fmt.Errorf("list indexes: %w", err)
	}
	return list, nil
}

// indexSQL makes the copy of an index under a name of its own.
func (c *copies) indexSQL(i index) []string {
	name := i.name + c.tables.suffix
	definition := strings.Replace(i.definition, " INDEX "+i.name+" ON medilab."+i.table+" ", " INDEX "+name+" ON medilab."+i.table+c.tables.suffix+" ", 1)
	statements := []string{definition}
	if i.primary {
		statements = append(statements, c.tables.SQL(`ALTER TABLE {`+i.table+`} ADD CONSTRAINT `+name+` PRIMARY KEY USING INDEX `+name))
	}
	return statements
}

// finish tells the planner what the full copies hold.
func (c *copies) finish(ctx context.Context, db transaction) error {
	var statements []string
	for _, name := range c.names {
		statements = append(statements, c.tables.SQL(`ANALYZE {`+name+`}`))
	}
	return execAll(ctx, db, statements)
}

// swap puts the copies in the place of the tables, which are dropped. Who reads
// them waits for the end of the transaction and then reads the new ones.
func (c *copies) swap(ctx context.Context, tx transaction) error {
	if err := c.lock(ctx, tx); err != nil {
		return err
	}
	indexes, err := c.indexes(ctx, tx)
	if err != nil {
		return err
	}
	var statements []string
	for _, name := range c.names {
		statements = append(statements, `DROP TABLE medilab.`+name, c.tables.SQL(`ALTER TABLE {`+name+`} RENAME TO `+name))
	}
	for _, i := range indexes {
		statements = append(statements, `ALTER INDEX medilab.`+i.name+c.tables.suffix+` RENAME TO `+i.name)
	}
	return execAll(ctx, tx, statements)
}

// lock takes all the tables or none: it never holds one while it waits for
// another, as a query that reads two of them, the other way round, would then be
// the one that fails. Queries are brief, so some try finds a moment without any.
func (c *copies) lock(ctx context.Context, tx transaction) error {
	const (
		tries = 600
		pause = 5 * time.Millisecond
	)
	for try := 1; ; try++ {
		if _, err := tx.Exec(ctx, `SAVEPOINT unlocked`); err != nil {
			return fmt.Errorf("lock the read models: %w", err)
		}
		_, err := tx.Exec(ctx, `LOCK TABLE medilab.`+strings.Join(c.names, `, medilab.`)+` IN ACCESS EXCLUSIVE MODE NOWAIT`)
		var refused *pgconn.PgError
		if err == nil {
			return nil
		}
		if !errors.As(err, &refused) || refused.Code != lockNotAvailable || try == tries {
			return fmt.Errorf("lock the read models: %w", err)
		}
		if _, err := tx.Exec(ctx, `ROLLBACK TO SAVEPOINT unlocked`); err != nil {
			return fmt.Errorf("lock the read models: %w", err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// drop removes the copies, also those that a crash left behind.
func (c *copies) drop(ctx context.Context, db transaction) error {
	var statements []string
	for _, name := range c.names {
		statements = append(statements, c.tables.SQL(`DROP TABLE IF EXISTS {`+name+`}`))
	}
	return execAll(ctx, db, statements)
}

func execAll(ctx context.Context, db transaction, statements []string) error {
	for _, sql := range statements {
		if _, err := db.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}
