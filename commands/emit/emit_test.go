package emit_test

import (
	"database/sql"
	"encoding/json"
	"errors"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"

	"github.com/medilab/webhooks/commands/emit"
	"github.com/medilab/webhooks/migrations/testdb"
)

// awkward is a JSON object that any rewriting would change.
const awkward = `{ "z":1.00,"a":"\u0000<>&ü\"\\",  "n":1e+5, "long":12345678901234567890.10, "s":"é" }`

// row is what the database kept of an emission.
type row struct {
	ID            uuid.UUID
	Type, Data    string
	CorrelationID *string
	Source        string
}

func open(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), testdb.New(t))
	check(t, err)
	t.Cleanup(pool.Close)
	_, err = pool.Exec(t.Context(), `INSERT INTO medilab.event_types VALUES ('patient.created', '', ''), ('visit.created', '', '')`)
	check(t, err)
	return pool
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func outbox(t *testing.T, pool *pgxpool.Pool) []row {
	t.Helper()
	rows, err := pool.Query(t.Context(), `SELECT event_id, event_type, event_data::text, correlation_id, source FROM medilab.outbox ORDER BY seq`)
	check(t, err)
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
	check(t, err)
	return found
}

// begin opens a transaction in one of the ways that Emit takes.
var begin = map[string]func(t *testing.T, pool *pgxpool.Pool) (tx any, commit, rollback func() error){
	"pgx.Tx": func(t *testing.T, pool *pgxpool.Pool) (any, func() error, func() error) {
		tx, err := pool.Begin(t.Context())
		check(t, err)
		return tx, func() error { return tx.Commit(t.Context()) }, func() error { return tx.Rollback(t.Context()) }
	},
	"sql.Tx of pgx": func(t *testing.T, pool *pgxpool.Pool) (any, func() error, func() error) {
		return beginSQL(t, "pgx", pool)
	},
	"sql.Tx of lib/pq": func(t *testing.T, pool *pgxpool.Pool) (any, func() error, func() error) {
		return beginSQL(t, "postgres", pool)
	},
}

func beginSQL(t *testing.T, driver string, pool *pgxpool.Pool) (any, func() error, func() error) {
	db, err := sql.Open(driver, pool.Config().ConnString())
	check(t, err)
	t.Cleanup(func() { check(t, db.Close()) })
	tx, err := db.BeginTx(t.Context(), nil)
	check(t, err)
	return tx, tx.Commit, tx.Rollback
}

func TestEmitIsOfTheTransaction(t *testing.T) {
	for name, begin := range begin {
		t.Run(name, func(t *testing.T) {
			pool := open(t)
			given := uuid.MustParse("0198f0a0-0000-7000-8000-000000000001")
			events := []emit.Event{
				{Type: "patient.created", Data: json.RawMessage(awkward), CorrelationID: `a "quoted" \ id, {x}`, Source: "billing", ID: given},
				{Type: "visit.created", Data: json.RawMessage(`{}`)},
			}

			tx, _, rollback := begin(t, pool)
			_, err := emit.Emit(t.Context(), tx, events...)
			check(t, err)
			check(t, rollback())
			if rows := outbox(t, pool); len(rows) != 0 {
				t.Fatalf("after a rollback there is %+v", rows)
			}

			tx, commit, _ := begin(t, pool)
			ids, err := emit.Emit(t.Context(), tx, events...)
			check(t, err)
			if rows := outbox(t, pool); len(rows) != 0 {
				t.Fatalf("before the commit there is %+v", rows)
			}
			check(t, commit())
			rows := outbox(t, pool)
			if len(rows) != 2 || !slices.Equal(ids, []uuid.UUID{rows[0].ID, rows[1].ID}) || ids[0] != given {
				t.Fatalf("ids %v, rows %+v", ids, rows)
			}
			if r := rows[0]; r.Data != awkward || r.Type != "patient.created" || *r.CorrelationID != `a "quoted" \ id, {x}` || r.Source != "billing" {
				t.Errorf("the first row is %+v", r)
			}
			if r := rows[1]; r.CorrelationID != nil || r.Source != "go" || r.ID.Version() != 7 {
				t.Errorf("the second row is %+v", r)
			}
		})
	}
}

