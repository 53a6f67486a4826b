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

// TestAnalyzeIsCheapAndSeesNoPayload: the log is analyzed while thousands of events a
// second come in, and the planner's statistics keep what they sample.
func TestAnalyzeIsCheapAndSeesNoPayload(t *testing.T) {
	url := testdb.NewEmpty(t)
	if _, err := migrations.Up(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	conn := connect(t, url)
	execute(t, conn, `
		INSERT INTO medilab.events SELECT n, 'event-' || n, 1, 'event.triggered', 'secret'::bytea, '{"actor":"secret"}', now() FROM generate_series(1, 5000) AS n;
		INSERT INTO medilab.outbox (event_id, event_type, event_data, size, emitted_by) SELECT gen_random_uuid(), 'a.b', '"secret"', 8, 'me' FROM generate_series(1, 100);
		INSERT INTO medilab.parked_events (event_id, event_type, event_data, emitted_by, emitted_at, reason)
			SELECT gen_random_uuid(), 'a.b', '"secret"', 'me', now(), 'none' FROM generate_series(1, 100)`)
	for _, table := range []string{"events", "outbox", "parked_events"} {
		execute(t, conn, `ANALYZE medilab.`+table)
	}
	var payloads, known, widest int
	err := conn.QueryRow(t.Context(), `
		SELECT count(*) FILTER (WHERE attname IN ('data', 'metadata', 'event_data')), count(*) FILTER (WHERE tablename = 'events' AND attname = 'position'),
			(SELECT max(attstattarget) FROM pg_attribute WHERE attrelid = 'medilab.events'::regclass AND attnum > 0)
		FROM pg_stats WHERE schemaname = 'medilab'`).Scan(&payloads, &known, &widest)
	if err != nil {
		t.Fatal(err)
	}
	if payloads != 0 || known != 1 {
		t.Errorf("there are statistics of %d columns of payloads, and %d of positions", payloads, known)
	}
	if widest > 10 {
		t.Errorf("a column of the log is sampled by %d rows", 300*widest)
	}
	var unset int
	err = conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_attribute WHERE attrelid = 'medilab.events'::regclass AND attnum > 0 AND attstattarget < 0`).Scan(&unset)
	if err != nil || unset != 0 {
		t.Errorf("%d columns of the log are sampled by the server's default, %v", unset, err)
	}
}

// Roles that could emit before the function got its overloads still can, and no others.
func TestEmittersKeepTheirRight(t *testing.T) {
	url := testdb.New(t)
	conn := connect(t, url)
	var role string
	if err := conn.QueryRow(t.Context(), `SELECT 'emitter_' || replace(gen_random_uuid()::text, '-', '')`).Scan(&role); err != nil {
		t.Fatal(err)
	}
	// As it was before.
	execute(t, conn, `
		DROP FUNCTION medilab.emit(text, json, text, uuid, text, timestamptz), medilab.emit(text, jsonb, text, uuid, text, timestamptz),
			medilab.emit(text, text, text, uuid, text, timestamptz), medilab.emit_json, medilab.allow_emit;
		DROP TABLE medilab.emitters;
		ALTER TABLE medilab.outbox DROP COLUMN inserted_at;
		CREATE FUNCTION medilab.emit(text, json, text, uuid, text) RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid';
		REVOKE ALL ON FUNCTION medilab.emit FROM PUBLIC;
		DELETE FROM medilab.schema_version WHERE version_id = 21;
		CREATE ROLE `+role+`; GRANT USAGE ON SCHEMA medilab TO `+role+`; GRANT EXECUTE ON FUNCTION medilab.emit TO `+role)
	defer execute(t, conn, `DROP OWNED BY `+role+`; DROP ROLE `+role)
	if _, err := migrations.Up(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	var may, public int
	err := conn.QueryRow(t.Context(), `
		SELECT count(*) FILTER (WHERE has_function_privilege($1, oid, 'EXECUTE')), count(*) FILTER (WHERE has_function_privilege('public', oid, 'EXECUTE'))
		FROM pg_proc WHERE pronamespace = 'medilab'::regnamespace AND proname LIKE 'emit%'`, role).Scan(&may, &public)
	if err != nil || may != 3 || public != 0 {
		t.Errorf("the role may call %d functions, everybody %d: %v", may, public, err)
	}
}
