package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/migrations/testdb"
)

// oldBinaryVariable names a binary of the version at which oldLogFolder is written.
const oldBinaryVariable = "MEDILAB_OLD_BINARY"

// oldLogFolder holds a database that the last version before migration 14 wrote (commit
// b00f239), the keys of its secrets, and what that version answered about it.
const oldLogFolder = "testdata/oldlog"

// oldAnswers is what the version that wrote the log answered.
type oldAnswers struct {
	Head      int64                      `json:"head"`      // the log's last position
	Undecided []int64                    `json:"undecided"` // positions of readable events without a decision
	Poison    []int64                    `json:"poison"`    // positions of entries that cannot be read
	Mendable  int64                      `json:"mendable"`  // of Poison: the damaged event
	Requests  map[string]json.RawMessage `json:"requests"`  // answers of the API by path
	Commands  map[string]string          `json:"commands"`  // output by arguments
}

// oldCommands are the commands whose output is kept; all end with 0 but audit verify,
// which reports the entries that the test planted.
var oldCommands = []string{"audit log --format ndjson", "projections list --json", "audit verify --json", "token list --json"}

// oldWriter drives the version before.
type oldWriter struct {
	*testing.T
	binary, database string
	settings         []string
	conn             *pgx.Conn
}

func (w *oldWriter) node(roles string) *product {
	p := &product{Process: harness.NewProcess(w, "the version before", w.binary), dataDir: harness.ShortDir(w), token: adminToken}
	p.extra = append(slices.Clone(w.settings), "MEDILAB_SHUTDOWN_TIMEOUT=10s")
	if roles != "" {
		p.extra = append(p.extra, "MEDILAB_ROLES="+roles)
	}
	p.start()
	return p
}

// run runs a command of the version before, whatever code it ends with.
func (w *oldWriter) run(args ...string) string {
	w.Helper()
	out, notes, err := harness.Run(w.Context(), w.binary, harness.Environment(w.settings...), "", args...)
	if ended := (*exec.ExitError)(nil); err != nil && (args[1] != "verify" || notes == "" && ended == nil) {
		w.Fatalf("%v: %v\n%s%s", args, err, out, notes)
	}
	return out
}

func (w *oldWriter) exec(sql string, args ...any) {
	w.Helper()
	if _, err := w.conn.Exec(w.Context(), sql, args...); err != nil {
		w.Fatal(err)
	}
}

func (w *oldWriter) positions(sql string) []int64 {
	w.Helper()
	rows, err := w.conn.Query(w.Context(), sql)
	if err != nil {
		w.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		w.Fatal(err)
	}
	return all
}

// plant appends an entry as something else than this version would.
func (w *oldWriter) plant(stream, kind, data string) (position int64) {
	w.Helper()
	err := w.conn.QueryRow(w.Context(), `WITH head AS (UPDATE medilab.log_head SET position = position + 1 RETURNING position)
		INSERT INTO medilab.events (position, stream, version, type, data, metadata, recorded_at)
		SELECT position, $1, 1, $2, convert_to($3, 'UTF8'), '{}', clock_timestamp() FROM head RETURNING position`, stream, kind, data).Scan(&position)
	if err != nil {
		w.Fatal(err)
	}
	return position
}