func TestEmitMany(t *testing.T) {
	pool := open(t)
	events := make([]emit.Event, 3000)
	for i := range events {
		var err error
		events[i], err = emit.New("patient.created", map[string]any{"n": i, "html": "<&>"})
		check(t, err)
	}
	ids, err := emit.Emit(t.Context(), pool, events...)
	check(t, err)
	for i, r := range outbox(t, pool) {
		if r.ID != ids[i] || r.Data != string(events[i].Data) || !strings.Contains(r.Data, "<&>") {
			t.Fatalf("row %d is %+v", i, r)
		}
	}
}

func TestEmitRefusesAtOnce(t *testing.T) {
	pool := open(t)
	for name, c := range map[string]struct {
		event emit.Event
		code  string
		says  string
	}{
		"no type":      {emit.Event{Data: []byte(`{}`)}, "22023", `unknown event type ""`},
		"unknown type": {emit.Event{Type: "patient.create", Data: []byte(`{}`)}, "22023", `unknown event type "patient.create"`},
		"an array":     {emit.Event{Type: "patient.created", Data: []byte(`[1]`)}, "22023", "not array"},
		"null":         {emit.Event{Type: "patient.created", Data: []byte(`null`)}, "22023", "not null"},
		"no JSON":      {emit.Event{Type: "patient.created", Data: []byte(`{`)}, "", "is not JSON"},
		"no data":      {emit.Event{Type: "patient.created"}, "", "is not JSON"},
		"too large":    {emit.Event{Type: "patient.created", Data: []byte(`{"a":"` + strings.Repeat("x", 10<<20) + `"}`)}, "54000", "the most is"},
		"NUL in label": {emit.Event{Type: "patient.created", Data: []byte(`{}`), Source: "a\x00"}, "22021", ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := emit.Emit(t.Context(), pool, c.event)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("error %v; want one that says %q", err, c.says)
			}
			refused := new(pgconn.PgError)
			if errors.As(err, &refused); refused.Code != c.code {
				t.Errorf("code %q; want %q", refused.Code, c.code)
			}
		})
	}
	if rows := outbox(t, pool); len(rows) != 0 {
		t.Errorf("refused, and yet there is %d rows", len(rows))
	}
	if _, err := emit.Emit(t.Context(), "not a transaction"); err == nil {
		t.Error("a string was taken for a transaction")
	}
}

func TestSQLDefaults(t *testing.T) {
	pool := open(t)
	before := time.Now().Add(-time.Minute)
	var id uuid.UUID
	check(t, pool.QueryRow(t.Context(), `SELECT medilab.emit('patient.created', '{"a": 1,  "a2":2}')`).Scan(&id))
	seconds, nanoseconds := id.Time().UnixTime()
	if made := time.Unix(seconds, nanoseconds); id.Version() != 7 || id.Variant() != uuid.RFC4122 || made.Before(before) || made.After(before.Add(time.Hour)) {
		t.Errorf("%v is version %d made at %v", id, id.Version(), made)
	}
	r := outbox(t, pool)[0]
	if r.ID != id || r.Source != "sql" || r.CorrelationID != nil || r.Data != `{"a": 1,  "a2":2}` {
		t.Errorf("the row is %+v", r)
	}
	check(t, pool.QueryRow(t.Context(), `SELECT medilab.emit(event_type => 'patient.created', event_data => '{}',
		event_id => '0198f0a0-0000-7000-8000-000000000002', correlation_id => 'c', source => 's')`).Scan(&id))
	if id.String() != "0198f0a0-0000-7000-8000-000000000002" {
		t.Errorf("the given id came back as %v", id)
	}
	if _, err := pool.Exec(t.Context(), `SELECT medilab.emit(NULL, '{}')`); err == nil {
		t.Error("no type was accepted")
	}
	if _, err := pool.Exec(t.Context(), `SELECT medilab.emit('patient.created', NULL)`); err == nil {
		t.Error("no data was accepted")
	}
}

