package main

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/cmd/testbed"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations/testdb"
)

// What the database alone cannot tell, an anchor does: that the log's end was cut
// off, seals and head included, and that other events took its place.
func TestAnchors(t *testing.T) {
	c := newCLI(t)
	file := filepath.Join(t.TempDir(), "anchors.ndjson")
	if _, said := c.run(1, "", "audit", "anchor"); !strings.Contains(said, "empty") {
		t.Errorf("an empty log: %s", said)
	}
	for range 3 {
		c.run(0, "", "emit", "patient.created", `{"a":1}`)
	}
	printed, _ := c.run(0, "", "audit", "anchor")
	c.matches("the anchor", printed, `\{"position":3,"seal":"[0-9a-f]{64}","recorded_at":"[^"]*Z"\}\n`)
	c.run(0, "", "audit", "anchor", "--file", file)
	c.run(0, "", "emit", "patient.updated", `{"a":1}`)
	c.run(0, "", "audit", "anchor", "--file", file)
	if data, err := os.ReadFile(file); err != nil || strings.Count(string(data), "\n") != 2 || !strings.HasPrefix(string(data), printed) {
		t.Fatalf("the file has %s, %v", data, err)
	}

	conn, err := pgx.Connect(t.Context(), os.Getenv("DATABASE_URL"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	check := func(path string, want ...string) {
		t.Helper()
		s := openSession(t, databaseOptions{url: os.Getenv("DATABASE_URL")})
		var found []string
		if err := checkAnchors(t.Context(), s.log, path, func(_ eventstore.Position, text string) { found = append(found, text) }); err != nil {
			t.Fatal(err)
		}
		if len(found) != len(want) {
			t.Fatalf("found %q, want %q", found, want)
		}
		for i := range want {
			if !strings.Contains(found[i], want[i]) {
				t.Errorf("found %q, want %q", found, want)
			}
		}
	}
	check(file)
	c.run(0, "", "audit", "verify", "--anchor", file)

	// As a careful thief who owns the database would: nothing is left over.
	for _, statement := range []string{
		`SET session_replication_role = replica`, `ALTER TABLE medilab.events DISABLE TRIGGER USER`, `ALTER TABLE medilab.seals DISABLE TRIGGER USER`,
		`DELETE FROM medilab.events WHERE position > 3`, `DELETE FROM medilab.seals WHERE last_position > 3`,
		`UPDATE medilab.log_head SET (position, last_seal, recorded_at) = (SELECT last_position, seal, recorded_at FROM medilab.seals ORDER BY last_position DESC LIMIT 1)`,
		`ALTER TABLE medilab.events ENABLE ALWAYS TRIGGER events_append_only`, `ALTER TABLE medilab.seals ENABLE ALWAYS TRIGGER seals_append_only`,
	} {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	check(file, "cut off")
	c.run(0, "", "audit", "verify") // alone it cannot know
	if said, _ := c.run(1, "", "audit", "verify", "--anchor", file); !strings.Contains(said, "cut off") {
		t.Error(said)
	}
	out, _ := c.run(1, "", "audit", "verify", "--anchor", file)
	c.matches("the problems", out, `KIND .*\n(.+\n)*anchor +4 .*cut off\n`)
	c.run(0, "", "emit", "patient.updated", `{"a":2}`)
	check(file, "rewritten")

	for name, content := range map[string]string{"nothing": "", "something else": "{}", "half an anchor": printed[:30]} {
		path := filepath.Join(t.TempDir(), "bad")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := checkAnchors(t.Context(), nil, path, nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// A line that was cut off costs nobody an erasure: it is noted again, on a line of its own, as
// are those of other nodes.
func TestErasuresAreNoted(t *testing.T) {
	c := newCLI(t)
	options := databaseOptions{url: os.Getenv("DATABASE_URL"), dataDir: t.TempDir(), subject: "patient_id"}
	t.Setenv("MEDILAB_DATA_DIR", options.dataDir)
	file := options.anchorFile()
	for _, id := range []string{"17", "18"} {
		c.run(0, "", "emit", "patient.created", `{"patient_id":`+id+`}`)
		c.run(0, "", "subjects", "erase", id, "--reason", "asked for")
	}
	whole, err := os.ReadFile(file)
	if err != nil || strings.Count(string(whole), `"erased_at"`) != 2 {
		t.Fatalf("the file has %s, %v", whole, err)
	}
	if err := os.WriteFile(file, whole[:len(whole)-10], 0o600); err != nil {
		t.Fatal(err)
	}
	start := func() { // as serve does
		t.Helper()
		s := openSession(t, options)
		served := &server{settings: settings{database: options}, logger: slog.New(slog.DiscardHandler), log: s.log, commands: s.commands, anchors: s.anchors}
		if err := errors.Join(served.eraseAgain(t.Context()), served.anchors.addHeard(s.log)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the second time there is nothing to note
		start()
		lines, broken, err := readAnchors(file)
		if err != nil || len(lines) != 2 || broken != 2 || len(lines[1].Erased) != 1 || lines[1].Erased[0].Subject == lines[0].Erased[0].Subject {
			t.Errorf("the file has %+v, a broken line %d, %v", lines, broken, err)
		}
	}
	if _, said := c.run(1, "", "audit", "verify", "--anchor", file); !strings.Contains(said, "line 2 of ") {
		t.Errorf("verify says %s", said)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	start()
	if lines, _, err := readAnchors(file); err != nil || len(lines) != 1 || len(lines[0].Erased) != 2 {
		t.Errorf("a new file has %+v, %v", lines, err)
	}
}

// A server notes erasures that others make, and its own, each once; one of the command line that
// has nowhere to note it says so.
func TestServersNoteErasuresOfOthers(t *testing.T) {
	c := newCLI(t)
	keys, nowhere := filepath.Join(t.TempDir(), "keys.json"), filepath.Join(t.TempDir(), "none")
	options := databaseOptions{dataDir: t.TempDir()}
	t.Setenv("MEDILAB_KEYS", keys)
	t.Setenv("MEDILAB_TOKEN", testToken)
	url, stop := serveHere(t, "--database-url", os.Getenv("DATABASE_URL"), "--keys", keys, "--data-dir", options.dataDir)
	noted := func() int {
		content, err := os.ReadFile(options.anchorFile())
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return strings.Count(string(content), `"erased_at"`)
	}
	for i, erase := range []struct{ dir, language, server, says string }{
		{nowhere, "C", "", "The erasure is not in " + nowhere + "/anchors.ndjson, which cannot be written here: a running server .*\n"},
		{nowhere, "ru_RU.UTF-8", "", "Стирания нет в " + nowhere + "/anchors.ndjson: .*\n"},
		{nowhere, "C", url, ""},
		{options.dataDir, "C", "", ""}, // both may note it
	} {
		t.Setenv("MEDILAB_DATA_DIR", erase.dir)
		t.Setenv("LC_ALL", erase.language)
		_, notes := c.run(0, "", "subjects", "erase", "17", "--reason", "asked for", "--server", erase.server)
		c.matches("the note", notes, erase.says)
		if n := noted(); erase.server != "" && n != i+1 {
			t.Errorf("a server answers, and %d erasures are noted, not %d", n, i+1)
		}
		harness.Until(t, "it is noted", func() bool { return noted() == i+1 })
	}
	stop()
	if n := noted(); n != 4 {
		t.Errorf("%d are noted of 4 erasures", n)
	}
	if _, err := os.Stat(nowhere); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a data folder was made: %v", err)
	}
}

// A server whose database is replaced by an older copy while it runs erases again before it shows or
// sends anything, and once: what is accepted afterwards stays, also when it starts again.
func TestErasedAgainUnderARunningServer(t *testing.T) {
	c := newCLI(t)
	database, keys, dir := os.Getenv("DATABASE_URL"), filepath.Join(t.TempDir(), "keys.json"), t.TempDir()
	t.Setenv("MEDILAB_TOKEN", testToken)
	in := harness.Receive(t, nil)
	var url string
	start := func() (stop func()) {
		url, stop = serveHere(t, "--database-url", database, "--keys", keys, "--data-dir", dir)
		return stop
	}
	api := func(method, path, body string) testbed.Response {
		t.Helper()
		answer, err := testbed.Request(t.Context(), testToken, method, url+"/api/v1"+path, []byte(body))
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	trigger := func() (event string) {
		t.Helper()
		var accepted struct {
			EventID string `json:"event_id"`
		}
		answer := api("POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{"patient_id":"17","name":"Testov"}}`)
		if err := json.Unmarshal(answer.Body, &accepted); err != nil || answer.Status != http.StatusAccepted {
			t.Fatalf("%d %s %v", answer.Status, answer.Body, err)
		}
		return accepted.EventID
	}
	ready := func() bool { return testbed.Status(t.Context(), url+"/readyz") == http.StatusOK }

	stop := start()
	api("POST", "/webhooks/", `{"name":"w","url":"`+in.URL+`","events":["patient.*"]}`)
	down := harness.Receive(t, func(w http.ResponseWriter, _ harness.Call) { w.WriteHeader(http.StatusInternalServerError) })
	api("POST", "/webhooks/", `{"name":"down","url":"`+down.URL+`","events":["patient.*"],"retry_delay":86400}`)
	old := trigger()
	in.Await(1)
	waiting := func(member string) bool {
		return strings.Contains(string(api("GET", "/webhooks/events/"+old+"/deliveries", "").Body), member)
	}
	harness.Until(t, "a delivery waits for its retry", func() bool { return waiting(`"response_status":500`) })
	restore := testdb.Snapshot(t, database)
	harness.Until(t, "it is ready", ready)
	c.run(0, "", "subjects", "erase", "17", "--reason", "asked for", "--server", url)
	restore()
	harness.Until(t, "the event is shown", func() bool {
		answer := api("GET", "/webhooks/events/"+old, "")
		if strings.Contains(string(answer.Body), "Testov") {
			t.Fatalf("what was erased is shown: %s", answer.Body)
		}
		return answer.Status == http.StatusOK
	})
	harness.Until(t, "it is ready", ready)
	harness.Until(t, "the delivery that waits is cancelled", func() bool { return waiting(`"subject_erased"`) })
	trigger()
	in.Await(2)
	var replay struct {
		ID    string `json:"replay_id"`
		State string `json:"state"`
	}
	answer := api("POST", "/webhooks/1/replay", `{"from":"2020-01-01T00:00:00Z","to":"`+time.Now().UTC().Format(time.RFC3339Nano)+`"}`)
	if err := json.Unmarshal(answer.Body, &replay); err != nil || replay.ID == "" {
		t.Fatalf("%s: %v", answer.Body, err)
	}
	harness.Until(t, "the replay ends", func() bool {
		answer := api("GET", "/webhooks/1/replays/"+replay.ID, "").Body
		if err := json.Unmarshal(answer, &replay); err != nil {
			t.Fatalf("%s: %v", answer, err)
		}
		return replay.State == "completed"
	})
	if n := len(in.All()); n != 3 {
		t.Errorf("there were %d calls, want that of each event and a replay of the new one", n)
	}
	later := trigger()
	stop()
	stop = start()
	if answer := api("GET", "/webhooks/events/"+later, ""); !strings.Contains(string(answer.Body), "Testov") {
		t.Errorf("what came after the restore is gone: %s", answer.Body)
	}
	stop()
}
