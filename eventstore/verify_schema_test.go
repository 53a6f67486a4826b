package eventstore

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Whoever owns the database can take away what keeps the log unchanged, and change it
// then. Each way is reported in words, and what is whole is not.
func TestVerifyReportsWhatTheTablesAre(t *testing.T) {
	t.Parallel()
	pool, log := openNew(t)
	for _, stream := range []string{"a", "b", "c"} {
		write := Write{Stream: stream, Events: []NewEvent{{Type: "test.happened", Data: []byte(`{"n":1}`)}}}
		if _, err := log.Append(t.Context(), Unit{Writes: []Write{write}}); err != nil {
			t.Fatal(err)
		}
	}
	verify := func() string {
		t.Helper()
		var found []string
		if err := log.Verify(t.Context(), func(d Damage) { found = append(found, d.Text) }, func(Position, Position) {}); err != nil {
			found = append(found, "error: "+err.Error())
		}
		return strings.Join(found, "\n")
	}
	if found := verify(); found != "" {
		t.Fatalf("of a log that nobody touched: %s", found)
	}
	const unguarded = `ALTER TABLE medilab.seals DISABLE TRIGGER seals_append_only; ALTER TABLE medilab.events DISABLE TRIGGER events_append_only;`
	const guarded = `ALTER TABLE medilab.seals ENABLE ALWAYS TRIGGER seals_append_only; ALTER TABLE medilab.events ENABLE ALWAYS TRIGGER events_append_only;`
	for _, way := range []struct{ name, tamper, mend, want string }{
		{"a trigger is disabled", `ALTER TABLE medilab.events DISABLE TRIGGER events_append_only`, guarded,
			"the trigger events_append_only of medilab.events is disabled"},
		{"a trigger is off for a replica", `ALTER TABLE medilab.seals ENABLE TRIGGER seals_append_only`, guarded,
			"the trigger seals_append_only of medilab.seals is not enabled always"},
		{"a trigger is dropped", `DROP TRIGGER events_append_only ON medilab.events`,
			`CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON medilab.events FOR EACH STATEMENT EXECUTE FUNCTION medilab.refuse_change();` + guarded,
			"the trigger events_append_only of medilab.events is missing"},
		{"a trigger guards less", `CREATE OR REPLACE TRIGGER events_append_only BEFORE TRUNCATE ON medilab.events FOR EACH STATEMENT EXECUTE FUNCTION medilab.refuse_change();` + guarded,
			`CREATE OR REPLACE TRIGGER events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON medilab.events FOR EACH STATEMENT EXECUTE FUNCTION medilab.refuse_change();` + guarded,
			"the trigger events_append_only of medilab.events does not refuse every change"},
		{"the function lets all pass", `CREATE OR REPLACE FUNCTION medilab.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$`,
			`CREATE OR REPLACE FUNCTION medilab.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$` + refuseChange + `$$`,
			"the trigger seals_append_only of medilab.seals does not refuse every change"},
		{"a trigger of somebody else", `CREATE FUNCTION public.other() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$;
			CREATE TRIGGER other BEFORE INSERT ON medilab.events FOR EACH ROW EXECUTE FUNCTION public.other()`,
			`DROP FUNCTION public.other CASCADE`, "medilab.events has the trigger other, which is not of this product"},
		{"a rule", `CREATE RULE away AS ON DELETE TO medilab.events DO INSTEAD NOTHING`, `DROP RULE away ON medilab.events`,
			"medilab.events has the rule away"},
		{"row security", `ALTER TABLE medilab.events ENABLE ROW LEVEL SECURITY`, `ALTER TABLE medilab.events DISABLE ROW LEVEL SECURITY`,
			"medilab.events has row security"},
		{"NULL is allowed", `ALTER TABLE medilab.seals ALTER seal DROP NOT NULL`, `ALTER TABLE medilab.seals ALTER seal SET NOT NULL`,
			"medilab.seals.seal may be NULL"},
		{"a column is computed", `ALTER TABLE medilab.events RENAME type TO kept; ALTER TABLE medilab.events ADD type text GENERATED ALWAYS AS ('webhook.deleted') STORED NOT NULL`,
			`ALTER TABLE medilab.events DROP type; ALTER TABLE medilab.events RENAME kept TO type`, "medilab.events.type is missing"},
		{"a key is dropped", `ALTER TABLE medilab.events DROP CONSTRAINT events_stream_version`,
			`ALTER TABLE medilab.events ADD CONSTRAINT events_stream_version UNIQUE (stream, version)`, "medilab.events has no constraint UNIQUE (stream, version)"},
		{"a child table", `CREATE TABLE public.child () INHERITS (medilab.events)`, `DROP TABLE public.child`, "medilab.events has the table public.child for a child"},
		{"unlogged", `ALTER TABLE medilab.seals SET UNLOGGED`, `ALTER TABLE medilab.seals SET LOGGED`, "medilab.seals is unlogged"},
		{"a view", `ALTER TABLE medilab.events RENAME TO kept; CREATE VIEW medilab.events AS SELECT * FROM medilab.kept`,
			`DROP VIEW medilab.events; ALTER TABLE medilab.kept RENAME TO events`, "medilab.events is a view, not a table"},
		{"no seals at all", `ALTER TABLE medilab.seals RENAME TO kept`, `ALTER TABLE medilab.kept RENAME TO seals`, "medilab.seals does not exist"},
		{"an event outside of the log", `INSERT INTO medilab.events VALUES (-1, 'a', 2, 'test.happened', '{}', '{}', now())`,
			unguarded + `DELETE FROM medilab.events WHERE position = -1;` + guarded, "medilab.events holds rows before position 1"},
		{"a seal outside of the log", `INSERT INTO medilab.seals VALUES (9, 4, now(), '')`,
			unguarded + `DELETE FROM medilab.seals WHERE last_position = 9;` + guarded, "medilab.seals holds rows before position 1 or behind the log's head"},
		{"functions of somebody else", `CREATE SCHEMA other; CREATE FUNCTION other.count(bigint) RETURNS bigint LANGUAGE sql AS 'SELECT 0';
			CREATE FUNCTION other.format_type(oid, integer) RETURNS text LANGUAGE sql AS 'SELECT NULL::text';
			DO $$BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = other, pg_catalog', current_database()); END$$`,
			`DROP SCHEMA other CASCADE; DO $$BEGIN EXECUTE format('ALTER DATABASE %I RESET search_path', current_database()); END$$`, ""},
		{"a seal is taken away and the tail rewritten",
			unguarded + `ALTER TABLE medilab.seals ALTER seal DROP NOT NULL; UPDATE medilab.seals SET seal = NULL WHERE last_position > 1;
			UPDATE medilab.events SET data = '{"n":2}' WHERE position = 3; UPDATE medilab.log_head SET last_seal = (SELECT seal FROM medilab.seals WHERE last_position = 1)`, "", "positions 2 to 2 are not sealed"},
	} {
		t.Run(way.name, func(t *testing.T) {
			run := func(sql string) {
				t.Helper()
				err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
					_, err := tx.Conn().PgConn().Exec(t.Context(), sql).ReadAll()
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
				pool.Reset()
			}
			run(way.tamper)
			if found := verify(); !strings.Contains(found, way.want) || way.want == "" && found != "" {
				t.Errorf("found %q, want %q", found, way.want)
			}
			if way.mend == "" {
				return
			}
			run(way.mend)
			if found := verify(); found != "" {
				t.Errorf("after it was mended: %s", found)
			}
		})
	}
}
