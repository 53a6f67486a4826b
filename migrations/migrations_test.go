package migrations_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/eventstore"
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

// up migrates as the program does.
func up(t *testing.T, url string) (applied []string, err error) {
	return upLogging(t, url, slog.DiscardHandler)
}

func upLogging(t *testing.T, url string, log slog.Handler) (applied []string, err error) {
	pool, err := eventstore.OpenPool(t.Context(), url, 2)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	return migrations.Up(t.Context(), pool, slog.New(log))
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
	applied, err := up(t, url)
	if err != nil {
		t.Fatal(err)
	}
	if len(applied) == 0 || !strings.HasPrefix(applied[0], "0001_") {
		t.Errorf("applied %v, want every file from 0001", applied)
	}
	if pending(t, conn) {
		t.Error("something is pending after Up")
	}
	again, err := up(t, url)
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
			if applied[i], err = up(t, url); err != nil {
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

// role makes a login role that is nothing more, and returns its name and its URL of the database.
func role(t *testing.T, admin string) (name, asRole string) {
	t.Helper()
	conn := connect(t, admin)
	var database string
	if err := conn.QueryRow(t.Context(), `SELECT current_database()`).Scan(&database); err != nil {
		t.Fatal(err)
	}
	name = "role_of_" + database
	execute(t, conn, fmt.Sprintf(`CREATE ROLE %s LOGIN PASSWORD 'secret' NOSUPERUSER NOCREATEDB NOCREATEROLE`, name))
	t.Cleanup(func() {
		for _, statement := range []string{
			fmt.Sprintf(`REASSIGN OWNED BY %s TO CURRENT_USER`, name),
			fmt.Sprintf(`DROP OWNED BY %s`, name),
			fmt.Sprintf(`DROP ROLE %s`, name),
		} {
			if _, err := conn.Exec(context.Background(), statement); err != nil {
				t.Error(err)
			}
		}
	})
	as, err := url.Parse(admin)
	if err != nil {
		t.Fatal(err)
	}
	as.User = url.UserPassword(name, "secret")
	return name, as.String()
}

// TestLittleIsEnough: the role owns the database, or a schema that the administrator made for it, and
// is nothing more.
func TestLittleIsEnough(t *testing.T) {
	for name, grant := range map[string]string{
		"owner of the database": `DO $$ BEGIN EXECUTE format('ALTER DATABASE %%I OWNER TO %s', current_database()); END $$`,
		"owner of the schema":   `CREATE SCHEMA medilab AUTHORIZATION %s`,
	} {
		t.Run(name, func(t *testing.T) {
			admin := testdb.NewEmpty(t)
			role, url := role(t, admin)
			execute(t, connect(t, admin), fmt.Sprintf(grant, role))
			if _, err := up(t, url); err != nil {
				t.Error(err)
			}
			if pending(t, connect(t, url)) {
				t.Error("something is pending after Up")
			}
		})
	}
}

// TestNewerDatabase: a schema that this version does not know is refused, unless a migration says
// that programs of this one survive it.
func TestNewerDatabase(t *testing.T) {
	url := testdb.New(t)
	conn := connect(t, url)
	execute(t, conn, fmt.Sprintf(`DO $$ BEGIN
		SET LOCAL medilab.oldest_schema = %d;
		INSERT INTO medilab.schema_version (version_id, is_applied) VALUES (9998, true);
	END $$`, eventstore.SchemaVersion))
	if pending(t, conn) {
		t.Error("a schema that it survives has something pending")
	}
	execute(t, conn, `INSERT INTO medilab.schema_version (version_id, is_applied) VALUES (9999, true)`)
	if _, err := migrations.Pending(t.Context(), conn); !errors.Is(err, migrations.ErrNewer) {
		t.Errorf("pending: %v", err)
	}
	if applied, err := up(t, url); !errors.Is(err, migrations.ErrNewer) || len(applied) != 0 {
		t.Errorf("Up applied %v, %v to a newer database", applied, err)
	}
}

// TestSchemaVersion: a new migration is one that the program says it knows.
func TestSchemaVersion(t *testing.T) {
	var newest int64
	err := connect(t, testdb.New(t)).QueryRow(t.Context(), `SELECT max(version_id) FROM medilab.schema_version`).Scan(&newest)
	if err != nil || newest != eventstore.SchemaVersion {
		t.Errorf("the newest migration is %d, eventstore.SchemaVersion %d, %v", newest, eventstore.SchemaVersion, err)
	}
}

// breaking finds what a program that was made for an older schema may not survive.
var breaking = regexp.MustCompile(`(?i)\b(DROP|RENAME|TRUNCATE|SET NOT NULL|TYPE|CONSTRAINT|CHECK|UNIQUE|REFERENCES|UPDATE|DELETE)\b`)

// unsurvivable returns what is wrong with a migration that says that older programs survive it.
func unsurvivable(number int64, file string) string {
	named := regexp.MustCompile(`(?m)^SET LOCAL medilab\.oldest_schema = (\d+);$`).FindStringSubmatch(file)
	if named == nil {
		return ""
	}
	if oldest, err := strconv.ParseInt(named[1], 10, 64); err != nil || oldest < 42 || oldest >= number {
		return "no program of schema " + named[1] + " survives it"
	}
	if !regexp.MustCompile(`(?m)^SET LOCAL lock_timeout = '500ms';$`).MatchString(file) {
		return "all may wait behind its locks"
	}
	file = regexp.MustCompile(`CREATE TABLE [^;]*;`).ReplaceAllString(file, "") // no older program knows it
	for line := range strings.Lines(file) {
		line, comment, _ := strings.Cut(line, "--")
		if strings.Contains(comment, "no longer used since") { // contracts what was expanded before
			continue
		}
		if found := breaking.FindString(line); found != "" {
			return found
		}
		if strings.Contains(line, "NOT NULL") && !strings.Contains(line, "DEFAULT") {
			return "NOT NULL without DEFAULT"
		}
	}
	return ""
}

// TestSurvivable: a migration that says that older programs survive it only adds, or says since
// when no program uses what it takes away, and lets nobody wait for long.
func TestSurvivable(t *testing.T) {
	const expands = "SET LOCAL medilab.oldest_schema = 42;\nSET LOCAL lock_timeout = '500ms';\n"
	for file, wrong := range map[string]string{
		"ALTER TABLE t DROP COLUMN c;": "", // it says nothing
		expands + "CREATE TABLE t (c text NOT NULL DEFAULT '');\nALTER TABLE u ADD COLUMN c text;": "",
		expands + "CREATE TABLE t (\n    c text NOT NULL\n);":                                      "",
		expands + "ALTER TABLE t DROP COLUMN c; -- no longer used since 43":                        "",
		expands + "ALTER TABLE t DROP COLUMN c;":                                                   "DROP",
		expands + "ALTER TABLE t ADD COLUMN c text NOT NULL;":                                      "NOT NULL without DEFAULT",
		"SET LOCAL medilab.oldest_schema = 42;\n":                                                  "all may wait behind its locks",
		"SET LOCAL medilab.oldest_schema = 41;\n":                                                  "no program of schema 41 survives it",
		"SET LOCAL medilab.oldest_schema = 44;\n":                                                  "no program of schema 44 survives it",
	} {
		if got := unsurvivable(44, file); got != wrong {
			t.Errorf("%q, want %q, of\n%s", got, wrong, file)
		}
	}
	names, err := filepath.Glob("sql/*.sql")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		number, _, _ := strings.Cut(filepath.Base(name), "_")
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		file, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if wrong := unsurvivable(n, string(file)); wrong != "" {
			t.Errorf("%s: %s", name, wrong)
		}
	}
}

// logged is a log whose messages a test waits for.
type logged struct {
	slog.Handler
	lines chan string
}

func (l logged) Enabled(context.Context, slog.Level) bool { return true }

func (l logged) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	r.Attrs(func(a slog.Attr) bool { line += " " + a.Value.String(); return true })
	l.lines <- line
	return nil
}