// The data may be of any of these types, as a literal, a column or a parameter.
func TestSQLTypesOfData(t *testing.T) {
	pool := open(t)
	exec := func(sql string, args ...any) {
		t.Helper()
		_, err := pool.Exec(t.Context(), sql, args...)
		check(t, err)
	}
	exec(`CREATE TABLE visits (j json, b jsonb, t text, v varchar(100)); INSERT INTO visits VALUES ('{"n":1}', '{"n":1}', '{"n":1}', '{"n":1}')`)
	count := 0
	for _, column := range []string{"j", "b", "t", "v"} {
		exec(`SELECT medilab.emit('patient.created', ` + column + `) FROM visits`)
		exec(`SELECT medilab.emit(event_type => 'patient.created', event_data => ` + column + `, source => 's') FROM visits`)
		count += 2
	}
	for _, typed := range []string{"", "::json", "::jsonb", "::text", "::varchar"} {
		exec(`SELECT medilab.emit('patient.created', '{"n":1}'` + typed + `)`)
		exec(`SELECT medilab.emit($1, $2`+typed+`)`, "patient.created", `{"n":1}`)
		exec(`SELECT medilab.emit($1, $2`+typed+`, occurred_at => $3)`, "patient.created", json.RawMessage(`{"n":1}`), time.Now().Add(-time.Hour))
		count += 3
	}
	rows := outbox(t, pool)
	for _, r := range rows {
		if strings.ReplaceAll(r.Data, " ", "") != `{"n":1}` {
			t.Errorf("the row is %+v", r)
		}
	}
	if len(rows) != count {
		t.Errorf("%d rows, want %d", len(rows), count)
	}
	for _, refused := range []string{`'{"n":'::text`, `'[]'::jsonb`, `NULL::jsonb`, `'{}', occurred_at => now() + interval '1 minute'`, `'{}', occurred_at => 'infinity'`, `'{}', occurred_at => '-infinity'`} {
		if _, err := pool.Exec(t.Context(), `SELECT medilab.emit('patient.created', `+refused+`)`); err == nil {
			t.Errorf("accepted: %s", refused)
		}
	}
}

// When an event happened is its emitter's word, in SQL and in Go.
func TestOccurredAt(t *testing.T) {
	pool := open(t)
	const at = "2024-01-15T10:30:00.123456Z"
	_, err := pool.Exec(t.Context(), `SELECT medilab.emit('patient.created', '{}', occurred_at => $1::text::timestamptz)`, at)
	check(t, err)
	occurred, err := time.Parse(time.RFC3339, at)
	check(t, err)
	_, err = emit.Emit(t.Context(), pool, emit.Event{Type: "patient.created", Data: json.RawMessage("{}"), OccurredAt: occurred})
	check(t, err)
	var same int
	check(t, pool.QueryRow(t.Context(), `SELECT count(*) FROM medilab.outbox WHERE emitted_at = $1::text::timestamptz AND inserted_at > now() - interval '1 hour'`, at).Scan(&same))
	if same != 2 {
		t.Errorf("%d rows have the time that was given", same)
	}
}

// A role may be let emit some types alone, whichever of its roles it has them by.
func TestRoleMayEmitSomeTypes(t *testing.T) {
	pool := open(t)
	conn, err := pool.Acquire(t.Context())
	check(t, err)
	defer conn.Release()
	id := strings.ReplaceAll(uuid.NewString(), "-", "")
	lab, ward, person := "lab_"+id, "ward_"+id, "person_"+id
	exec := func(sql string) error {
		_, err := conn.Exec(t.Context(), sql)
		return err
	}
	roles := lab + ", " + ward + ", " + person
	check(t, exec(`CREATE ROLE `+lab+`; CREATE ROLE `+ward+`; CREATE ROLE `+person))
	defer func() { check(t, exec(`RESET SESSION AUTHORIZATION; DROP OWNED BY `+roles+`; DROP ROLE `+roles)) }()
	may := func(role, eventType string, want bool) {
		t.Helper()
		check(t, exec(`SET SESSION AUTHORIZATION `+role))
		err := exec(`SELECT medilab.emit('` + eventType + `', '{}')`)
		if (err == nil) != want {
			t.Errorf("%s emits %s: %v", role, eventType, err)
		}
		check(t, exec(`SELECT FROM medilab.event_types; RESET SESSION AUTHORIZATION`))
	}
	check(t, exec(`INSERT INTO medilab.event_types VALUES ('patient.created', '', ''), ('visit.created', '', '') ON CONFLICT DO NOTHING`))
	check(t, exec(`SELECT medilab.allow_emit('`+lab+`', '{patient.created}')`))
	may(lab, "patient.created", true)
	may(lab, "visit.created", false)
	check(t, exec(`SELECT medilab.allow_emit('`+ward+`', '{visit.created}'); GRANT `+ward+`, `+lab+` TO `+person))
	may(person, "patient.created", true)
	may(person, "visit.created", true)
	check(t, exec(`SELECT medilab.allow_emit('`+lab+`')`))
	may(lab, "visit.created", true)
	check(t, exec(`SELECT medilab.emit('visit.created', '{}')`)) // the owner
	if exec(`SELECT medilab.allow_emit('`+lab+`', '{patient.made}')`) == nil {
		t.Error("an unknown type was allowed")
	}
	// No role is public, so its types would limit nobody.
	if exec(`SELECT medilab.allow_emit('public', '{patient.created}')`) == nil {
		t.Error("public was limited to some types")
	}
}

