package http_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/medilab/webhooks/domain"
)

// One box finds whatever there is a key of. A patient is found with the right and a reason
// alone, on record.
func TestSearch(t *testing.T) {
	s := newService(t)
	s.work()
	r := newReceiver(t, 500)
	w := s.ask("POST", "/api/v1/webhooks", `{"name":"Лаборатория","url":"`+r.URL+`/lab","events":["patient.*"],"max_retries":0}`).want(201)
	event := s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{"patient_id":"P-77"},"correlation_id":"visit-318"}`).want(202).text("event_id")
	delivery := r.next(t).header.Get("X-Webhook-Delivery-ID")
	s.until("the call is recorded", func() bool { return s.deliveryState(event) == "failed" })
	s.settled()
	find := func(q string) string {
		t.Helper()
		var found []string
		list := s.ask("GET", "/api/v1/search?q="+q, "").want(200)
		for i := range strings.Count(string(list.body), `"kind"`) {
			found = append(found, list.text("items", i, "kind")+" "+list.text("items", i, "id"))
		}
		return strings.Join(found, ", ")
	}
	for q, want := range map[string]string{
		event: "event " + event, delivery: "delivery " + delivery, "%D0%9B%D0%90%D0%91%D0%9E%D0%A0": "webhook " + w.text("id"), "/lab": "webhook " + w.text("id"), w.text("id"): "webhook " + w.text("id"), "1": "webhook " + w.text("id"),
		"visit-318": "correlation visit-318", "patient.crea": "event_type patient.created", "5xx": "response_status 5xx", "404": "response_status 404",
		"P-77": "", "00000000-0000-0000-0000-000000000001": "",
	} {
		if got := find(q); got != want && !strings.HasPrefix(got, want+",") {
			t.Errorf("%s finds %q, want %q", q, got, want)
		}
	}
	for i := range 12 { // newer ones, whose addresses have its number too
		s.ask("POST", "/api/v1/webhooks", fmt.Sprintf(`{"name":"Ward %d","url":"%s/ward","events":["visit.*"]}`, i, r.URL)).want(201)
	}
	if got := find("1"); !strings.HasPrefix(got, "webhook "+w.text("id")+",") {
		t.Errorf("1 finds %q, want the webhook with that number first", got)
	}
	s.ask("GET", "/api/v1/search", "").want(422)
	s.ask("POST", "/api/v1/webhooks", `{"name":"is required","url":"`+r.URL+`","events":["visit.*"]}`).want(201)
	if got := s.ask("GET", "/api/v1/search?q=is+required", "", "Accept-Language", "ru").want(200).text("items", 0, "title"); got != "is required" {
		t.Errorf("the webhook is called %q", got)
	}
	s.ask("GET", "/api/v1/search?subject=P-77", "").refusing("X-Access-Reason")
	s.as(s.tokenFor(domain.ScopeWebhooksRead), "GET", "/api/v1/search?subject=P-77", "", "X-Access-Reason", "why").want(403)
	read := s.count(`SELECT count(*) FROM medilab.events WHERE type = 'data.read'`)
	found := s.ask("GET", "/api/v1/search?subject=P-77", "", "X-Access-Reason", "request 81").want(200)
	if found.text("items", 0, "id") != event || strings.Contains(string(found.body), "P-77") {
		t.Errorf("found %s", found.body)
	}
	if n := s.count(`SELECT count(*) FROM medilab.events WHERE type = 'data.read'`); n != read+1 {
		t.Errorf("%d readings on record, there were %d", n, read)
	}
	if log := s.ask("GET", "/api/v1/audit/access?subject=P-77", "").want(200); log.text("items", 0, "what") != "search" || log.text("items", 0, "reason") != "request 81" {
		t.Errorf("on record: %s", log.body)
	}
	for range 10 { // tests are in the index of patients too
		s.ask("POST", "/api/v1/webhooks/1/test", `{"test_data":{"patient_id":"P-77"}}`).want(200)
	}
	s.settled()
	if found := s.ask("GET", "/api/v1/search?subject=P-77", "", "X-Access-Reason", "request 81").want(200); found.text("items", 0, "id") != event {
		t.Errorf("behind ten tests, found %s", found.body)
	}
}

// The list of events says how their deliveries stand; the explanation of one has pages by
// verdict, and counts all.
func TestEventsSayHowTheyStand(t *testing.T) {
	s := newService(t)
	s.work()
	good, bad := newReceiver(t, 200), newReceiver(t, 500)
	for i, c := range []struct{ url, events string }{{good.URL, "patient.*"}, {bad.URL, "patient.*"}, {good.URL, "visit.*"}, {good.URL, "visit.*"}} {
		s.ask("POST", "/api/v1/webhooks", fmt.Sprintf(`{"name":"W%d","url":"%s","events":["%s"],"max_retries":0}`, i, c.url, c.events)).want(201)
	}
	event := s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{}}`).want(202).text("event_id")
	path := "/api/v1/webhooks/events"
	s.until("both ended", func() bool {
		return s.ask("GET", path+"?deliveries=count", "").want(200).get("items", 0, "deliveries") == `{"total":2,"states":{"delivered":1,"failed":1}}`
	})
	if plain := s.ask("GET", path, "").want(200); strings.Contains(string(plain.body), `"deliveries"`) {
		t.Errorf("not asked for: %s", plain.body)
	}
	all := s.ask("GET", path+"/"+event+"/explain", "").want(200)
	if all.get("verdicts") != `{"delivered":1,"failed":1,"type_not_subscribed":2}` || strings.Count(string(all.body), `"verdict":`) != 4 {
		t.Errorf("explained %s", all.body)
	}
	first := s.ask("GET", path+"/"+event+"/explain?verdict=type_not_subscribed&limit=1", "").want(200)
	second := s.ask("GET", path+"/"+event+"/explain?verdict=type_not_subscribed&limit=1&cursor="+first.text("next_cursor"), "").want(200)
	if first.text("items", 0, "webhook_name") != "W2" || second.text("items", 0, "webhook_name") != "W3" || second.get("next_cursor") != "null" || second.get("verdicts") != all.get("verdicts") {
		t.Errorf("pages %s %s", first.body, second.body)
	}
	s.ask("GET", path+"/"+event+"/explain?verdict=none", "").want(422)
	s.ask("GET", path+"/"+event+"/explain?verdict=", "").refusing("verdict")
}
