package http_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
)

type accessView struct {
	Actor, What string
	IDs         []string
	Asked       map[string]string
	Reason      *string
}

func (s *service) accesses(query string) []accessView {
	s.t.Helper()
	var list struct{ Items []accessView }
	s.ask("GET", "/api/v1/audit/access"+query, "").want(200).into(&list)
	return list.Items
}

// Each request that shows payloads is on record, once, before its answer leaves; others are not.
func TestReadingsAreOnRecord(t *testing.T) {
	c := newClinic(t)
	call := c.variables["call"]
	c.ask("GET", "/api/v1/webhooks/events/"+c.event, "", "X-Access-Reason", "жалоба").want(200)
	reader, clear, err := c.commands.CreateToken(t.Context(), commands.Caller{Actor: "test"}, "reader", []domain.Scope{domain.ScopeWebhooksRead, domain.ScopeWebhooksWrite, domain.ScopePayloadsRead, domain.ScopeAuditRead}, c.commands.Now().AddDate(1, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range []struct{ method, path, body, what string }{
		{"GET", "/webhooks/events", "", "listEvents"},
		{"GET", "/webhooks/1/calls/" + call, "", "getCall"},
		{"GET", "/webhooks/events/" + c.event + "/explain", "", "explainEvent"},
		{"POST", "/webhooks/1/test", `{"event_type":"patient.created","test_data":{"patient_id":"123"}}`, "testWebhook"},
		{"GET", "/webhooks/events/parked", "", "listParkedEvents"},
		{"GET", "/audit/events?event=" + c.event, "", "auditEvents"},
		{"GET", "/audit/events?type=webhook.*", "", ""},
		{"HEAD", "/webhooks/events/" + c.event, "", ""},
		{"GET", "/webhooks/1/calls?limit=1000", "", ""},
		{"GET", "/webhooks/events/" + c.event + "/deliveries", "", ""},
		{"GET", "/webhooks/1/history", "", ""},
		{"GET", "/audit/access", "", ""},
		{"GET", "/webhooks/events/550e8400-e29b-41d4-a716-446655440000", "", ""},
	} {
		before := c.head()
		c.as(clear.Reveal(), one.method, "/api/v1"+one.path, one.body, "X-Access-Reason", "%D0%B0%D1%83%D0%B4%D0%B8%D1%82")
		var appended []string
		events, err := c.log.Read(t.Context(), before, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if read, ok := e.Value.(domain.DataRead); ok {
				appended = append(appended, read.What)
				if read.Actor != "token:"+reader.ID.String()+" (reader)" || read.Reason != "аудит" {
					t.Errorf("%s: %+v", one.path, read)
				}
			}
		}
		if want := strings.Fields(one.what); !slices.Equal(appended, want) {
			t.Errorf("%s %s appended %q, want %q", one.method, one.path, appended, want)
		}
	}

	whats := func(query string) (list []string) {
		for _, one := range c.accesses(query) {
			list = append(list, one.What)
		}
		return list
	}
	if first := c.accesses("?actor=admin"); len(first) != 1 || first[0].What != "getEvent" || *first[0].Reason != "жалоба" || fmt.Sprint(first[0].IDs) != fmt.Sprint([]string{c.event}) {
		t.Errorf("by admin: %+v", first)
	}
	of := []string{"auditEvents", "explainEvent", "getCall", "listEvents", "getEvent"}
	for query, want := range map[string][]string{
		"?event=" + c.event:                           of,
		"?event=" + c.event + "&actor=reader&limit=2": of[:2],
		"?subject=123":                                slices.Insert(slices.Clone(of), 1, "testWebhook"),
		"?subject=124":                                nil,
		"?subject=" + url.QueryEscape(planted):        nil,
		"?actor=nobody":                               nil,
		"?to=2020-01-01T00:00:00Z":                    nil,
	} {
		if got := whats(query); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	var paged []string
	for cursor := ""; ; {
		page := c.ask("GET", "/api/v1/audit/access?limit=2&event="+c.event+cursor, "").want(200)
		var list struct{ Items []accessView }
		page.into(&list)
		for _, one := range list.Items {
			paged = append(paged, one.What)
		}
		if page.get("next_cursor") == "null" {
			break
		}
		cursor = "&cursor=" + page.text("next_cursor")
	}
	if !slices.Equal(paged, of) {
		t.Errorf("in pages: %q, want %q", paged, of)
	}
	c.as(c.tokenFor(domain.ScopeWebhooksRead), "GET", "/api/v1/audit/access", "").want(403)
}

// A call of a batch shows the data of all its events.
func TestReadingABatch(t *testing.T) {
	s := newService(t)
	s.work()
	r := newReceiver(t, 200)
	s.registerAt(r.URL, `,"batch":{"max_events":2,"max_wait":300}`)
	var events []string
	for range 2 {
		events = append(events, s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{"patient_id":`+fmt.Sprint(len(events))+`}}`).want(202).text("event_id"))
	}
	r.next(t)
	calls := func() answer { return s.ask("GET", "/api/v1/webhooks/1/calls", "").want(200) }
	s.until("called", func() bool { return calls().get("items") != "[]" })
	s.ask("GET", "/api/v1/webhooks/1/calls/"+calls().text("items", 0, "call_id"), "").want(200)
	for i, event := range events {
		for _, query := range []string{"?event=" + event, fmt.Sprint("?subject=", i)} {
			if got := s.accesses(query); len(got) != 1 || got[0].What != "getCall" {
				t.Errorf("%s: %+v", query, got)
			}
		}
	}
}
