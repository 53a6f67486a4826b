package http_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/commands/archive"
	"github.com/medilab/webhooks/commands/receipts"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations/testdb"
)

// oldAnswers are what a service answers of a log that was written in clear, by path.
type oldAnswers struct {
	webhook, erased string // an event of a patient who is to be erased
	answers         map[string]string
}

// writeInClear makes a log as versions wrote it that did not encrypt.
func writeInClear(t *testing.T, database string) (was oldAnswers) {
	s := newServiceOn(t, database)
	s.commands.Directory.Keys = nil
	s.work()
	const hook = `{"name":%q,"url":%q,"events":["*"],"max_retries":0%s}`
	was.webhook = s.ask("POST", "/api/v1/webhooks", fmt.Sprintf(hook, "good", echoing(t, 200), "")).want(201).text("id")
	s.ask("POST", "/api/v1/webhooks", fmt.Sprintf(hook, "bad", echoing(t, 500), "")).want(201)
	s.ask("POST", "/api/v1/webhooks", fmt.Sprintf(hook, "batches", echoing(t, 200), `,"batch":{"max_events":2,"max_wait":1}`)).want(201)
	past := strings.Repeat(`{"event_type":"patient.updated","event_data":{"patient_id":"19","name":"Pastova"},"deliver":false},`, 400)
	for range 2 {
		s.ask("POST", "/api/v1/webhooks/events/trigger/batch", `{"events":[`+strings.TrimSuffix(past, ",")+`]}`).want(202)
	}
	var events []string
	for _, data := range []string{`{"patient_id": "16", "name": "Erasova"}`, `{"patient_id":17,"name":"Testov"}`, `{"patient_id":[17,"18"],"name":"Testov"}`, `{"name":"Nobodyev"}`} {
		events = append(events, s.ask("POST", trigger, `{"event_type":"visit.created","event_data":`+data+`}`).want(202).text("event_id"))
	}
	for _, id := range events {
		s.until("delivered", func() bool {
			return strings.Count(string(s.ask("GET", "/api/v1/webhooks/events/"+id+"/deliveries", "").want(200).body), `"pending"`) == 0
		})
	}
	s.ask("POST", "/api/v1/webhooks/"+was.webhook+"/test", `{"event_type":"visit.created","test_data":{"patient_id":"17","name":"Testov"}}`).want(200)
	s.settled()
	was.erased = events[0]
	was.answers = map[string]string{}
	for _, id := range events[1:] {
		was.keep(s, "/api/v1/webhooks/events/"+id, "/api/v1/webhooks/events/"+id+"/explain", "/api/v1/webhooks/events/"+id+"/deliveries")
	}
	var calls struct {
		Items []struct {
			Webhook string `json:"webhook_id"`
			ID      string `json:"call_id"`
			Event   string `json:"event_id"`
			Type    string `json:"event_type"`
		}
	}
	s.ask("GET", "/api/v1/webhooks/calls", "").want(200).into(&calls)
	for _, c := range calls.Items {
		if c.Event != was.erased && c.Type != "batch" { // the batches may have events of both
			was.keep(s, "/api/v1/webhooks/"+c.Webhook+"/calls/"+c.ID)
		}
	}
	if !holdsInClear(s.dump(), "Testov") {
		t.Error("the log is not in clear")
	}
	if _, err := s.pool.Exec(t.Context(), `INSERT INTO medilab.unencrypted SELECT position FROM medilab.log_head`); err != nil {
		t.Fatal(err)
	}
	return was
}

func (w oldAnswers) keep(s *service, paths ...string) {
	s.t.Helper()
	for _, path := range paths {
		w.answers[path] = string(s.ask("GET", path, "").want(200).body)
	}
}

// damages returns what a check of the log finds.
func (s *service) damages() (found []string) {
	s.t.Helper()
	err := s.log.Verify(s.t.Context(), func(d eventstore.Damage) { found = append(found, d.Text) }, func(_, _ eventstore.Position) {})
	if err != nil {
		s.t.Fatal(err)
	}
	return found
}