// TestWaiting: a start that waits says for what, and goes on when that has ended.
func TestWaiting(t *testing.T) {
	for name, wait := range map[string]struct{ begin, end, says string }{
		"another's migrations": {`SELECT pg_advisory_lock(x'6d6564696c6162'::bigint)`, `SELECT pg_advisory_unlock_all()`, "process "},
		"a node of an older version": {`CREATE SCHEMA medilab; CREATE TABLE medilab.nodes AS SELECT 'old-machine/7' AS name, 'infinity'::timestamptz AS lease_until`,
			`DROP TABLE medilab.nodes`, "old-machine/7"},
	} {
		t.Run(name, func(t *testing.T) {
			url := testdb.NewEmpty(t)
			conn := connect(t, url)
			execute(t, conn, wait.begin)
			log := logged{lines: make(chan string, 10)}
			ended := make(chan error, 1)
			go func() {
				_, err := upLogging(t, url, log)
				ended <- err
			}()
			select {
			case line := <-log.lines:
				if !strings.Contains(line, wait.says) {
					t.Errorf("it says %q", line)
				}
			case err := <-ended:
				t.Fatalf("it did not wait: %v", err)
			}
			if !pending(t, conn) {
				t.Error("it migrates meanwhile")
			}
			execute(t, conn, wait.end)
			if err := <-ended; err != nil || pending(t, conn) {
				t.Errorf("it did not go on: %v", err)
			}
		})
	}
}

