package testdb

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/migrations"
)

func TestNewIsMigratedAndAlone(t *testing.T) {
	ctx := t.Context()
	for range 2 {
		conn, err := pgx.Connect(ctx, New(t))
		if err != nil {
			t.Fatal(err)
		}
		pending, err := migrations.Pending(ctx, conn)
		if err != nil || pending {
			t.Errorf("pending = %v, %v; want a migrated database", pending, err)
		}
		// Fails for the second database if the two are one.
		if _, err := conn.Exec(ctx, `CREATE TABLE medilab.mine ()`); err != nil {
			t.Error(err)
		}
		if err := conn.Close(ctx); err != nil {
			t.Error(err)
		}
	}
}

func TestNewEmptyHasNoMigrations(t *testing.T) {
	conn, err := pgx.Connect(t.Context(), NewEmpty(t))
	if err != nil {
		t.Fatal(err)
	}
	pending, err := migrations.Pending(t.Context(), conn)
	if err != nil || !pending {
		t.Errorf("pending = %v, %v; want pending migrations", pending, err)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