// A role of the clinic needs the right to call the function, and gets nothing else by it.
func TestRoleNeedsOnlyExecute(t *testing.T) {
	pool := open(t)
	conn, err := pool.Acquire(t.Context())
	check(t, err)
	defer conn.Release()
	role := "clinic_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	exec := func(sql string) error {
		_, err := conn.Exec(t.Context(), sql)
		return err
	}
	check(t, exec(`CREATE ROLE `+role))
	defer func() { check(t, exec(`RESET ROLE; DROP OWNED BY `+role+`; DROP ROLE `+role)) }()
	check(t, exec(`GRANT USAGE ON SCHEMA medilab TO `+role+`; SET ROLE `+role))
	const call = `SELECT medilab.emit('patient.created', '{}')`
	if exec(call) == nil {
		t.Error("a role without rights can emit")
	}
	check(t, exec(`RESET ROLE; SELECT medilab.allow_emit('`+role+`'); SET ROLE `+role))
	check(t, exec(call))
	for _, forbidden := range []string{
		`SELECT FROM medilab.outbox`, `DELETE FROM medilab.outbox`, `SELECT medilab.outbox_done('{1}')`, `SELECT FROM medilab.events`,
		`DELETE FROM medilab.event_types`, `SELECT FROM medilab.emitters`, `SELECT medilab.allow_emit('` + role + `')`,
		`SELECT medilab.emit_json('patient.created', '{}', NULL, NULL, NULL, NULL)`,
	} {
		if exec(forbidden) == nil {
			t.Errorf("the clinic's role can %s", forbidden)
		}
	}

	// Functions of the role's own, which go before the built-in ones in its search path, do
	// not run with the rights of the owner.
	check(t, exec(`RESET ROLE; CREATE SCHEMA trap AUTHORIZATION `+role+`; SET ROLE `+role))
	for _, name := range []string{"octet_length", "length"} {
		check(t, exec(`CREATE FUNCTION trap.`+name+`(text) RETURNS integer LANGUAGE plpgsql AS 'BEGIN CREATE TABLE IF NOT EXISTS medilab.trapped (); RETURN 1; END'`))
	}
	check(t, exec(`SET search_path = trap, pg_catalog`))
	if err := exec(call); err != nil {
		t.Errorf("the role's own functions are asked: %v", err)
	}
	var trapped bool
	check(t, conn.QueryRow(t.Context(), `SELECT to_regclass('medilab.trapped') IS NOT NULL`).Scan(&trapped))
	if trapped {
		t.Error("the role's own functions have the owner's rights")
	}
	check(t, exec(`RESET search_path`))
}

// A service that imports the package links these packages besides the standard library, and
// nothing of Watermill or of the server. pgx.Tx's methods return types of pgconn, and pgconn
// imports the rest.
func TestLinksNoServerCode(t *testing.T) {
	const list = "{{if not .Standard}}{{.ImportPath}}{{end}}"
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", list, ".").Output()
	check(t, err)
	allowed := regexp.MustCompile(`^(github\.com/medilab/webhooks/commands/emit|github\.com/google/uuid|` +
		`github\.com/jackc/pgx/v5/(pgconn|pgconn/ctxwatch|pgconn/internal/\w+|pgproto3|pgtype|internal/(iobufpool|pgio|pgdatetime))|` +
		`github\.com/jackc/(pgpassfile|pgservicefile)|golang\.org/x/text/.+)$`)
	linked := strings.Fields(string(out))
	for _, path := range linked {
		if !allowed.MatchString(path) {
			t.Errorf("the package links %s", path)
		}
	}
	if !slices.Contains(linked, "github.com/medilab/webhooks/commands/emit") {
		t.Errorf("go list says %q", linked)
	}
}
