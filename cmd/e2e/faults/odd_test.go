package faults

import (
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/commands/vault"
)

func itoa(n int) string { return strconv.Itoa(n) }

// One node's clock is an hour late, another's an hour early: retries come when
// they are due all the same, timestamps are the database's, durations are true.
func TestClockOff(t *testing.T) {
	inCampaign(t)
	t.Parallel()
	h := newHome(t, sharedCluster(t).database(t))
	l := newLedger(t, h)
	nodes := []*node{h.node("late", clockVariable+"=-3600"), h.node("early", clockVariable+"=3600"), h.node("right")}
	for _, n := range nodes {
		n.Program = faulty(t)
		n.start()
	}
	const delay = time.Second
	var mu sync.Mutex
	ended := map[string]time.Time{} // when the last attempt of a delivery was answered
	wrong := newComplaints(t)
	l.subscribe(nodes[0], "thrice", func(w http.ResponseWriter, r *http.Request, got receipt) {
		mu.Lock()
		defer mu.Unlock()
		if sent, err := strconv.ParseInt(r.Header.Get("Webhook-Timestamp"), 10, 64); err != nil || time.Since(time.Unix(sent, 0)).Abs() > time.Minute {
			wrong.add("attempt %d says that it was made at %v", got.attempt, r.Header.Get("Webhook-Timestamp"))
		}
		if got.attempt > 1 {
			due := delay << (got.attempt - 2)
			// It is never early; how late, the load of the machine decides too.
			if waited := got.at.Sub(ended[got.delivery]); waited < due-5*time.Millisecond || waited > due+due/20+3*time.Second {
				wrong.add("attempt %d came %v after the one before", got.attempt, waited)
			}
		}
		if got.attempt <= 2 {
			w.WriteHeader(http.StatusInternalServerError)
		}
		ended[got.delivery] = time.Now()
	}, map[string]any{"retry_delay": 1}, everything)
	l.loadFor(3*time.Second, 60, nodes...)
	l.balance(nodes[2])
	mu.Lock()
	defer mu.Unlock()
	wrong.report()
	var odd int
	if err := l.db.QueryRow(t.Context(), `SELECT count(*) FROM medilab.events WHERE type LIKE 'delivery.%' AND
		((convert_from(data, 'UTF8')::json->>'duration_us')::bigint NOT BETWEEN 0 AND 30000000
		OR abs(extract(epoch FROM recorded_at - (convert_from(data, 'UTF8')::json->>'started_at')::timestamptz)) > 60)`).Scan(&odd); err != nil {
		t.Fatal(err)
	}
	if odd > 0 {
		t.Errorf("%d calls have a wrong time or duration", odd)
	}
	l.verified()
}

// Poison in the log: a type that nobody knows, and data that does not decode, for the
// read models; and a key that is missing. Each is set aside with its reason and shown,
// the others flow, and after the mend it is read.
func TestPoison(t *testing.T) {
	inCampaign(t)
	t.Parallel()
	h := newHome(t, sharedCluster(t).database(t))
	l := newLedger(t, h)
	n := h.node("node").start()
	l.usual(n)
	stop := l.load(80, n)
	pass(t, time.Second)
	bad := uuid.Must(uuid.NewV7())
	for stream, entry := range map[string][2]string{
		"event-" + bad.String():                     {"event.triggered", `{"event_type":7,"event_data":{"amount":1}}`},
		"surprise-" + uuid.NewString():              {"surprise.happened", `{"schema":99}`},
		"webhook-" + uuid.NewString():               {"webhook.repainted", `{"colour":"blue"}`},
		"event-" + uuid.Must(uuid.NewV7()).String(): {"event.annotated", `{}`},
	} {
		l.exec(`WITH head AS (UPDATE medilab.log_head SET position = position + 1 RETURNING position)
			INSERT INTO medilab.events (position, stream, version, type, data, metadata, recorded_at)
			SELECT position, $1, 1, $2, convert_to($3, 'UTF8'), '{}', clock_timestamp() FROM head`, stream, entry[0], entry[1])
	}
	parked := func() (count int) {
		if err := l.db.QueryRow(t.Context(), `SELECT count(*) FROM medilab.parked WHERE reason <> ''`).Scan(&count); err != nil {
			t.Fatal(err)
		}
		return count
	}
	until(t, "the poison is set aside with its reason", func() bool { return parked() == 4 })
	until(t, "the metrics tell", func() bool { return n.metric("medilab_parked_events") == 4 })
	pass(t, time.Second)

	// Without its keyset, and with another one, the server does not start.
	keys := filepath.Join(h.dir, "keys.json")
	stop()
	if code := n.Term(); code != 0 {
		t.Errorf("the process ended with %d", code)
	}
	if err := os.Rename(keys, keys+".lost"); err != nil {
		t.Fatal(err)
	}
	for _, another := range []bool{false, true} {
		if another {
			if _, err := vault.Open(keys, false); err != nil {
				t.Fatal(err)
			}
		}
		n.Launch()
		<-n.Done()
		if n.ExitCode() != 1 || !strings.Contains(n.Said.String(), "keyset") {
			t.Errorf("with another keyset (%t) the server ended with %d", another, n.ExitCode())
		}
	}
	if err := os.Rename(keys+".lost", keys); err != nil {
		t.Fatal(err)
	}
	n.start()

	// The mend: the damaged entry is put right, and the rest can be read by a newer
	// version, which here means that it goes.
	l.exec(`ALTER TABLE medilab.events DISABLE TRIGGER events_append_only`)
	l.exec(`UPDATE medilab.events SET data = convert_to('{"event_type":"payment.completed","source":"mend","recipients":[],"event_data":{"amount":900}}', 'UTF8') WHERE stream = $1`, "event-"+bad.String())
	l.exec(`ALTER TABLE medilab.events ENABLE ALWAYS TRIGGER events_append_only`)
	if out, err := h.command("projections", "rebuild", "--all"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if left := parked(); left != 3 {
		t.Errorf("%d entries are parked after the mend of one of four", left)
	}
	l.balance(n)
}
