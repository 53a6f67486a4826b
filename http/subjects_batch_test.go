package http_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// A call of a batch that was cut off sent nothing of what was erased before it was due, and maybe
// what was erased since.
func TestDisclosuresOfABatchThatWasCutOff(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.work()
	webhook := s.register(`"batch":{"max_events":2,"max_wait":60},"retry_delay":3600,"max_retries":1`).text("id") // nobody answers there
	var events []string
	for _, patient := range []string{"17", "18"} {
		events = append(events, s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{"patient_id":"`+patient+`"}}`).want(202).text("event_id"))
	}
	delivery := func() answer {
		return s.ask("GET", "/api/v1/webhooks/events/"+events[0]+"/deliveries", "").want(200)
	}
	s.until("it has failed", func() bool { return delivery().get("items", 0, "attempts") == "1" })
	s.ask("POST", "/api/v1/subjects/17/erase", `{"reason":"asked for"}`).want(200)
	s.interrupt(domain.DeliveryID(uuid.MustParse(delivery().text("items", 0, "batch_id"))), 2, domain.DeliveryInterrupted{
		EventID: domain.EventID(uuid.MustParse(events[0])), EventType: "batch", WebhookID: domain.WebhookID(uuid.MustParse(webhook)), Attempt: 2, URL: "http://cut.example/",
	})
	s.ask("POST", "/api/v1/subjects/18/erase", `{"reason":"asked for"}`).want(200)
	for patient, want := range map[string]string{"17": "[]", "18": `"unknown"`} {
		if got := s.ask("GET", "/api/v1/subjects/"+patient+"/disclosures", "").want(200); !strings.Contains(got.get("items"), want) {
			t.Errorf("of %s: %s, want %s", patient, got.body, want)
		}
	}
	if got := s.items("/api/v1/webhooks/1/disclosures"); got != 1 {
		t.Errorf("%d are listed of the webhook, want 1", got)
	}
}

// What a batch leaves out, as it is erased, is cancelled, and was disclosed to nobody.
func TestErasedMemberOfABatchIsNotSent(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.work()
	s.register(`"batch":{"max_events":2,"max_wait":60},"retry_delay":3600`) // nobody answers there
	var events []string
	for _, patient := range []string{"17", "18"} {
		events = append(events, s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{"patient_id":"`+patient+`"}}`).want(202).text("event_id"))
	}
	delivery := func(i int) answer {
		return s.ask("GET", "/api/v1/webhooks/events/"+events[i]+"/deliveries", "").want(200)
	}
	s.until("it has failed", func() bool { return delivery(0).get("items", 0, "attempts") == "1" })
	if erased := s.ask("POST", "/api/v1/subjects/17/erase", `{"reason":"asked for"}`).want(200); erased.get("deliveries_cancelled") != "1" {
		t.Errorf("erased %s, want the member that is the subject's cancelled", erased.body)
	}
	cancelled := delivery(0).get("items", 0)
	for _, part := range []string{`"state":"cancelled"`, `"reason":"subject_erased"`, `"attempts":1`, `"next_attempt_at":null`} {
		if !strings.Contains(cancelled, part) {
			t.Errorf("before the batch is tried again its member is %s, want %s", cancelled, part)
		}
	}
	other := delivery(1)
	if other.text("items", 0, "state") != "pending" {
		t.Errorf("the other member is %s", other.body)
	}
	if left := delivery(0); left.text("items", 0, "updated_at") == other.text("items", 0, "updated_at") {
		t.Errorf("it left the batch when that was tried: %s", left.body)
	}
	s.settled()
	if listed := s.ask("GET", "/api/v1/webhooks/deliveries?state=cancelled", "").want(200); listed.get("items") != "["+cancelled+"]" {
		t.Errorf("cancelled are %s, want %s", listed.body, cancelled)
	}
	s.ask("PATCH", "/api/v1/webhooks/1", `{"url":"`+echoing(t, 200)+`"}`).want(200)
	s.ask("POST", "/api/v1/webhooks/deliveries/"+delivery(0).text("items", 0, "batch_id")+"/retry", "").want(202)
	s.until("it has arrived", func() bool { return delivery(1).text("items", 0, "state") == "delivered" })
	if left := delivery(0).get("items", 0); left != cancelled {
		t.Errorf("left out is %s, and was %s", left, cancelled)
	}
	if stats := s.ask("GET", "/api/v1/webhooks/1/stats", "").want(200); stats.get("pending_deliveries") != "0" || stats.get("cancelled") != "0" {
		t.Errorf("of one batch the statistics are %s", stats.body)
	}
	s.ask("POST", "/api/v1/webhooks/deliveries/"+delivery(0).text("items", 0, "delivery_id")+"/retry", "").want(409)
	explained := s.ask("GET", "/api/v1/webhooks/events/"+events[0]+"/explain", "").want(200)
	if explained.text("items", 0, "verdict") != "cancelled" || explained.text("items", 0, "reason") != "subject_erased" || explained.text("items", 0, "sent_by", 0, "state") != "cancelled" {
		t.Errorf("explained as %s", explained.body)
	}
	if verified := s.ask("POST", "/api/v1/audit/verify", "").want(200); !strings.Contains(string(verified.body), `"found":0`) {
		t.Errorf("verified: %s", verified.body)
	}
	for patient, want := range map[string]int{"17": 1, "18": 2} { // 17's was in the first, which nobody answered
		export := string(s.ask("GET", "/api/v1/subjects/"+patient+"/export", "").want(200).body)
		if got := strings.Count(export, `{"call":`); got != want || strings.Contains(export, "X-Echo") {
			t.Errorf("%d calls are exported of %s, want %d, and no answer to a batch: %s", got, patient, want, export)
		}
	}
	for query, want := range map[string]int{
		"webhooks/deliveries?state=cancelled": 1, "webhooks/deliveries?state=delivered": 1, "webhooks/deliveries": 2,
		"subjects/17/disclosures": 0, "subjects/18/disclosures": 1, "webhooks/1/disclosures": 1,
		"webhooks/calls?event_id=" + events[0]: 1, "webhooks/1/calls?event_id=" + events[1]: 2,
		"webhooks/calls?delivery_id=" + delivery(0).text("items", 0, "delivery_id"): 1, "webhooks/1/calls?delivery_id=" + delivery(1).text("items", 0, "delivery_id"): 2,
		"webhooks/calls?delivery_id=" + delivery(0).text("items", 0, "batch_id"): 2,
	} {
		if got := s.items("/api/v1/" + query); got != want {
			t.Errorf("%s lists %d, want %d", query, got, want)
		}
	}
}