// A log that was written in clear is encrypted while it is served, in steps that can be cut
// off: it answers as before, erasures reach it, and a check of it finds what is changed since.
func TestEncryptLog(t *testing.T) {
	t.Parallel()
	database := testdb.New(t)
	var was oldAnswers
	t.Run("in clear", func(t *testing.T) { was = writeInClear(t, database) })
	s := newServiceOn(t, database)
	s.work()
	clear, err := s.log.Encryption(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if erased := s.ask("POST", "/api/v1/subjects/16/erase", `{"reason":"asked for"}`).want(200); erased.get("unencrypted_until") != fmt.Sprint(clear.Until) || erased.get("events") != "0" {
		t.Errorf("before: erased %s", erased.body)
	}
	caller := commands.Caller{Actor: "owner"}
	ctx, cut := context.WithCancel(t.Context())
	_, err = s.commands.EncryptLog(ctx, caller, func(done, _ eventstore.Position) {
		if done > 0 {
			cut()
		}
	})
	half, failed := s.log.Encryption(t.Context())
	if err == nil || failed != nil || half.Done == 0 || half.Done >= half.Until {
		t.Fatalf("cut off (%v) at %+v: %v", err, half, failed)
	}
	if found := s.damages(); found != nil {
		t.Errorf("half way: %q", found)
	}
	result, err := s.commands.EncryptLog(t.Context(), caller, func(_, _ eventstore.Position) {})
	if err != nil || result.Until != clear.Until || result.Entries == 0 || result.Undecoded > 0 {
		t.Fatalf("encrypted %+v: %v", result, err)
	}
	s.settled()

	dump := s.dump()
	for _, name := range []string{"Erasova", "Testov", "Nobodyev", "Pastova"} {
		if holdsInClear(dump, name) {
			t.Errorf("the database holds %s in clear", name)
		}
	}
	if found := s.damages(); found != nil {
		t.Errorf("encrypted: %q", found)
	}
	for path, before := range was.answers {
		if now := string(s.ask("GET", path, "").want(200).body); now != before {
			t.Errorf("%s answers\n%s\nand answered\n%s", path, now, before)
		}
	}
	if event := s.ask("GET", "/api/v1/webhooks/events/"+was.erased, "").want(200); event.get("erased") != "true" || event.get("event_data") != "null" {
		t.Errorf("the event of an erased patient: %s", event.body)
	}
	s.checkEncryptedSubjects()
	s.checkReplacedIsSealed(half.Done)
	s.checkArchiveOfEncrypted(database)
}

func (s *service) checkEncryptedSubjects() {
	s.t.Helper()
	for subject, want := range map[string]int{"16": 3, "17": 7, "18": 3, "19": 0} { // events and tests, by webhook
		var list struct{ Items []json.RawMessage }
		if s.ask("GET", "/api/v1/subjects/"+subject+"/disclosures", "").want(200).into(&list); len(list.Items) != want {
			s.t.Errorf("%d disclosures of %s, want %d: %s", len(list.Items), subject, want, list.Items)
		}
	}
	if err := s.queries.Rebuild(s.t.Context(), []string{"subjects"}, nil); err != nil {
		s.t.Fatal(err)
	}
	erased := s.ask("POST", "/api/v1/subjects/17/erase", `{"reason":"asked for"}`).want(200)
	if erased.get("events") != "3" || strings.Contains(string(erased.body), "unencrypted_until") {
		s.t.Errorf("erased %s", erased.body)
	}
	if lines := s.ask("GET", "/api/v1/audit/events", "").want(200); strings.Contains(string(lines.body), `"name":"Testov"`) {
		s.t.Error("the history shows the name of who is erased")
	}
}

// checkReplacedIsSealed checks that no change of what was replaced goes unseen, and none of
// its seals.
func (s *service) checkReplacedIsSealed(position eventstore.Position) {
	s.t.Helper()
	exec := func(sql string) {
		s.t.Helper()
		if _, err := s.pool.Exec(s.t.Context(), sql); err != nil {
			s.t.Fatal(err)
		}
	}
	for _, change := range []string{
		`UPDATE medilab.events SET data = data || ' ' WHERE position = 7`,
		`UPDATE medilab.resealed SET seal = seal || '\x00' WHERE last_position = %d`,
		`UPDATE medilab.resealed SET last_position = last_position + 1000000 WHERE last_position = %d`,
		`UPDATE medilab.seals SET seal = seal || '\x00' WHERE last_position = %d`,
	} {
		if strings.Contains(change, "%d") {
			change = fmt.Sprintf(change, position)
		}
		exec(`CREATE TABLE kept AS SELECT * FROM medilab.events; CREATE TABLE kept_seals AS SELECT * FROM medilab.seals; CREATE TABLE kept_resealed AS SELECT * FROM medilab.resealed`)
		exec(`ALTER TABLE medilab.events DISABLE TRIGGER USER; ALTER TABLE medilab.seals DISABLE TRIGGER USER`)
		exec(change)
		exec(`ALTER TABLE medilab.events ENABLE ALWAYS TRIGGER events_append_only; ALTER TABLE medilab.seals ENABLE ALWAYS TRIGGER seals_append_only`)
		if found := s.damages(); len(found) == 0 {
			s.t.Errorf("not seen: %s", change)
		}
		exec(`ALTER TABLE medilab.events DISABLE TRIGGER USER; ALTER TABLE medilab.seals DISABLE TRIGGER USER`)
		exec(`UPDATE medilab.events AS e SET data = k.data FROM kept AS k WHERE k.position = e.position AND k.data <> e.data`)
		exec(`UPDATE medilab.seals AS e SET seal = k.seal FROM kept_seals AS k WHERE k.last_position = e.last_position AND k.seal <> e.seal`)
		exec(`DELETE FROM medilab.resealed; INSERT INTO medilab.resealed SELECT * FROM kept_resealed; DROP TABLE kept, kept_seals, kept_resealed`)
		exec(`ALTER TABLE medilab.events ENABLE ALWAYS TRIGGER events_append_only; ALTER TABLE medilab.seals ENABLE ALWAYS TRIGGER seals_append_only`)
	}
	if found := s.damages(); found != nil {
		s.t.Errorf("all as it was: %q", found)
	}
}

// checkArchiveOfEncrypted archives and restores what was replaced.
func (s *service) checkArchiveOfEncrypted(database string) {
	s.t.Helper()
	signer, err := receipts.Open(s.t.Context(), s.pool, keysetOf(s.t, database))
	if err != nil {
		s.t.Fatal(err)
	}
	archiver := &archive.Archiver{Log: s.log, Pool: s.pool, Signer: signer, ReadModels: s.queries, Actor: "test", Progress: func(string, eventstore.Position, eventstore.Position) {}}
	dir := s.t.TempDir()
	if _, err := archiver.Export(s.t.Context(), time.Now().Add(time.Hour), dir); err != nil {
		s.t.Fatal(err)
	}
	list, err := archive.List(s.t.Context(), dir, signer.PublicKeys(), func(_, _ eventstore.Position) {})
	if err != nil || len(list) != 1 || list[0].Problem != "" {
		s.t.Errorf("the archive: %+v: %v", list, err)
	}
	if found := s.damages(); found != nil {
		s.t.Errorf("archived: %q", found)
	}
	if _, err := archiver.Import(s.t.Context(), dir); err != nil {
		s.t.Fatal(err)
	}
	if found := s.damages(); found != nil {
		s.t.Errorf("restored: %q", found)
	}
}

// What waits of a patient who was erased before the log was encrypted is cancelled then, also
// after a run that was cut off; what waits of others stays.
func TestEncryptLogCancelsWhatIsErased(t *testing.T) {
	t.Parallel()
	database := testdb.New(t)
	var events []string
	t.Run("in clear", func(t *testing.T) {
		s := newServiceOn(t, database)
		s.commands.Directory.Keys = nil
		s.work()
		s.register(`"retry_delay":3600`) // nobody answers there
		s.register(`"retry_delay":3600,"batch":{"max_events":2,"max_wait":60}`)
		for _, patient := range []string{"16", "17"} {
			events = append(events, s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{"patient_id":"`+patient+`"}}`).want(202).text("event_id"))
		}
		for _, id := range events {
			s.until("both calls have failed", func() bool {
				return strings.Count(string(s.ask("GET", "/api/v1/webhooks/events/"+id+"/deliveries", "").want(200).body), `"attempts":1`) == 2
			})
		}
		if _, err := s.pool.Exec(t.Context(), `INSERT INTO medilab.unencrypted SELECT position FROM medilab.log_head`); err != nil {
			t.Fatal(err)
		}
	})
	s := newServiceOn(t, database)
	s.work()
	s.ask("POST", "/api/v1/subjects/16/erase", `{"reason":"asked for"}`).want(200)
	waiting := func(want ...int) {
		t.Helper()
		for i, id := range events {
			list := string(s.ask("GET", "/api/v1/webhooks/events/"+id+"/deliveries", "").want(200).body)
			if n := strings.Count(list, `"state":"pending"`); n != want[i] || strings.Count(list, `"reason":"subject_erased"`) != 2-n {
				t.Errorf("%d of the deliveries of event %d wait, want %d: %s", n, i, want[i], list)
			}
		}
	}
	waiting(2, 2)
	ctx, cut := context.WithCancel(t.Context())
	_, err := s.commands.EncryptLog(ctx, commands.Caller{Actor: "owner"}, func(done, total eventstore.Position) {
		if done == total {
			cut()
		}
	})
	if err == nil {
		t.Fatal("it was not cut off")
	}
	waiting(2, 2)
	var head eventstore.Position
	for range 2 { // the second time there is nothing to cancel
		if _, err := s.commands.EncryptLog(t.Context(), commands.Caller{Actor: "owner"}, func(_, _ eventstore.Position) {}); err != nil {
			t.Fatal(err)
		}
		if head == 0 {
			head = s.head()
		}
	}
	if now := s.head(); now != head {
		t.Errorf("run again, it went on from position %d to %d", head, now)
	}
	waiting(0, 2)
}
