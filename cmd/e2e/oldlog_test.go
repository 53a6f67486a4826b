package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/migrations/testdb"
)

// A log that the version before migration 14 wrote, with decisions in event.dispatched
// and some not made: it reads, explains, rebuilds and verifies as that version said, and
// what was left undecided is decided as of its position and delivered.
func TestOldLog(t *testing.T) {
	l := restoreOldLog(t)
	l.upgrade()
	decided := l.checkDecisions()
	l.checkAnswers()
	l.checkLog()
	l.checkVerified()
	l.command(0, "", "projections", "rebuild", "--all")
	l.checkAnswers()
	l.checkVerified()
	l.stop()

	// The damaged event is mended; its webhooks answer at addresses that there are.
	l.exec(`ALTER TABLE medilab.events DISABLE TRIGGER events_append_only`)
	l.exec(`UPDATE medilab.events SET data = convert_to('{"event_type":"payment.completed","source":"mend","event_data":{"amount":900}}', 'UTF8') WHERE position = $1`, l.was.Mendable)
	l.exec(`ALTER TABLE medilab.events ENABLE ALWAYS TRIGGER events_append_only`)
	in := harness.Receive(t, nil)
	l.extra = append(l.settings, "MEDILAB_ROLES=api")
	l.start()
	for _, w := range l.webhooks() {
		l.api(200, "PATCH", "/webhooks/"+w.ID, `{"url":`+quoted(in.URL)+`}`, nil)
		l.api(200, "POST", "/webhooks/"+w.ID+"/activate", "", nil)
	}
	for _, id := range l.pending() {
		l.request("POST", "/api/v1/webhooks/deliveries/"+id+"/retry", "") // 409 when it goes with a batch
	}
	l.stop()
	l.extra = l.settings
	l.start()
	// What waits for a deleted webhook is cancelled when it comes due, in an hour.
	l.Until("all is delivered", func() bool {
		return reads[int](t, l.database, `SELECT (SELECT count(*) FROM medilab.undecided) + 
			(SELECT count(*) FROM medilab.pending WHERE due_at < clock_timestamp() + interval '10 min') + (SELECT count(*) FROM medilab.batch_members)`) == 0
	})
	l.checkDelivered(in, decided)
	if mended := l.deliveries(strings.TrimPrefix(l.stream(l.was.Mendable), "event-")); len(mended) == 0 {
		t.Error("the mended event went to nobody")
	}
}

// oldLog is a restored fixture and the process that serves it.
type oldLog struct {
	*product
	t        *testing.T
	was      oldAnswers
	settings []string
	conn     *pgx.Conn
}

func restoreOldLog(t *testing.T) *oldLog {
	t.Helper()
	l := &oldLog{product: prepareOn(t, testdb.NewEmpty(t)), t: t}
	if err := json.Unmarshal(unpacked(t, "answers.json.gz"), &l.was); err != nil {
		t.Fatal(err)
	}
	keys := filepath.Join(t.TempDir(), "keys.json")
	secret, err := os.ReadFile(filepath.Join(oldLogFolder, "keys.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(keys, secret, 0o600); err != nil {
		t.Fatal(err)
	}
	l.settings = slices.Clip([]string{"MEDILAB_KEYS=" + keys, "MEDILAB_ALLOW_TARGETS=loopback"})
	restoring, err := pgx.Connect(t.Context(), l.database)
	if err != nil {
		t.Fatal(err)
	}
	_, err = restoring.PgConn().Exec(t.Context(), string(unpacked(t, "dump.sql.gz"))).ReadAll()
	if err := restoring.Close(t.Context()); err != nil { // the dump's settings end with it
		t.Fatal(err)
	}
	if err != nil {
		t.Fatalf("restore the dump: %v", err)
	}
	if l.conn, err = pgx.Connect(t.Context(), l.database); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.conn.Close(t.Context()) }) //nolint:errcheck // each statement was checked
	return l
}

