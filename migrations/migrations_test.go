package migrations_test

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/migrations"
	"github.com/medilab/webhooks/migrations/testdb"
)

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return conn
}

func execute(t *testing.T, conn *pgx.Conn, statement string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func pending(t *testing.T, conn *pgx.Conn) bool {
	t.Helper()
	got, err := migrations.Pending(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestUpAppliesEachFileOnce(t *testing.T) {
	url := testdb.NewEmpty(t)
	conn := connect(t, url)
	if !pending(t, conn) {
		t.Error("nothing is pending in an empty database")
	}
	applied, err := migrations.Up(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	if len(applied) == 0 || !strings.HasPrefix(applied[0], "0001_") {
		t.Errorf("applied %v, want every file from 0001", applied)
	}
	if pending(t, conn) {
		t.Error("something is pending after Up")
	}
	again, err := migrations.Up(t.Context(), url)
	if err != nil || len(again) != 0 {
		t.Errorf("the second Up applied %v, %v", again, err)
	}
}

// TestRacingNodes: nodes that start together all succeed, and each file is applied by one of them.
func TestRacingNodes(t *testing.T) {
	url := testdb.NewEmpty(t)
	const nodes = 4
	applied := make([][]string, nodes)
	var all sync.WaitGroup
	for i := range nodes {
		all.Go(func() {
			var err error
			if applied[i], err = migrations.Up(t.Context(), url); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	seen := map[string]int{}
	for _, files := range applied {
		for _, file := range files {
			seen[file]++
		}
	}
	if len(seen) == 0 {
		t.Error("no file was applied")
	}
	for file, times := range seen {
		if times != 1 {
			t.Errorf("%s was applied %d times", file, times)
		}
	}
}

// TestOwnerIsEnough: the role owns the database and is nothing more.
func TestOwnerIsEnough(t *testing.T) {
	admin := testdb.NewEmpty(t)
	conn := connect(t, admin)
	var name string
	if err := conn.QueryRow(t.Context(), `SELECT current_database()`).Scan(&name); err != nil {
		t.Fatal(err)
	}
	role := "owner_of_" + name
	execute(t, conn, fmt.Sprintf(`CREATE ROLE %s LOGIN PASSWORD 'secret' NOSUPERUSER NOCREATEDB NOCREATEROLE`, role))
	execute(t, conn, fmt.Sprintf(`ALTER DATABASE %s OWNER TO %s`, name, role))
	t.Cleanup(func() {
		for _, statement := range []string{
			fmt.Sprintf(`REASSIGN OWNED BY %s TO CURRENT_USER`, role),
			fmt.Sprintf(`DROP OWNED BY %s`, role),
			fmt.Sprintf(`DROP ROLE %s`, role),
		} {
			if _, err := conn.Exec(context.Background(), statement); err != nil {
				t.Error(err)
			}
		}
	})
	owner, err := url.Parse(admin)
	if err != nil {
		t.Fatal(err)
	}
	owner.User = url.UserPassword(role, "secret")
	if _, err := migrations.Up(t.Context(), owner.String()); err != nil {
		t.Error(err)
	}
	if pending(t, connect(t, owner.String())) {
		t.Error("something is pending after Up")
	}
}

// TestNewerDatabase: a node of the version before serves on while a newer one has migrated already.
func TestNewerDatabase(t *testing.T) {
	url := testdb.New(t)
	conn := connect(t, url)
	execute(t, conn, `INSERT INTO medilab.schema_version (version_id, is_applied) VALUES (9999, true)`)
	if pending(t, conn) {
		t.Error("a newer database has something pending")
	}
	if applied, err := migrations.Up(t.Context(), url); err != nil || len(applied) != 0 {
		t.Errorf("Up applied %v, %v to a newer database", applied, err)
	}
}

func TestErrorsHaveNoPassword(t *testing.T) {
	for _, url := range []string{
		"postgres://u:hunter2@127.0.0.1:1/x?connect_timeout=1",
		"postgres://u:hunter2@127.0.0.1:bad/x",
	} {
		_, err := migrations.Up(t.Context(), url)
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("error %v", err)
		}
	}
}
