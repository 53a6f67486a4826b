package http_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/commands/outbox"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/envelope"
	"github.com/medilab/webhooks/eventstore"
)

// dump returns all that the database's tables hold, as pg_dump would write it.
func (s *service) dump() string {
	s.t.Helper()
	var all strings.Builder
	rows, err := s.pool.Query(s.t.Context(), `SELECT tablename FROM pg_tables WHERE schemaname = 'medilab'`)
	if err != nil {
		s.t.Fatal(err)
	}
	var tables []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			s.t.Fatal(err)
		}
		tables = append(tables, name)
	}
	if rows.Err() != nil || len(tables) < 10 {
		s.t.Fatalf("tables %v: %v", tables, rows.Err())
	}
	for _, name := range tables {
		var text string
		err := s.pool.QueryRow(s.t.Context(), `SELECT coalesce(string_agg(t::text, E'\n'), '') FROM medilab.`+name+` AS t`).Scan(&text)
		if err != nil {
			s.t.Fatal(err)
		}
		all.WriteString(text)
	}
	return all.String()
}

// holdsInClear reports whether the dump has the text: as it is, as bytes, or in base64 among others.
func holdsInClear(dump, text string) bool {
	return strings.Contains(dump, text) || strings.Contains(dump, fmt.Sprintf("%x", text))
}

