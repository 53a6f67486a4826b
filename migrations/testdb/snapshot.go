package testdb

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Snapshot copies the database at the URL as it is now. Its restore puts the copy in the place
// of the database, as often as it is called: connections break, and who connects again finds
// the older one.
func Snapshot(t testing.TB, database string) (restore func()) {
	t.Helper()
	admin, err := server()
	if err != nil {
		t.Fatalf("testdb: %v", err)
	}
	u, err := url.Parse(database)
	if err != nil {
		t.Fatalf("testdb: %v", err)
	}
	name := strings.TrimPrefix(u.Path, "/")
	kept := name + "_kept"
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := replace(ctx, admin, kept, name); err != nil {
		t.Fatalf("testdb: copy a database: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := execute(ctx, admin, fmt.Sprintf(`DROP DATABASE IF EXISTS %s WITH (FORCE)`, kept)); err != nil {
			t.Errorf("testdb: drop the copy: %v", err)
		}
	})
	return func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := replace(ctx, admin, name, kept); err != nil {
			t.Fatalf("testdb: restore a database: %v", err)
		}
	}
}

// replace makes the database a copy of another. Neither has connections meanwhile.
func replace(ctx context.Context, admin, name, from string) (err error) {
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	const building = "_building"
	for _, statement := range []string{
		fmt.Sprintf(`ALTER DATABASE %s ALLOW_CONNECTIONS false`, from),
		fmt.Sprintf(`SELECT count(pg_terminate_backend(pid, 60000)) FROM pg_stat_activity WHERE datname = '%s'`, from),
		fmt.Sprintf(`CREATE DATABASE %s TEMPLATE %s`, name+building, from),
		fmt.Sprintf(`ALTER DATABASE %s ALLOW_CONNECTIONS true`, from),
		fmt.Sprintf(`DROP DATABASE IF EXISTS %s WITH (FORCE)`, name),
		fmt.Sprintf(`ALTER DATABASE %s RENAME TO %s`, name+building, name),
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}
