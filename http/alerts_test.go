package http_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

func TestAlerts(t *testing.T) {
	s := newService(t)
	for i, resolved := range []any{nil, time.Now(), nil} {
		_, err := s.pool.Exec(t.Context(), `INSERT INTO medilab.alerts (position, id, webhook, kind, details, raised_at, resolved_at)
			VALUES ($1, gen_random_uuid(), gen_random_uuid(), 'timeout', '{"timeout":30}', now(), $2)`, i+1, resolved)
		if err != nil {
			t.Fatal(err)
		}
	}
	positions := func(query string) string {
		t.Helper()
		var list struct {
			Items []struct{ Position json.Number }
			Next  *string `json:"next_cursor"`
		}
		s.ask("GET", "/api/v1/webhooks/alerts"+query, "").want(200).into(&list)
		var got []string
		for _, item := range list.Items {
			got = append(got, string(item.Position))
		}
		if list.Next != nil {
			got = append(got, *list.Next)
		}
		return strings.Join(got, " ")
	}
	for query, want := range map[string]string{"": "3 2 1", "/?state=open": "3 1", "?state=resolved": "2", "?state=all": "3 2 1"} {
		if got := positions(query); got != want {
			t.Errorf("%s: got %s, want %s", query, got, want)
		}
	}
	first, cursor, _ := strings.Cut(positions("?limit=1"), " ")
	if rest := positions("?cursor=" + cursor); first != "3" || rest != "2 1" {
		t.Errorf("pages %q and %q", first, rest)
	}
	s.ask("GET", "/api/v1/webhooks/alerts?state=on&kind=1", "").refusing("state", "kind")

	w := s.register(``)
	if _, err := s.pool.Exec(t.Context(), `UPDATE medilab.alerts SET webhook = $1 WHERE position > 1`, w.text("id")); err != nil {
		t.Fatal(err)
	}
	for query, want := range map[string]string{"?webhook=1": "3 2", "?state=resolved&webhook=" + w.text("id"): "2"} {
		if got := positions(query); got != want {
			t.Errorf("%s: got %s, want %s", query, got, want)
		}
	}
	s.ask("GET", "/api/v1/webhooks/alerts?webhook=2", "").refusing("webhook")
}

// An alert is acknowledged once, by whom it says, and stays open; it leads to the failed calls.
func TestAcknowledge(t *testing.T) {
	s := newService(t)
	s.work()
	w := s.register(``)
	id, err := uuid.Parse(w.text("id"))
	if err != nil {
		t.Fatal(err)
	}
	key := domain.AlertKey{Webhook: domain.WebhookID(id), Kind: domain.AlertTimeout}
	var alert domain.Alert
	record := func(finding domain.Finding) {
		t.Helper()
		change := domain.DecideAlert(alert, key.Webhook, finding)
		_, err := s.log.Append(t.Context(), eventstore.Unit{Writes: []eventstore.Write{{Stream: key.Stream(), Expected: alert.Version,
			Events: []eventstore.NewEvent{{Type: change.ChangeType(), Data: domain.AppendJSON(nil, change), Value: change}}}}})
		if err != nil {
			t.Fatal(err)
		}
		alert = alert.Evolve(change, time.Time{})
	}
	record(domain.Finding{Kind: domain.AlertTimeout, Holds: true})
	path := "/api/v1/webhooks/alerts/" + alert.ID.String()
	admin := s.token
	s.token = s.tokenFor("webhooks:read")
	s.ask("POST", path+"/acknowledge", "").want(403)
	s.token = s.tokenFor("webhooks:write")
	first := s.ask("POST", path+"/acknowledge", "").want(200)
	if first.text("state") != "open" || !strings.HasPrefix(first.text("acknowledged_by"), "token:") || first.text("acknowledged_at") == "" {
		t.Errorf("%s", first.body)
	}
	head := s.head()
	s.token = admin
	again := s.ask("POST", path+"/acknowledge/", "").want(200)
	if again.text("acknowledged_by") != first.text("acknowledged_by") || s.head() != head {
		t.Errorf("the log ends at %d, not %d: %s", s.head(), head, again.body)
	}
	s.ask("GET", first.text("calls_url"), "").want(200)
	alert.Version, alert.Acknowledged = alert.Version+1, true
	record(domain.Finding{Kind: domain.AlertTimeout})
	s.ask("POST", path+"/acknowledge", "").want(409)
	s.ask("POST", "/api/v1/webhooks/alerts/"+id.String()+"/acknowledge", "").want(404)
	s.ask("POST", "/api/v1/webhooks/alerts/12/acknowledge", "").want(404)

	streamed := s.stream("?kinds=alert&webhook=1", "Last-Event-ID", "0")
	if raised := streamed.want("alert").data; !strings.Contains(raised, `"acknowledged_at":null`) || !strings.Contains(raised, `"state":"open"`) {
		t.Errorf("streamed as raised: %s", raised)
	}
	if got := streamed.want("alert").data; got != first.get() {
		t.Errorf("streamed as acknowledged: %s", got)
	}
	if got := streamed.want("alert").data; got != s.ask("GET", "/api/v1/webhooks/alerts", "").want(200).get("items", 0) {
		t.Errorf("streamed as resolved: %s", got)
	}
}