// echoing is a receiver that answers what it got, with the status.
func echoing(t *testing.T, status int) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("X-Echo", "Testov")
		w.WriteHeader(status)
		if _, err := w.Write(body); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestEraseSubject(t *testing.T) {
	s := newService(t)
	s.work()
	const hook = `{"name":%q,"url":%q,"events":["*"],"max_retries":5,"retry_delay":3600}`
	good := s.ask("POST", "/api/v1/webhooks", fmt.Sprintf(hook, "good", echoing(t, 200))).want(201).text("id")
	s.ask("POST", "/api/v1/webhooks", fmt.Sprintf(hook, "bad", echoing(t, 500))).want(201)
	s.ask("POST", "/api/v1/webhooks", fmt.Sprintf(`{"name":"choosy","url":%q,"events":["*"],"filters":{"status":"paid"}}`, echoing(t, 200))).want(201)
	trigger := func(data string) string {
		return s.ask("POST", "/api/v1/webhooks/events/trigger", `{"event_type":"patient.updated","event_data":`+data+`}`).want(202).text("event_id")
	}
	s.ask("POST", "/api/v1/subjects/%00/erase", `{"reason":"asked for"}`).refusing("subject")
	s.ask("GET", "/api/v1/subjects/%ff/disclosures", "").refusing("subject")
	const calls = 6 // three events to two webhooks
	first := trigger(`{"patient_id": 17, "name": "Testov"}`)
	both := trigger(`{"patient_id": [17, "18"], "name": "Testov"}`)
	other := trigger(`{"patient_id": "18", "name": "Otherov"}`)
	made := func() (n int) {
		err := s.pool.QueryRow(t.Context(), `SELECT count(*) FROM medilab.events WHERE type IN ('delivery.succeeded', 'delivery.attempt_failed')`).Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	s.until("the calls are made", func() bool { return made() == calls })
	s.settled()
	if dump := s.dump(); holdsInClear(dump, "Testov") || holdsInClear(dump, "Otherov") {
		t.Error("the database holds a name in clear")
	}
	call := s.ask("GET", "/api/v1/webhooks/"+good+"/calls?limit=1", "").want(200)
	callOf := func(event string) answer {
		list := s.ask("GET", "/api/v1/webhooks/"+good+"/calls", "").want(200)
		for i := range 3 {
			if list.text("items", i, "event_id") == event {
				return s.ask("GET", "/api/v1/webhooks/"+good+"/calls/"+list.text("items", i, "call_id"), "").want(200)
			}
		}
		t.Fatalf("no call of %s in %s", event, call.body)
		return answer{}
	}
	if shown := callOf(first); !strings.Contains(shown.text("response_body"), "Testov") || !strings.Contains(shown.text("payload"), "Testov") {
		t.Errorf("before: %s", shown.body)
	}

	erased := s.ask("POST", "/api/v1/subjects/17/erase", `{"reason":"asked for"}`).want(200)
	if erased.get("events") != "2" || erased.get("deliveries_cancelled") != "2" {
		t.Errorf("erased %s, want both events and what waits for the bad receiver", erased.body)
	}
	for _, id := range []string{first, both} {
		event := s.ask("GET", "/api/v1/webhooks/events/"+id, "").want(200)
		if event.get("event_data") != "null" || event.get("erased") != "true" {
			t.Errorf("the event is shown as %s", event.body)
		}
		if shown := callOf(id); shown.get("erased") != "true" || shown.get("payload") != "null" || shown.get("response_body") != "null" || strings.Contains(string(shown.body), "Testov") {
			t.Errorf("the call is shown as %s", shown.body)
		}
		if explained := s.ask("GET", "/api/v1/webhooks/events/"+id+"/explain", "").want(200); explained.get("erased") != "true" || !strings.HasPrefix(explained.text("items", 2, "reason"), "event_data is erased") {
			t.Errorf("explained as %s", explained.body)
		}
		deliveries := s.ask("GET", "/api/v1/webhooks/events/"+id+"/deliveries", "").want(200)
		if !strings.Contains(string(deliveries.body), "subject_erased") {
			t.Errorf("its deliveries: %s", deliveries.body)
		}
	}
	if event := s.ask("GET", "/api/v1/webhooks/events/"+other, "").want(200); event.text("event_data", "name") != "Otherov" {
		t.Errorf("the other patient's event: %s", event.body)
	}
	const always = `"from":"2000-01-01T00:00:00Z","to":"2100-01-01T00:00:00Z"`
	if dry := s.ask("POST", "/api/v1/webhooks/"+good+"/replay", `{`+always+`,"dry_run":true}`).want(202); dry.get("matched") != "1" {
		t.Errorf("a replay sends %s", dry.body)
	}
	if lines := s.ask("GET", "/api/v1/audit/events", "").want(200); strings.Contains(string(lines.body), `"name": "Testov"`) {
		t.Error("the history shows the name")
	}
	if err := s.log.Verify(t.Context(), func(d eventstore.Damage) { t.Errorf("damaged: %+v", d) }, func(_, _ eventstore.Position) {}); err != nil {
		t.Fatal(err)
	}

	// The same person is known again afterwards.
	again := trigger(`{"patient_id": "17", "name": "Testov"}`)
	if event := s.ask("GET", "/api/v1/webhooks/events/"+again, "").want(200); event.text("event_data", "name") != "Testov" {
		t.Errorf("a later event: %s", event.body)
	}
	if erased := s.ask("POST", "/api/v1/subjects/17/erase", `{"reason":"again"}`).want(200); erased.get("events") != "1" {
		t.Errorf("the next erasure: %s", erased.body)
	}
	s.ask("POST", "/api/v1/subjects/17/erase", `{}`).want(422)
}

// An export has a line of JSON for each event and call, whatever the patient's id and the form
// of the data.
func TestExportSubject(t *testing.T) {
	s := newService(t)
	s.work()
	s.ask("POST", "/api/v1/webhooks", fmt.Sprintf(`{"name":"all","url":%q,"events":["*"]}`, echoing(t, 200))).want(201)
	s.ask("POST", trigger, "{\"event_type\":\"patient.updated\",\"event_data\":{\n  \"patient_id\": \"a/b Ж\",\r\n  \"name\": \"Testov\"\n}}").want(202)
	s.settled()
	const subject = "/api/v1/subjects/a%2Fb%20%D0%96"
	s.until("it is in the export", func() bool {
		lines := strings.Split(strings.TrimSuffix(string(s.ask("GET", subject+"/export", "").want(200).body), "\n"), "\n")
		for i, line := range lines {
			var item map[string]struct{ Payload *string }
			if err := json.Unmarshal([]byte(line), &item); err != nil || len(item) != 1 || !strings.Contains(line, "Testov") {
				t.Fatalf("line %d is %q: %v", i, line, err)
			}
		}
		return len(lines) == 2
	})
	if list := s.ask("GET", subject+"/disclosures", "").want(200); list.get("items", 0, "acknowledged") != "true" {
		t.Errorf("disclosed: %s", list.body)
	}
	if erased := s.ask("POST", subject+"/erase", `{"reason":"asked for"}`).want(200); erased.get("events") != "1" {
		t.Errorf("erased: %s", erased.body)
	}
}

// Another process stops reading and using an erased subject's key when it hears of it.
func TestErasureReachesOtherProcesses(t *testing.T) {
	s := newService(t)
	s.work()
	url := s.pool.Config().ConnString()
	other := newServiceOn(t, url)
	trigger := func(of *service) string {
		return of.ask("POST", "/api/v1/webhooks/events/trigger", `{"event_type":"patient.updated","event_data":{"patient_id":"17"}}`).want(202).text("event_id")
	}
	before := trigger(other)
	s.ask("POST", "/api/v1/subjects/17/erase", `{"reason":"asked for"}`).want(200)
	after := trigger(other) // decided again, with a new key
	if event := s.ask("GET", "/api/v1/webhooks/events/"+after, "").want(200); event.text("event_data", "patient_id") != "17" {
		t.Errorf("an event since: %s", event.body)
	}
	if err := other.commands.Directory.CatchUp(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	if event := other.ask("GET", "/api/v1/webhooks/events/"+before, "").want(200); event.get("erased") != "true" {
		t.Errorf("the other process shows %s", event.body)
	}
}

func TestDisclosures(t *testing.T) {
	s := newService(t)
	s.work()
	const hook = `{"name":%q,"url":%q,"events":["patient.*"],"max_retries":0}`
	good, bad := echoing(t, 200), echoing(t, 500)
	id := s.ask("POST", "/api/v1/webhooks", fmt.Sprintf(hook, "good", good)).want(201).text("id")
	s.ask("POST", "/api/v1/webhooks", fmt.Sprintf(hook, "bad", bad)).want(201)
	s.ask("POST", "/api/v1/webhooks", fmt.Sprintf(hook, "closed", "http://127.0.0.1:1/")).want(201)
	event := s.ask("POST", "/api/v1/webhooks/events/trigger", `{"event_type":"patient.updated","event_data":{"patient_id":"17"}}`).want(202).text("event_id")
	s.ask("POST", "/api/v1/webhooks/events/trigger", `{"event_type":"patient.updated","event_data":{"patient_id":"18"}}`).want(202)
	tested := s.ask("POST", "/api/v1/webhooks/"+id+"/test", `{"event_type":"visit.created","test_data":{"patient_id":"17"}}`).want(200).text("event_id")
	ended := func() (n int) {
		err := s.pool.QueryRow(t.Context(), `SELECT count(*) FROM medilab.events WHERE type IN ('delivery.succeeded', 'delivery.attempt_failed')`).Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	s.until("the calls are made", func() bool { return ended() == 6 })

	// A call of a third delivery was cut off.
	cut := domain.DeliveryInterrupted{EventID: domain.EventID(uuid.MustParse(event)), EventType: "patient.updated", WebhookID: domain.WebhookID(uuid.MustParse(id)), Attempt: 2, URL: "http://cut.example/"}
	s.interrupt(domain.DeliveryOf(cut.EventID, cut.WebhookID), 1, cut)

	want := map[string]string{
		good + " dispatch " + event: "true", bad + " dispatch " + event: "false", "http://cut.example/ dispatch " + event: `"unknown"`, good + " test " + tested: "true",
	}
	check := func(path string, want map[string]string) {
		t.Helper()
		got := map[string]string{}
		for cursor := ""; ; {
			list := s.ask("GET", path+"limit=2"+cursor, "").want(200)
			var items struct {
				Items []struct {
					URL, Kind    string
					EventID      string `json:"event_id"`
					Acknowledged json.RawMessage
				}
			}
			list.into(&items)
			for _, i := range items.Items {
				got[i.URL+" "+i.Kind+" "+i.EventID] = string(i.Acknowledged)
			}
			if list.get("next_cursor") == "null" {
				break
			}
			cursor = "&cursor=" + list.text("next_cursor")
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", path, got, want)
		}
	}
	check("/api/v1/subjects/17/disclosures?", want)
	check("/api/v1/subjects/19/disclosures?", map[string]string{})
	s.ask("POST", "/api/v1/subjects/17/erase", `{"reason":"asked for"}`).want(200)
	check("/api/v1/subjects/17/disclosures?", want) // who got it is still known
	if list := s.ask("GET", "/api/v1/webhooks/"+id+"/disclosures?to=2000-01-01T00:00:00Z", "").want(200); list.get("items") != "[]" {
		t.Errorf("long ago: %s", list.body)
	}
	to := s.ask("GET", "/api/v1/webhooks/"+id+"/disclosures", "").want(200)
	for what, n := range map[string]int{`"kind":"test"`: 1, `"kind":"dispatch"`: 3, `"acknowledged":"unknown"`: 1} {
		if got := strings.Count(string(to.body), what); got != n {
			t.Errorf("to the webhook: %d of %s in %s", got, what, to.body)
		}
	}
}

// interrupt records an attempt that was cut off.
func (s *service) interrupt(id domain.DeliveryID, version int64, cut domain.DeliveryInterrupted) {
	s.t.Helper()
	_, err := s.log.Append(s.t.Context(), eventstore.Unit{Writes: []eventstore.Write{{Stream: id.Stream(), Expected: version,
		Events: []eventstore.NewEvent{{Type: cut.ChangeType(), Data: domain.AppendJSON(nil, cut), Value: cut}}}}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.settled()
}

// A replay, and a webhook that is inactive, keep nothing of a subject that is erased.
func TestErasureCancelsReplays(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.work()
	s.ask("POST", "/api/v1/webhooks", `{"name":"idle","url":"`+echoing(t, 200)+`","events":["*"],"is_active":false}`).want(201)
	event := s.ask("POST", "/api/v1/webhooks/events/trigger", `{"event_type":"patient.updated","event_data":{"patient_id":"17"}}`).want(202).text("event_id")
	id := s.ask("POST", "/api/v1/webhooks/1/replay", `{"from":"2000-01-01T00:00:00Z","to":"2100-01-01T00:00:00Z"}`).want(202).text("replay_id")
	replay := func() answer { return s.ask("GET", "/api/v1/webhooks/1/replays/"+id, "").want(200) }
	s.until("it is queued", func() bool { return replay().get("queued") == "1" })
	if erased := s.ask("POST", "/api/v1/subjects/17/erase", `{"reason":"asked for"}`).want(200); erased.get("deliveries_cancelled") != "1" {
		t.Errorf("erased %s, want what the replay waits for cancelled", erased.body)
	}
	s.until("the replay is over", func() bool { return replay().text("state") == "completed" })
	if done := replay(); done.get("queued") != "1" || done.get("cancelled") != "1" {
		t.Errorf("the replay: %s", done.body)
	}
	if deliveries := s.ask("GET", "/api/v1/webhooks/events/"+event+"/deliveries", "").want(200); !strings.Contains(string(deliveries.body), "subject_erased") {
		t.Errorf("its deliveries: %s", deliveries.body)
	}
}

// What was emitted, and what was parked, goes with its subject: also a message that is no JSON, or
// whose data nothing can read.
func TestErasureDropsWhatWaits(t *testing.T) {
	s := newService(t)
	s.work() // an erasure waits for the read models
	for _, data := range []string{`{"patient_id":"17"}`, `{"patient_id":[18,17]}`, `{"patient_id":"18"}`, `{"patient_id":"18","patient_id":"17"}`, `{"patient_id":17,"a":1,"a":2}`, `{"patient_id":17.0,"a":1,"a":2}`} {
		if _, err := s.pool.Exec(t.Context(), `INSERT INTO medilab.outbox (event_id, event_type, event_data, size, emitted_by) VALUES (gen_random_uuid(), 'patient.created', $1::text::json, 40, 'clinic')`, data); err != nil {
			t.Fatal(err)
		}
	}
	for _, raw := range []string{`{"event_type":"x","event_data":{"patient_id":"17"}`, `{"patient_id": 17, oops`, `{"patient_id":17,},}`, `{"patient_id":"117"`} {
		if _, err := outbox.ParkMessage(t.Context(), s.pool, outbox.Message{Actor: "source", Raw: []byte(raw), Reason: "why not"}); err != nil {
			t.Fatal(err)
		}
	}
	s.ask("POST", "/api/v1/subjects/17/erase", `{"reason":"asked for"}`).want(200)
	for table, want := range map[string]string{"outbox": `{"patient_id":"18"}`, "parked_events": `"{\"patient_id\":\"117\""`} {
		var left string
		if err := s.pool.QueryRow(t.Context(), `SELECT coalesce(string_agg(event_data::text, ' '), '') FROM medilab.`+table).Scan(&left); err != nil {
			t.Fatal(err)
		}
		if left != want {
			t.Errorf("in %s %s is left, want %s", table, left, want)
		}
	}
}

// What the relay parks once it was listed for an erasure is dropped too; another event under its id stays.
func TestErasureDropsWhatIsParkedMeanwhile(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.work() // an erasure waits for the read models
	_, err := s.pool.Exec(t.Context(), `
		INSERT INTO medilab.outbox (event_id, event_type, event_data, size, emitted_by)
			SELECT 'a0000000-0000-4000-8000-000000000001', 'patient.created', data::json, 40, 'clinic'
			FROM unnest('{"{\"patient_id\":\"17\"}", "{\"patient_id\":\"18\"}"}'::text[]) AS data;
		CREATE FUNCTION park() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
			WITH refused AS (DELETE FROM medilab.outbox RETURNING *)
			INSERT INTO medilab.parked_events (event_id, event_type, event_data, emitted_by, emitted_at, reason)
				SELECT event_id, event_type, event_data, emitted_by, emitted_at, 'a test' FROM refused;
			RETURN NULL;
		END$$;
		CREATE TRIGGER park BEFORE DELETE ON medilab.data_keys EXECUTE FUNCTION park()`) // at the beginning of the append
	if err != nil {
		t.Fatal(err)
	}
	s.ask("POST", "/api/v1/subjects/17/erase", `{"reason":"asked for"}`).want(200)
	var left string
	if err := s.pool.QueryRow(t.Context(), `SELECT coalesce(string_agg(event_data::text, ' '), '') FROM medilab.parked_events`).Scan(&left); err != nil {
		t.Fatal(err)
	}
	if want := `{"patient_id":"18"}`; left != want {
		t.Errorf("parked is %s, want %s", left, want)
	}
}

// What a replay has read of a subject that is erased is left out, and counts as cancelled.
func TestReplayLeavesOutErased(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.work()
	const n = 5
	for range n {
		s.ask("POST", "/api/v1/webhooks/events/trigger", `{"event_type":"patient.updated","event_data":{"patient_id":"17"}}`).want(202)
	}
	second, erased := make(chan struct{}), make(chan struct{})
	var calls atomic.Int32
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		if calls.Add(1) == 2 {
			close(second)
			<-erased
		}
	}))
	t.Cleanup(receiver.Close)
	s.ask("POST", "/api/v1/webhooks", `{"name":"new","url":"`+receiver.URL+`","events":["*"]}`).want(201)
	id := s.ask("POST", "/api/v1/webhooks/1/replay", `{"from":"2000-01-01T00:00:00Z","to":"2100-01-01T00:00:00Z"}`).want(202).text("replay_id")
	replay := func() answer { return s.ask("GET", "/api/v1/webhooks/1/replays/"+id, "").want(200) }
	<-second
	s.ask("POST", "/api/v1/subjects/17/erase", `{"reason":"asked for"}`).want(200)
	close(erased)
	s.until("the replay is over", func() bool { return replay().text("state") == "completed" })
	if done := replay(); done.get("matched") != "5" || done.get("queued") != "2" || done.get("delivered") != "1" || done.get("cancelled") != "4" {
		t.Errorf("the replay: %s", done.body)
	}
}

// noSubjects finds nothing, as when what is to be cancelled is queued meanwhile.
type noSubjects struct{}

func (noSubjects) AwaitSubjects(context.Context, eventstore.Position) error { return nil }

func (noSubjects) SubjectEvents(context.Context, envelope.Owner, eventstore.Position, eventstore.Position, int) ([]eventstore.Position, error) {
	return nil, nil
}

// What an erasure did not reach is cancelled in its turn, and counts in its replay.
func TestErasedInItsTurnCountsInReplay(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.commands.Subjects = noSubjects{}
	s.work()
	s.ask("POST", "/api/v1/webhooks/events/trigger", `{"event_type":"patient.updated","event_data":{"patient_id":"17"}}`).want(202)
	s.ask("POST", "/api/v1/webhooks", `{"name":"idle","url":"`+echoing(t, 200)+`","events":["*"],"is_active":false}`).want(201)
	id := s.ask("POST", "/api/v1/webhooks/1/replay", `{"from":"2000-01-01T00:00:00Z","to":"2100-01-01T00:00:00Z"}`).want(202).text("replay_id")
	replay := func() answer { return s.ask("GET", "/api/v1/webhooks/1/replays/"+id, "").want(200) }
	s.until("it is queued", func() bool { return replay().get("queued") == "1" })
	s.ask("POST", "/api/v1/subjects/17/erase", `{"reason":"asked for"}`).want(200)
	s.ask("PATCH", "/api/v1/webhooks/1", `{"is_active":true}`).want(200)
	s.until("the replay is over", func() bool { return replay().text("state") == "completed" })
	if done := replay(); done.get("queued") != "1" || done.get("cancelled") != "1" {
		t.Errorf("the replay: %s", done.body)
	}
}

// A patient whose id is long is found, at once, and erased as others are.
func TestSubjectOfALongID(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.work()
	id := strings.Repeat("x", 5000)
	event := s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{"patient_id":["17","`+id+`"]}}`).want(202).text("event_id")
	if found := s.ask("GET", "/api/v1/search?subject=17", "", "X-Access-Reason", "asked for").want(200); found.text("items", 0, "id") != event {
		t.Errorf("found %s", found.body)
	}
	if erased := s.ask("POST", "/api/v1/subjects/"+id+"/erase", `{"reason":"asked for"}`).want(200); erased.get("events") != "1" {
		t.Errorf("erased %s", erased.body)
	}
}

// stuck is a client that does not read its answer until it is released.
type stuck struct {
	*httptest.ResponseRecorder
	answered, release chan struct{}
}

func (s *stuck) Write(b []byte) (int, error) {
	close(s.answered)
	<-s.release
	return len(b), nil
}

// A list that stands for who asks meanwhile does not outlive that this process hears of an erasure.
func TestKeptListsForgetTheErased(t *testing.T) {
	s := newService(t)
	s.work()
	other := newServiceOn(t, s.pool.Config().ConnString())
	s.ask("POST", trigger, `{"event_type":"patient.updated","event_data":{"patient_id":"17","name":"Testov"}}`).want(202)
	s.settled()
	const list = "/api/v1/webhooks/events?limit=7"
	client := &stuck{httptest.NewRecorder(), make(chan struct{}), make(chan struct{})}
	r := httptest.NewRequestWithContext(t.Context(), "GET", list, nil)
	r.Header.Set("Authorization", "Bearer "+s.token)
	var group sync.WaitGroup
	group.Go(func() { s.handler.ServeHTTP(client, r) })
	defer group.Wait()
	defer close(client.release)
	<-client.answered
	other.ask("POST", "/api/v1/subjects/17/erase", `{"reason":"asked for"}`).want(200)
	s.ask("GET", list, "").want(200) // made when the key may be at hand here still
	if err := s.commands.Directory.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := s.ask("GET", list, "").want(200); strings.Contains(string(after.body), "Testov") {
		t.Errorf("it shows the erased: %s", after.body)
	}
}

// What has expired is cancelled when its turn comes, alone or in a batch. Whoever cancels it in the place
// of a call knows that none is under way.
func TestExpiredIsCancelledInItsTurn(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.commands.Directory.Keys.Keep = 50 * time.Second // periods of a second
	s.work()
	bad := echoing(t, 500)
	s.registerAt(bad, `,"retry_delay":2`)
	s.ask("POST", "/api/v1/webhooks", `{"name":"batches","url":"`+bad+`","events":["*"],"retry_delay":2,"batch":{"max_events":2,"max_wait":60}}`).want(201)
	var events []string
	for range 2 {
		events = append(events, s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{"patient_id":"17"}}`).want(202).text("event_id"))
	}
	count := func(part string) (n int) {
		for _, event := range events {
			n += strings.Count(string(s.ask("GET", "/api/v1/webhooks/events/"+event+"/deliveries", "").want(200).body), part)
		}
		return n
	}
	s.until("all have failed", func() bool { return count(`"attempts":0`) == 0 })
	const old = -10 * time.Second
	if err := s.commands.ExpirePayloads(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	s.until("all are cancelled", func() bool { return count(`"state":"cancelled"`) == 4 })
	if expired, tried := count(`"reason":"payloads_expired"`), count(`"attempts":1`); expired != 4 || tried != 4 {
		t.Errorf("of 4, %d are cancelled as expired, %d after one attempt", expired, tried)
	}
	if explained := s.ask("GET", "/api/v1/webhooks/events/"+events[1]+"/explain", "").want(200); strings.Count(string(explained.body), `"reason":"payloads_expired"`) != 2 {
		t.Errorf("explained as %s", explained.body)
	}
	var noted int
	if err := s.pool.QueryRow(t.Context(), `SELECT count(*) FROM medilab.cut_short`).Scan(&noted); err != nil || noted != 0 {
		t.Errorf("%d calls are noted that may be under way, %v", noted, err)
	}
}