func unpacked(t *testing.T, name string) []byte {
	t.Helper()
	packed, err := os.ReadFile(filepath.Join(oldLogFolder, name))
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func (l *oldLog) exec(sql string, args ...any) {
	l.t.Helper()
	if _, err := l.conn.Exec(l.t.Context(), sql, args...); err != nil {
		l.t.Fatal(err)
	}
}

func (l *oldLog) positions(sql string) []int64 {
	l.t.Helper()
	rows, err := l.conn.Query(l.t.Context(), sql)
	if err != nil {
		l.t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		l.t.Fatal(err)
	}
	return all
}

func (l *oldLog) stream(position int64) string {
	l.t.Helper()
	return reads[string](l.t, l.database, `SELECT stream FROM medilab.events WHERE position = $1`, position)
}

// webhooks lists those that are not deleted.
func (l *oldLog) webhooks() []webhook {
	l.t.Helper()
	var list struct{ Items []webhook }
	l.api(200, "GET", "/webhooks/?limit=1000", "", &list)
	return list.Items
}

// pending lists the deliveries that wait for a time of their own.
func (l *oldLog) pending() []string {
	l.t.Helper()
	rows, err := l.conn.Query(l.t.Context(), `SELECT delivery_id::text FROM medilab.queue WHERE node IS NULL UNION ALL SELECT delivery_id::text FROM medilab.batch_members`)
	if err != nil {
		l.t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		l.t.Fatal(err)
	}
	return all
}

// upgrade starts the server, with more settings, and waits until all that follows by itself is
// done. It has no workers, so that nothing moves but what the upgrade does.
func (l *oldLog) upgrade(settings ...string) {
	l.t.Helper()
	l.extra = append(append(l.settings, "MEDILAB_ROLES=api,saga,projections"), settings...)
	l.start()
	l.Until("all is decided that can be read", func() bool {
		return slices.Equal(l.positions(`SELECT position FROM medilab.undecided`), []int64{l.was.Mendable})
	})
	l.Until("the replay has asked for all", func() bool {
		return reads[bool](l.t, l.database, `SELECT (SELECT count(*) FROM medilab.events WHERE type = 'replay.requested') =
			(SELECT count(*) FROM medilab.events WHERE type = 'replay.completed')`)
	})
	l.Until("the read models are at the head", func() bool {
		return reads[bool](l.t, l.database, `SELECT r.position = h.position FROM medilab.log_head AS h, medilab.readers AS r WHERE r.name = 'projections'`)
	})
}

// checkDecisions compares whom the events go to that were left undecided with the fold
// of the log, and returns these deliveries. One that a replay asked for before is on
// its way by that.
func (l *oldLog) checkDecisions() (decided map[domain.DeliveryID]domain.EventID) {
	l.t.Helper()
	rows, err := l.conn.Query(l.t.Context(), `SELECT position, stream, type, data, recorded_at FROM medilab.events WHERE position <= $1 ORDER BY position`, l.was.Head)
	if err != nil {
		l.t.Fatal(err)
	}
	type entry struct {
		Position     int64
		Stream, Type string
		Data         []byte
		RecordedAt   time.Time
	}
	log, err := pgx.CollectRows(rows, pgx.RowToStructByPos[entry])
	if err != nil {
		l.t.Fatal(err)
	}
	draft := domain.NewRegistry().Draft()
	decided = map[domain.DeliveryID]domain.EventID{}
	found := 0
	for _, e := range log {
		change, err := domain.Decode(e.Type, e.Data)
		if (err != nil) != slices.Contains(l.was.Poison, e.Position) {
			l.t.Errorf("%s at %d decodes with %v", e.Type, e.Position, err)
		}
		if err != nil {
			continue
		}
		kind, id, err := domain.ParseStream(e.Stream)
		if err == nil && kind == "webhook" {
			draft.Apply(domain.WebhookID(id), change, e.RecordedAt)
		}
		if !slices.Contains(l.was.Undecided, e.Position) {
			continue
		}
		found++
		triggered := change.(domain.EventTriggered)
		var got []domain.DeliveryID
		var data []byte
		err = l.conn.QueryRow(l.t.Context(), `SELECT data FROM medilab.events WHERE stream = $1 AND version = 2 AND type = 'event.dispatched'`, e.Stream).Scan(&data)
		if err == nil {
			late, err := domain.Decode("event.dispatched", data)
			if err != nil {
				l.t.Fatal(err)
			}
			for _, d := range late.(domain.EventDispatched).Deliveries {
				got = append(got, d.DeliveryID)
			}
		}
		for _, r := range draft.Registry().Recipients(domain.EventType(triggered.EventType), triggered.EventData) {
			d := domain.DeliveryOf(domain.EventID(id), r.WebhookID)
			decided[d] = domain.EventID(id)
			at := slices.Index(got, d)
			if at >= 0 {
				got = slices.Delete(got, at, at+1)
			} else if reads[int](l.t, l.database, `SELECT count(*) FROM medilab.events WHERE stream = $1`, d.Stream()) == 0 {
				l.t.Errorf("the event at %d does not go to webhook %s", e.Position, r.WebhookID)
			}
		}
		if len(got) > 0 {
			l.t.Errorf("the event at %d goes to %v too", e.Position, got)
		}
	}
	if found != len(l.was.Undecided) || len(decided) < found {
		l.t.Errorf("%d undecided events with %d deliveries were found, want %d", found, len(decided), len(l.was.Undecided))
	}
	return decided
}

// checkAnswers compares what the API answers with what it did.
func (l *oldLog) checkAnswers() {
	l.t.Helper()
	explained := 0
	for path, answer := range l.was.Requests {
		if strings.Contains(path, "/stats") {
			continue // the new decisions count too; audit verify folds the log
		}
		status, now := l.request("GET", "/api/v1"+path, "")
		if status != http.StatusOK {
			l.t.Errorf("%s answered %d: %.300s", path, status, now)
			continue
		}
		var was, is any
		for _, one := range []struct {
			text []byte
			into *any
		}{{answer, &was}, {now, &is}} {
			if err := json.Unmarshal(one.text, one.into); err != nil {
				l.t.Fatalf("%s: %v: %.300s", path, err, one.text)
			}
		}
		if strings.HasSuffix(path, "/explain") {
			explained++
			l.settleDeliveryIDs(was, is)
			// What a replay sent to a webhook that did not exist then was not told.
			explained := is.(map[string]any)
			explained["items"] = slices.DeleteFunc(explained["items"].([]any), func(one any) bool {
				return one.(map[string]any)["verdict"] == "not_registered_yet"
			})
		}
		if strings.HasPrefix(path, "/webhooks/events?") { // the newest come first
			before, after := was.(map[string]any)["items"].([]any), is.(map[string]any)
			items := after["items"].([]any)
			after["items"] = items[max(0, len(items)-len(before)):]
		}
		if strings.Contains(path, "/deliveries?") { // there may be new ones, after the others
			before, after := was.(map[string]any)["items"].([]any), is.(map[string]any)
			items := after["items"].([]any)
			after["items"] = items[:min(len(before), len(items))]
		}
		dropAdded(was, is)
		if !equalJSON(l.t, was, is) {
			l.t.Errorf("%s answers\n%.2000s\nand answered\n%.2000s", path, now, answer)
		}
	}
	if explained < 80 {
		l.t.Errorf("%d events were explained", explained)
	}
}

// dropAdded deletes the fields that answers had not when the log was written.
func dropAdded(was, is any) {
	switch is := is.(type) {
	case map[string]any:
		was, _ := was.(map[string]any)
		maps.DeleteFunc(is, func(name string, _ any) bool { _, had := was[name]; return !had })
		if changes, ok := is["changes"].([]any); ok { // of a webhook's fields
			before, _ := was["changes"].([]any)
			is["changes"] = slices.DeleteFunc(changes, func(one any) bool {
				return !slices.ContainsFunc(before, func(b any) bool { return b.(map[string]any)["field"] == one.(map[string]any)["field"] })
			})
		}
		for name, one := range is {
			dropAdded(was[name], one)
		}
	case []any:
		was, _ := was.([]any)
		for i := range min(len(was), len(is)) {
			dropAdded(was[i], is[i])
		}
	}
}

// settleDeliveryIDs takes the ids out of the explanation of an event that had none
// because it was undecided: each pending verdict must have one now.
func (l *oldLog) settleDeliveryIDs(was, is any) {
	before, after := was.(map[string]any)["items"].([]any), is.(map[string]any)["items"].([]any)
	for i := range min(len(before), len(after)) {
		b, a := before[i].(map[string]any), after[i].(map[string]any)
		if b["verdict"] != "pending" || b["delivery_id"] != nil {
			continue
		}
		if a["delivery_id"] == nil {
			l.t.Errorf("event %v has no delivery to webhook %v", is.(map[string]any)["event_id"], a["webhook_number"])
		}
		delete(a, "delivery_id")
	}
}

func equalJSON(t *testing.T, a, b any) bool {
	t.Helper()
	x, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Equal(x, y)
}

// checkLog compares the old entries, byte for byte.
func (l *oldLog) checkLog() {
	l.t.Helper()
	was := l.was.Commands["audit log --format ndjson"]
	if now := l.command(0, "", "audit", "log", "--format", "ndjson"); !strings.HasPrefix(now, was) || strings.Count(was, "\n") != int(l.was.Head) {
		l.t.Errorf("the first %d entries of the log are not what they were", l.was.Head)
	}
	if was, now := l.was.Commands["token list --json"], l.command(0, "", "token", "list", "--json"); now != was {
		l.t.Errorf("the tokens are %s, were %s", now, was)
	}
}

// verified returns what a check finds.
func (l *oldLog) verified() string {
	l.t.Helper()
	return l.problems(l.command(1, "", "audit", "verify", "--json")) // entries were planted that do not decode
}

func (l *oldLog) problems(said string) string {
	l.t.Helper()
	var report struct{ Problems json.RawMessage }
	if err := json.Unmarshal([]byte(said), &report); err != nil {
		l.t.Fatalf("%v: %s", err, said)
	}
	return string(report.Problems)
}

// checkVerified checks that a check finds what it found, which is what was planted.
func (l *oldLog) checkVerified() {
	l.t.Helper()
	if was, now := l.problems(l.was.Commands["audit verify --json"]), l.verified(); now != was {
		l.t.Errorf("the check finds %s, found %s", now, was)
	}
}

// checkDelivered checks that each delivery was made once, and none that was made before.
func (l *oldLog) checkDelivered(in *harness.Receiver, decided map[domain.DeliveryID]domain.EventID) {
	l.t.Helper()
	calls := map[string]int{}
	for _, r := range in.All() {
		calls[r.Delivery()]++
	}
	for id, event := range decided {
		state := ""
		for _, d := range l.deliveries(event.String()) {
			if d.ID == id.String() {
				state = d.State
			}
		}
		if state != "delivered" && state != "cancelled" {
			l.t.Errorf("delivery %s of event %s is %q", id, event, state)
		}
	}
	for id, n := range calls {
		if n > 1 {
			l.t.Errorf("delivery %s was made %d times", id, n)
		}
	}
	l.t.Logf("%d deliveries decided, %d calls", len(decided), len(calls))
}
