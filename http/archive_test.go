package http_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/commands/archive"
	"github.com/medilab/webhooks/commands/receipts"
	"github.com/medilab/webhooks/commands/saga"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/projections"
)

func (s *service) archiver() *archive.Archiver {
	s.t.Helper()
	signer, err := receipts.Open(s.t.Context(), s.pool, keysetOf(s.t, s.pool.Config().ConnString()))
	if err != nil {
		s.t.Fatal(err)
	}
	return &archive.Archiver{Log: s.log, Pool: s.pool, Signer: signer, ReadModels: s.queries, Actor: "test", Progress: func(string, eventstore.Position, eventstore.Position) {}}
}

// Answers about a patient say what is archived of the log, and an erasure reaches that too.
func TestSubjectsOfAnArchive(t *testing.T) {
	s := newService(t)
	s.work()
	hook := s.ask("POST", "/api/v1/webhooks", fmt.Sprintf(`{"name":"good","url":%q,"events":["patient.*"]}`, echoing(t, 200))).want(201).text("id")
	event := s.ask("POST", "/api/v1/webhooks/events/trigger", `{"event_type":"patient.updated","event_data":{"patient_id":"17"}}`).want(202).text("event_id")
	s.until("delivered", func() bool { return s.deliveryState(event) == "delivered" })
	s.settled()
	lists := []string{"/api/v1/subjects/17/disclosures", "/api/v1/webhooks/" + hook + "/disclosures"}
	for _, path := range lists {
		if list := s.ask("GET", path, "").want(200); list.get("covered_from") != "null" || list.text("items", 0, "event_id") != event {
			t.Errorf("before: %s", list.body)
		}
	}
	s.settled()

	archiver, dir := s.archiver(), t.TempDir()
	exported, err := archiver.Export(t.Context(), time.Now().Add(time.Hour), dir)
	if err != nil {
		t.Fatal(err)
	}
	s.settled()
	for _, path := range lists {
		list := s.ask("GET", path, "").want(200)
		if from, err := time.Parse(time.RFC3339, list.text("covered_from")); err != nil || !from.Equal(exported.To) || list.get("items") != "[]" {
			t.Errorf("archived up to %s: %s", exported.To, list.body)
		}
	}
	gone := s.ask("GET", "/api/v1/stream", "", "Last-Event-ID", fmt.Sprint(exported.Last-1)).want(410)
	if gone.get("archived_to") != fmt.Sprint(exported.Last) {
		t.Errorf("resumed in what is archived: %s", gone.body)
	}
	s.stream("", "Last-Event-ID", fmt.Sprint(exported.Last))
	if lines := s.ask("GET", "/api/v1/subjects/17/export", "").want(200); !strings.HasPrefix(string(lines.body), `{"covered_from":"`) {
		t.Errorf("exported %s", lines.body)
	}
	erased := s.ask("POST", "/api/v1/subjects/17/erase", `{"reason":"asked for"}`).want(200)
	if erased.get("events") != "0" || erased.get("archived_to") != fmt.Sprint(exported.Last) {
		t.Errorf("erased %s, and %d is the last archived", erased.body, exported.Last)
	}
	owner, err := s.commands.Directory.Keys.Owner(t.Context(), "17")
	if err != nil {
		t.Fatal(err)
	}
	var left int
	err = s.pool.QueryRow(t.Context(), `SELECT count(*) FROM medilab.data_keys WHERE owner = $1`, uuid.UUID(owner)).Scan(&left)
	if err != nil || left > 0 {
		t.Errorf("%d keys are left: %v", left, err)
	}
	if _, err := archiver.Import(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if shown := s.ask("GET", "/api/v1/webhooks/events/"+event, "").want(200); shown.get("erased") != "true" || shown.get("event_data") != "null" {
		t.Errorf("restored as %s", shown.body)
	}
}

// Of what an import has restored so far nothing is cancelled: not by an erasure, also after a rebuild, and
// not by request.
func TestErasureDuringAnImport(t *testing.T) {
	s := newService(t)
	s.work()
	s.ask("POST", "/api/v1/webhooks", fmt.Sprintf(`{"name":"good","url":%q,"events":["patient.*"],"batch":{"max_events":2,"max_wait":60}}`, echoing(t, 200))).want(201)
	var events []string
	for _, patient := range []string{"17", "18"} {
		events = append(events, s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{"patient_id":"`+patient+`"}}`).want(202).text("event_id"))
	}
	for _, event := range events {
		s.until("delivered", func() bool { return s.deliveryState(event) == "delivered" })
	}
	batch := s.ask("GET", "/api/v1/webhooks/events/"+events[0]+"/deliveries", "").want(200).text("items", 0, "batch_id")
	s.settled()
	head := s.head()
	var half []eventstore.Event
	err := s.log.Scan(t.Context(), 0, head, 1000, func(page []eventstore.Event) error {
		for _, e := range page {
			if _, ended := e.Value.(domain.DeliverySucceeded); !ended {
				half = append(half, e)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	archiver, dir := s.archiver(), t.TempDir()
	if _, err := archiver.Export(t.Context(), time.Now().Add(time.Hour), dir); err != nil {
		t.Fatal(err)
	}
	if err := s.log.Restore(t.Context(), half, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.queries.Rebuild(t.Context(), nil, nil); err != nil {
		t.Fatal(err)
	}
	s.ask("POST", "/api/v1/webhooks/deliveries/"+batch+"/cancel", "").want(409)
	erased := s.ask("POST", "/api/v1/subjects/17/erase", `{"reason":"asked for"}`).want(200)
	if erased.get("events") != "0" || erased.get("deliveries_cancelled") != "0" || erased.get("archived_to") != fmt.Sprint(head) {
		t.Errorf("erased %s", erased.body)
	}
	if _, err := archiver.Import(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	s.settled()
	for _, event := range events {
		if state := s.deliveryState(event); state != "delivered" {
			t.Errorf("after the import a delivery is %s", state)
		}
	}
	err = s.queries.Verify(t.Context(), saga.Queue{}, func(p projections.Problem) { t.Errorf("%+v", p) }, nil)
	if err != nil {
		t.Error(err)
	}
}