// What of a failed batch is erased, or has expired, is cancelled as that once a replay has sent the rest.
func TestReplayOfABatchWithoutItsGone(t *testing.T) {
	t.Parallel()
	for reason, destroy := range map[domain.CancelReason]func(s *service){
		domain.CancelSubjectErased: func(s *service) {
			s.ask("POST", "/api/v1/subjects/0/erase", `{"reason":"asked for"}`).want(200)
		},
		domain.CancelExpired: func(s *service) {
			if err := s.commands.ExpirePayloads(t.Context(), -10*time.Second); err != nil {
				t.Fatal(err)
			}
		},
	} {
		s := newService(t)
		s.commands.Directory.Keys.Keep = 50 * time.Second // periods of a second
		s.work()
		keeping := newServiceOn(t, s.pool.Config().ConnString())
		var works atomic.Bool
		receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if !works.Load() {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}))
		t.Cleanup(receiver.Close)
		s.ask("POST", "/api/v1/webhooks", `{"name":"batches","url":"`+receiver.URL+`","events":["*"],"max_retries":0,"batch":{"max_events":3,"max_wait":60}}`).want(201)
		var events []string
		for i, by := range []*service{s, keeping, keeping} {
			events = append(events, by.ask("POST", trigger, fmt.Sprintf(`{"event_type":"patient.created","event_data":{"patient_id":"%d"}}`, i)).want(202).text("event_id"))
		}
		list := func(state string) answer {
			return s.ask("GET", "/api/v1/webhooks/deliveries?state="+state, "").want(200)
		}
		s.until("the batch has failed", func() bool { return strings.Count(list("failed").get("items"), `"delivery_id"`) == 3 })
		destroy(s)
		works.Store(true)
		id := s.ask("POST", "/api/v1/webhooks/1/replay", `{"from":"2000-01-01T00:00:00Z","to":"2100-01-01T00:00:00Z","only_failed":true}`).want(202).text("replay_id")
		s.until("the replay is over", func() bool {
			return s.ask("GET", "/api/v1/webhooks/replays/"+id, "").want(200).text("state") == "completed"
		})
		s.settled()
		if failed := list("failed"); failed.get("items") != "[]" {
			t.Errorf("%s: failed are %s", reason, failed.body)
		}
		cancelled := list("cancelled")
		if cancelled.text("items", 0, "event_id") != events[0] || cancelled.text("items", 0, "reason") != string(reason) || strings.Count(string(cancelled.body), `"delivery_id"`) != 1 {
			t.Errorf("%s: cancelled are %s", reason, cancelled.body)
		}
		if explained := s.ask("GET", "/api/v1/webhooks/events/"+events[0]+"/explain", "").want(200); explained.text("items", 0, "verdict") != "cancelled" || explained.text("items", 0, "reason") != string(reason) {
			t.Errorf("%s: explained as %s", reason, explained.body)
		}
		refused := s.ask("POST", "/api/v1/webhooks/deliveries/"+cancelled.text("items", 0, "delivery_id")+"/retry", "").want(409)
		if again := s.ask("POST", "/api/v1/webhooks/deliveries/"+cancelled.text("items", 0, "delivery_id")+"/cancel", "").want(409); !strings.Contains(again.text("detail"), "cancelled already") {
			t.Errorf("%s: it is cancelled again: %s", reason, again.body)
		}
		if expired := strings.Contains(refused.text("detail"), "has expired"); expired != (reason == domain.CancelExpired) {
			t.Errorf("%s: a retry is refused by %s", reason, refused.body)
		}
	}
}