// A batch that waits for its retry goes on without who is erased, and is cancelled once nothing
// of it is left.
func TestErasureCancelsBatches(t *testing.T) {
	s := newService(t)
	s.work()
	s.ask("POST", "/api/v1/webhooks", `{"name":"bad","url":"`+echoing(t, 500)+`","events":["*"],"batch":{"max_events":2,"max_wait":60},"retry_delay":3600}`).want(201)
	for _, patient := range []string{"17", "18"} {
		s.ask("POST", "/api/v1/webhooks/events/trigger", `{"event_type":"patient.updated","event_data":{"patient_id":"`+patient+`"}}`).want(202)
	}
	s.until("it has failed", func() (failed bool) {
		if err := s.pool.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM medilab.events WHERE type = 'delivery.attempt_failed')`).Scan(&failed); err != nil {
			t.Fatal(err)
		}
		return failed
	})
	for i, want := range []string{"1", "0"} {
		erased := s.ask("POST", fmt.Sprintf("/api/v1/subjects/%d/erase", 17+i), `{"reason":"asked for"}`).want(200)
		if erased.get("deliveries_cancelled") != "1" {
			t.Errorf("of %d: %s, want 1 cancelled", 17+i, erased.body)
		}
		s.settled()
		if stats := s.ask("GET", "/api/v1/webhooks/1/stats", "").want(200); stats.get("pending_deliveries") != want {
			t.Errorf("%d is erased, and the statistics are %s", 17+i, stats.body)
		}
	}
	for range 2 {
		s.ask("POST", "/api/v1/webhooks/events/trigger", `{"event_type":"patient.updated","event_data":{"patient_id":"19"}}`).want(202)
	}
	s.until("the second has failed", func() bool {
		return s.ask("GET", "/api/v1/webhooks/1/stats", "").want(200).get("total_calls") == "2"
	})
	if erased := s.ask("POST", "/api/v1/subjects/19/erase", `{"reason":"asked for"}`).want(200); erased.get("deliveries_cancelled") != "2" {
		t.Errorf("of a whole batch: %s, want both members cancelled", erased.body)
	}
}

// A batch that failed and holds up others is over once its patients are erased.
func TestErasureEndsABatchThatBlocks(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.work()
	s.ask("POST", "/api/v1/webhooks", `{"name":"bad","url":"`+echoing(t, 500)+`","events":["*"],"max_retries":0,"batch":{"max_events":2,"max_wait":60},"order_by":"*","order_on_failure":"block"}`).want(201)
	var events []string
	for _, patient := range []string{"17", "18", "19", "19"} {
		events = append(events, s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{"patient_id":"`+patient+`"}}`).want(202).text("event_id"))
	}
	state := func(i int) string {
		return s.ask("GET", "/api/v1/webhooks/events/"+events[i]+"/deliveries", "").want(200).text("items", 0, "state")
	}
	s.until("it has failed", func() bool { return state(0) == "failed" })
	s.ask("PATCH", "/api/v1/webhooks/1", `{"url":"`+echoing(t, 200)+`"}`).want(200)
	for i, others := range []string{"failed", "cancelled"} {
		if erased := s.ask("POST", fmt.Sprintf("/api/v1/subjects/%d/erase", 17+i), `{"reason":"asked for"}`).want(200); erased.get("deliveries_cancelled") != "1" {
			t.Errorf("erased %s", erased.body)
		}
		if state(0) != "cancelled" || state(1) != others {
			t.Errorf("%d is erased, and the members are %s and %s", 17+i, state(0), state(1))
		}
	}
	s.until("those behind have arrived", func() bool { return state(2) == "delivered" && state(3) == "delivered" })
}