// TestWriteOldLog writes the fixture of TestOldLog:
//
//	MEDILAB_OLD_BINARY=/path/to/medilab-webhooks go test ./cmd/e2e -run TestWriteOldLog
func TestWriteOldLog(t *testing.T) {
	program := os.Getenv(oldBinaryVariable)
	if program == "" {
		t.Skip(oldBinaryVariable + " names no binary of the version before migration 14")
	}
	if err := os.MkdirAll(oldLogFolder, 0o755); err != nil {
		t.Fatal(err)
	}
	keys := filepath.Join(t.TempDir(), "keys.json")
	w := &oldWriter{T: t, binary: program, database: testdb.NewEmpty(t)}
	w.settings = []string{"DATABASE_URL=" + w.database, "MEDILAB_KEYS=" + keys, "MEDILAB_ALLOW_TARGETS=loopback"}
	a := w.node("")
	b := w.node("")
	var err error
	if w.conn, err = pgx.Connect(t.Context(), w.database); err != nil {
		t.Fatal(err)
	}
	defer w.conn.Close(t.Context()) //nolint:errcheck // each statement was checked
	var answers oldAnswers

	fine := harness.Receive(t, nil)
	fails := harness.Receive(t, func(rw http.ResponseWriter, _ harness.Call) { http.Error(rw, "not now", http.StatusServiceUnavailable) })
	flaky := harness.Receive(t, func(rw http.ResponseWriter, r harness.Call) {
		if r.Attempt() == "1" {
			rw.WriteHeader(http.StatusInternalServerError)
		}
	})
	release := make(chan struct{})
	hangs := harness.Receive(t, func(http.ResponseWriter, harness.Call) { <-release })
	t.Cleanup(func() { close(release) }) // before the receiver closes

	everything := a.register(fine.URL, `{"name":"everything","secret":"a secret of the fixture","headers":{"X-Clinic":"a header of the fixture"}}`)
	payments := a.register(fine.URL, `{"name":"large payments","events":["payment.*"],"filters":{"amount_min":500}}`)
	again := b.register(flaky.URL, `{"name":"fails once","events":["visit.*"],"retry_delay":1}`)
	gives := b.register(fails.URL, `{"name":"gives up","events":["patient.created"],"retry_delay":1,"max_retries":1,"headers":{"X-Other":"another header"}}`)
	later := a.register(fails.URL, `{"name":"retries later","events":["patient.updated"],"retry_delay":3600}`)
	threes := b.register(fine.URL, `{"name":"batches of three","events":["visit.*","payment.*"],"batch":{"max_events":3,"max_wait":1}}`)
	waits := a.register(fine.URL, `{"name":"waits for a batch","events":["patient.*"],"batch":{"max_events":1000,"max_wait":300}}`)
	short := b.register(fails.URL, `{"name":"deleted with deliveries","events":["patient.updated"],"retry_delay":3600}`)
	toggled := a.register(fine.URL, `{"name":"on and off","events":["visit.*"],"filters":{"room":{"$in":["1","3"]}}}`)
	stuck := b.register(hangs.URL, `{"name":"hangs","events":["patient.deleted"],"timeout":300}`)
	w.run("token", "create", "--name", "old clinic", "--scopes", "events:write")

	// By turns at both nodes, so that each has to leave decisions to the reader of the log.
	n := 0
	trigger := func(eventType string) string {
		n++
		at := []*product{a, b}[n%2]
		return at.trigger(fmt.Sprintf(`{"event_type":%q,"event_data":{"n":%d,"amount":%d,"room":"%d","name":"Иван \u0000"},"source":"fixture","correlation_id":"c-%d"}`,
			eventType, n, n%4*250, n%4, n%5))
	}
	round := func() {
		for _, eventType := range []string{"patient.created", "payment.completed", "visit.created", "patient.updated", "visit.completed", "payment.refunded"} {
			trigger(eventType)
		}
	}
	round()
	round()
	b.api(200, "PATCH", "/webhooks/"+payments.ID, `{"filters":{"amount_min":300},"description":"changed once"}`, nil)
	a.triggerAll("payment.completed", numbered(0, 4)...)
	a.api(200, "POST", "/webhooks/"+toggled.ID+"/deactivate", "", nil)
	round()
	b.api(200, "POST", "/webhooks/"+toggled.ID+"/activate", "", nil)
	a.api(200, "POST", "/webhooks/"+everything.ID+"/test", `{"event_type":"patient.created"}`, nil)
	b.api(200, "POST", "/webhooks/"+everything.ID+"/rotate-secret", `{"secret":"a second secret of the fixture","overlap_seconds":3600}`, nil)
	round()

	// Entries that cannot be read.
	answers.Mendable = w.plant("event-"+uuid.Must(uuid.NewV7()).String(), "event.triggered", `{"event_type":7,"event_data":{"amount":1}}`)
	answers.Poison = []int64{
		answers.Mendable,
		w.plant("surprise-"+uuid.NewString(), "surprise.happened", `{"schema":99}`),
		w.plant("webhook-"+uuid.NewString(), "webhook.repainted", `{"colour":"blue"}`),
		w.plant("event-"+uuid.Must(uuid.NewV7()).String(), "event.annotated", `{}`),
	}
	harness.Until(t, "the entries are set aside", func() bool {
		return reads[int](t, w.database, `SELECT count(*) FROM medilab.undispatched`) == 2
	})
	a.api(204, "DELETE", "/webhooks/"+short.ID, "", nil)
	for range 3 {
		w.exec(`SELECT medilab.emit('visit.updated', '{"room":"3"}', correlation_id => 'sql')`)
	}
	w.exec(`INSERT INTO medilab.event_types VALUES ('lab.result_ready', 'Готов анализ', 'A result is ready')`)
	w.exec(`SELECT medilab.emit('lab.result_ready', '{"n":1}')`)
	round()
	harness.Until(t, "the outbox is empty", func() bool { return reads[int](t, w.database, `SELECT count(*) FROM medilab.outbox`) == 0 })
	var replay struct {
		ReplayID string `json:"replay_id"`
	}
	b.api(202, "POST", "/webhooks/"+payments.ID+"/replay", `{"from":"2020-01-01T00:00:00Z","to":"2100-01-01T00:00:00Z","event_types":["visit.created"]}`, &replay)
	b.Until("the replay is done", func() bool {
		var progress replayProgress
		b.api(200, "GET", "/webhooks/"+payments.ID+"/replays/"+replay.ReplayID, "", &progress)
		return progress.State == "done"
	})
	harness.Until(t, "what can end has ended", func() bool {
		return reads[int](t, w.database, `SELECT count(*) FROM medilab.pending WHERE due_at < clock_timestamp() + interval '60 s'`) == 0 &&
			reads[int](t, w.database, `SELECT count(*) FROM medilab.batch_members WHERE webhook_id = $1`, threes.ID) == 0
	})

	// One node dies in a call; nobody takes over.
	a.stop()
	for i := range 12 { // a node alone decides as it appends
		b.trigger(fmt.Sprintf(`{"event_type":%q,"event_data":{"amount":%d}}`, []string{"payment.completed", "patient.updated"}[i%2], i*50))
	}
	b.trigger(`{"event_type":"patient.deleted","event_data":{"n":1}}`)
	hangs.Await(1)
	// Of an inactive webhook something waits.
	b.api(200, "PATCH", "/webhooks/"+again.ID, `{"retry_delay":3600}`, nil)
	last := b.trigger(`{"event_type":"visit.created","event_data":{"room":"0"}}`)
	b.Until("the first attempt has failed", func() bool {
		for _, c := range b.calls(again.ID) {
			if c.EventID == last {
				return true
			}
		}
		return false
	})
	b.api(200, "POST", "/webhooks/"+again.ID+"/deactivate", "", nil)
	harness.Until(t, "only the call is under way", func() bool {
		return reads[int](t, w.database, `SELECT count(*) FROM medilab.pending WHERE node IS NOT NULL`) == 1 &&
			reads[int](t, w.database, `SELECT count(*) FROM medilab.batch_members WHERE webhook_id = $1`, threes.ID) == 0 &&
			reads[int64](t, w.database, `SELECT min(h.position - r.position) FROM medilab.log_head AS h, medilab.readers AS r`) == 0
	})
	b.Kill()

	// Nobody dispatches any more, while events come and webhooks change.
	api := w.node("api,projections")
	emit := func() {
		for i, eventType := range []string{"patient.created", "payment.completed", "visit.created", "patient.updated", "visit.completed", "payment.refunded"} {
			w.run("emit", eventType, fmt.Sprintf(`{"amount":%d,"room":"%d"}`, i*200, i%4), "--correlation-id", "late")
		}
	}
	emit()
	api.api(200, "PATCH", "/webhooks/"+payments.ID, `{"filters":{"amount_max":100},"events":["payment.*","visit.created"]}`, nil)
	api.api(200, "POST", "/webhooks/"+toggled.ID+"/deactivate", "", nil)
	emit()
	doomed := api.register(fine.URL, `{"name":"deleted before the decision"}`)
	api.trigger(`{"event_type":"patient.created","event_data":{"by":"the API alone"}}`)
	emit()
	api.api(204, "DELETE", "/webhooks/"+doomed.ID, "", nil)
	api.api(200, "PATCH", "/webhooks/"+threes.ID, `{"batch":null}`, nil)
	emit()
	newest := api.register(fine.URL, `{"name":"the newest","events":["visit.*"]}`)
	emit()
	// A replay that nobody has gone on with asks for some of them too.
	api.api(202, "POST", "/webhooks/"+newest.ID+"/replay", `{"from":"2020-01-01T00:00:00Z","to":"2100-01-01T00:00:00Z","event_types":["visit.completed"]}`, nil)
	w.exec(`SELECT medilab.emit('visit.updated', '{"room":"1"}', correlation_id => 'left in the outbox')`)

	// What this version has to say.
	api.Until("the read models are at the head", func() bool {
		return reads[bool](t, w.database, `SELECT r.position = h.position FROM medilab.log_head AS h, medilab.readers AS r WHERE r.name = 'projections'`)
	})
	answers.Head = reads[int64](t, w.database, `SELECT position FROM medilab.log_head`)
	answers.Undecided = w.positions(`SELECT position FROM medilab.events AS e WHERE type = 'event.triggered' AND position <> ` + fmt.Sprint(answers.Mendable) + `
		AND convert_from(data, 'UTF8') NOT LIKE '%"recipients":%'
		AND position > (SELECT position FROM medilab.readers WHERE name = 'dispatcher') ORDER BY position`)
	late := reads[int](t, w.database, `SELECT count(*) FROM medilab.events WHERE type = 'event.dispatched'`)
	inline := reads[int](t, w.database, `SELECT count(*) FROM medilab.events WHERE type = 'event.triggered' AND convert_from(data, 'UTF8') LIKE '%"recipients":%'`)
	t.Logf("%d entries, %d events decided late, %d inline, %d undecided", answers.Head, late, inline, len(answers.Undecided))
	if late < 15 || inline < 5 || len(answers.Undecided) != 30 {
		t.Errorf("this is no good mixture: try again")
	}
	answers.Requests = map[string]json.RawMessage{}
	ask := func(path string) {
		t.Helper()
		status, answer := api.request("GET", "/api/v1"+path, "")
		if status != 200 {
			t.Fatalf("%s answered %d: %s", path, status, answer)
		}
		answers.Requests[path] = answer
	}
	const span = "from=2020-01-01T00:00:00Z&to=2100-01-01T00:00:00Z"
	ask("/webhooks/?limit=1000")
	ask("/webhooks/events?limit=1000")
	ask("/webhooks/events/parked?limit=1000")
	for _, one := range []webhook{everything, payments, again, gives, later, threes, waits, short, toggled, stuck, doomed, newest} {
		ask("/webhooks/" + one.ID + "/history")
		ask("/webhooks/" + one.ID + "/calls?limit=1000")
		if one != short && one != doomed {
			ask("/webhooks/" + one.ID + "/stats?" + span)
		}
	}
	ask("/webhooks/system/stats?" + span)
	for _, stream := range regexp.MustCompile(`"stream":"event-([^"]*)"[^\n]*"type":"event.triggered"`).FindAllStringSubmatch(w.run("audit", "log", "--format", "ndjson"), -1) {
		for _, about := range []string{"", "/explain", "/deliveries?limit=1000"} {
			if status, answer := api.request("GET", "/api/v1/webhooks/events/"+stream[1]+about, ""); status == 200 {
				answers.Requests["/webhooks/events/"+stream[1]+about] = answer
			}
		}
	}
	answers.Commands = map[string]string{}
	for _, command := range oldCommands {
		answers.Commands[command] = w.run(strings.Fields(command)...)
	}
	if now := reads[int64](t, w.database, `SELECT position FROM medilab.log_head`); now != answers.Head {
		t.Errorf("the log went on to %d while it was asked about", now)
	}
	api.stop()

	dump, err := exec.Command("pg_dump", "--schema=medilab", "--no-owner", "--no-privileges", "--inserts", "--rows-per-insert=100", w.database).Output()
	if err != nil {
		t.Fatal(err)
	}
	// What servers of other versions, or others than psql, do not know.
	dump = regexp.MustCompile(`(?m)^(\\(un)?restrict|SET (default_table_access_method|transaction_timeout) ).*\n`).ReplaceAll(dump, nil)
	text, err := json.Marshal(answers)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := os.ReadFile(keys)
	if err != nil {
		t.Fatal(err)
	}
	write(t, "dump.sql.gz", compressed(t, dump))
	write(t, "answers.json.gz", compressed(t, text))
	write(t, "keys.json", secret)
	t.Logf("the dump has %d bytes, the answers %d, at %v", len(dump), len(text), time.Now().UTC())
}

func write(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(oldLogFolder, name), content, 0o644); err != nil {
		t.Fatal(err)
	}
}

func compressed(t *testing.T, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