// TestOddDefaults: what a server, a database or a role sets does not change what a migration does.
func TestOddDefaults(t *testing.T) {
	url := testdb.NewEmpty(t)
	conn := connect(t, url)
	for _, setting := range []string{"standard_conforming_strings = off", "quote_all_identifiers = on", "default_transaction_isolation = serializable",
		"plpgsql.extra_errors = 'all'", "plpgsql.variable_conflict = use_column", "bytea_output = escape", "transform_null_equals = on"} {
		execute(t, conn, fmt.Sprintf(`DO $$ BEGIN EXECUTE format('ALTER DATABASE %%I SET %s', current_database()); END $$`, strings.ReplaceAll(setting, "'", "''")))
	}
	for _, url := range []string{url + "&pool_max_conns=3", url + "&default_query_exec_mode=simple_protocol"} {
		if _, err := up(t, url); err != nil {
			t.Error(err)
		}
	}
}

func TestErrorsHaveNoPassword(t *testing.T) {
	for _, url := range []string{
		"postgres://u:hunter2@127.0.0.1:1/x?connect_timeout=1",
		"postgres://u:hunter2@127.0.0.1:bad/x",
	} {
		_, err := up(t, url)
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("error %v", err)
		}
	}
}

// TestAnalyzeIsCheapAndSeesNoPayload: the log is analyzed while thousands of events a
// second come in, and the planner's statistics keep what they sample.
func TestAnalyzeIsCheapAndSeesNoPayload(t *testing.T) {
	url := testdb.NewEmpty(t)
	if _, err := up(t, url); err != nil {
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
		CREATE ROLE `+role+`; GRANT USAGE ON SCHEMA medilab TO `+role+`; GRANT EXECUTE ON FUNCTION medilab.emit TO `+role)
	defer execute(t, conn, `DROP OWNED BY `+role+`; DROP ROLE `+role)
	emit, err := os.ReadFile("sql/0021_emit.sql") // goose would not apply it after newer ones
	if err != nil {
		t.Fatal(err)
	}
	execute(t, conn, string(emit))
	var may, public int
	err = conn.QueryRow(t.Context(), `
		SELECT count(*) FILTER (WHERE has_function_privilege($1, oid, 'EXECUTE')), count(*) FILTER (WHERE has_function_privilege('public', oid, 'EXECUTE'))
		FROM pg_proc WHERE pronamespace = 'medilab'::regnamespace AND proname LIKE 'emit%'`, role).Scan(&may, &public)
	if err != nil || may != 3 || public != 0 {
		t.Errorf("the role may call %d functions, everybody %d: %v", may, public, err)
	}
}