// Erased while a call of its batch is under way, a member was sent by that.
func TestErasedWhileItsBatchIsSent(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.work()
	called, erased := make(chan struct{}), make(chan struct{})
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(called)
		<-erased
	}))
	t.Cleanup(receiver.Close)
	s.ask("POST", "/api/v1/webhooks", `{"name":"slow","url":"`+receiver.URL+`","events":["*"],"batch":{"max_events":2,"max_wait":60}}`).want(201)
	var events []string
	for _, patient := range []string{"17", "18"} {
		events = append(events, s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{"patient_id":"`+patient+`"}}`).want(202).text("event_id"))
	}
	delivery := func(i int) string {
		return s.ask("GET", "/api/v1/webhooks/events/"+events[i]+"/deliveries", "").want(200).get("items", 0)
	}
	<-called
	if answer := s.ask("POST", "/api/v1/subjects/17/erase", `{"reason":"asked for"}`).want(200); answer.get("deliveries_cancelled") != "1" {
		t.Errorf("erased %s", answer.body)
	}
	close(erased)
	s.until("the call has ended", func() bool { return strings.Contains(delivery(1), `"state":"delivered"`) })
	for _, part := range []string{`"state":"cancelled"`, `"reason":"subject_erased"`, `"attempts":1`, `"outcome":"success"`} {
		if left := delivery(0); !strings.Contains(left, part) {
			t.Errorf("the erased is %s, want %s", left, part)
		}
	}
}

// An export has each call of a batch once, and names the patient's own events in it, also when they are
// erased since.
func TestExportOfABatch(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.work()
	const each = `"max_wait":60},"max_retries":1,"retry_delay":3600` // nobody answers there
	s.register(`"batch":{"max_events":4,` + each)
	s.register(`"batch":{"max_events":2,` + each)
	var events []string
	for _, patient := range []string{"18", "17", "17", "17"} {
		events = append(events, s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{"patient_id":"`+patient+`"}}`).want(202).text("event_id"))
	}
	s.until("all are tried", func() bool { return s.items("/api/v1/webhooks/calls") == 3 })
	want := map[string]int{
		fmt.Sprint(events[1], events[1:]):  1, // of the four
		fmt.Sprint(events[1], events[1:2]): 1,
		fmt.Sprint(events[2], events[2:]):  1,
	}
	check := func(when string) {
		t.Helper()
		got := map[string]int{}
		export := string(s.ask("GET", "/api/v1/subjects/17/export", "").want(200).body)
		for line := range strings.Lines(export) {
			var item struct {
				Call *struct {
					EventID  string   `json:"event_id"`
					EventIDs []string `json:"event_ids"`
				}
			}
			if err := json.Unmarshal([]byte(line), &item); err != nil {
				t.Fatal(err)
			}
			if item.Call != nil {
				got[fmt.Sprint(item.Call.EventID, item.Call.EventIDs)]++
			}
		}
		if !maps.Equal(got, want) || strings.Contains(export, events[0]) {
			t.Errorf("%s the calls are of %v, want %v, in %s", when, got, want, export)
		}
	}
	check("before an erasure")
	s.ask("POST", "/api/v1/subjects/17/erase", `{"reason":"asked for"}`).want(200)
	check("after it")
}

// afterNodes finds the events of a subject once nothing waits any more: what is to be cancelled is
// cancelled by those who were to send it.
type afterNodes struct {
	commands.SubjectIndex
	s       *service
	release func()
}

func (a afterNodes) AwaitSubjects(ctx context.Context, to eventstore.Position) error {
	a.release()
	wake, stop := a.s.log.Appends(nil)
	defer stop()
	for waiting := 1; ; {
		if err := a.s.pool.QueryRow(ctx, `SELECT count(*) FROM medilab.pending`).Scan(&waiting); err != nil {
			return err
		}
		if waiting == 0 {
			return a.SubjectIndex.AwaitSubjects(ctx, to)
		}
		select {
		case <-wake:
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// An erasure counts what was cancelled because of it, by whichever node: single deliveries, whole batches,
// and members that a batch was sent without.
func TestErasureCountsWhatNodesCancel(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.work()
	called, erased := make(chan struct{}, 100), make(chan struct{})
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		called <- struct{}{}
		<-erased
	}))
	t.Cleanup(receiver.Close)
	s.registerAt(receiver.URL, `,"max_concurrent":1`)
	s.ask("POST", "/api/v1/webhooks", `{"name":"batches","url":"`+receiver.URL+`","events":["*"],"max_concurrent":1,"batch":{"max_events":2,"max_wait":60}}`).want(201)
	for _, patient := range []string{"20", "20", "18", "17", "17", "17", "17", "19"} {
		s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{"patient_id":"`+patient+`"}}`).want(202)
	}
	<-called
	<-called // of each webhook the first, and the others wait
	s.until("the batches are formed", func() (formed bool) {
		if err := s.pool.QueryRow(t.Context(), `SELECT count(*) = 4 FROM medilab.events WHERE type = 'delivery.batched'`).Scan(&formed); err != nil {
			t.Fatal(err)
		}
		return formed
	})
	erase := func(patient, want string) {
		t.Helper()
		if answer := s.ask("POST", "/api/v1/subjects/"+patient+"/erase", `{"reason":"asked for"}`).want(200); answer.get("deliveries_cancelled") != want {
			t.Errorf("erased %s, want %s cancelled", answer.body, want)
		}
	}
	erase("18", "2")
	s.commands.Subjects = afterNodes{s.commands.Subjects, s, func() { close(erased) }}
	erase("17", "8")
	s.commands.Subjects = s.queries
	erase("19", "0")
	s.settled()
	if n := s.items("/api/v1/webhooks/deliveries?state=cancelled"); n != 10 {
		t.Errorf("%d are listed as cancelled, want 10", n)
	}
}
