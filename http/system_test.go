package http_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

// Administrators make, list and revoke tokens; a request that comes twice makes one.
func TestTokensByTheAPI(t *testing.T) {
	s := newService(t)
	body := `{"name":"crm","scopes":["webhooks:read"],"expires_at":"` + s.commands.Now().Add(time.Hour).Format(time.RFC3339) + `"}`
	made := s.ask("POST", "/api/v1/tokens", body, "Idempotency-Key", "1").want(201)
	if again := s.ask("POST", "/api/v1/tokens", body, "Idempotency-Key", "1").want(201); again.text("token") != made.text("token") {
		t.Error("a request that came twice made two")
	}
	s.ask("POST", "/api/v1/tokens", `{"name":"","scopes":["root"]}`).refusing("name")
	s.ask("POST", "/api/v1/tokens", `{"name":"x","scopes":["admin"],"expires_at":"2020-01-01T00:00:00Z"}`).refusing("expires_at")
	b := s.tab()
	b.signIn(made.text("token")).want(201)
	b.send("GET", "/api/v1/tokens", "").want(403)
	list := s.ask("GET", "/api/v1/tokens", "").want(200)
	if list.text("items", 0, "kind") != "session" || list.text("items", 1, "id") != made.text("id") || strings.Contains(string(list.body), made.text("token")) {
		t.Errorf("the list is %s", list.body)
	}
	s.ask("DELETE", "/api/v1/tokens/"+list.text("items", 0, "id"), "").want(204)
	b.send("GET", "/api/v1/webhooks", "").want(401)
	s.ask("DELETE", "/api/v1/tokens/"+made.text("id"), "").want(204)
	s.ask("DELETE", "/api/v1/tokens/"+made.text("id"), "").want(204)
	if state := s.ask("GET", "/api/v1/tokens", "").want(200).text("items", 0, "state"); state != "revoked" {
		t.Errorf("it is %s", state)
	}
	if got := s.tab().signIn(made.text("token")); got.status != 401 {
		t.Errorf("a revoked token signs in: %d", got.status)
	}
}

func TestSystem(t *testing.T) {
	s := newService(t)
	s.work()
	s.register("")
	s.emit(`{}`)
	s.settled()
	got := s.ask("GET", "/api/v1/system", "").want(200)
	if got.text("nodes", 0, "name") != t.Name() || got.get("log", "position") == "0" || got.get("keys", 0, "primary") != "true" || got.text("projections", 0, "name") == "" {
		t.Errorf("the system is %s", got.body)
	}
	if nodes, err := s.queries.Nodes(t.Context()); err != nil || nodes[0].JoinedAt.Location() != time.UTC {
		t.Errorf("times are in UTC, whatever this machine's are: %+v, %v", nodes, err)
	}

	// last returns the last line of a long work.
	last := func(path string, v any) {
		t.Helper()
		lines := strings.Split(strings.TrimSpace(string(s.ask("POST", path, "").want(200).body)), "\n")
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), v); err != nil {
			t.Fatal(err)
		}
	}
	var check struct {
		Events, Found int
		Problems      []projections.Problem
	}
	if last("/api/v1/audit/verify", &check); check.Events == 0 || check.Found != 0 {
		t.Errorf("the check found %+v", check)
	}
	s.until("a call is spoilt", func() bool {
		spoilt, err := s.pool.Exec(t.Context(), `UPDATE medilab.stats SET calls = calls + 1`)
		if err != nil {
			t.Fatal(err)
		}
		return spoilt.RowsAffected() > 0
	})
	if last("/api/v1/audit/verify", &check); check.Found == 0 || len(check.Problems) != check.Found {
		t.Errorf("the check of what was spoilt found %+v", check)
	}
	var rebuilt struct{ Rebuilt string }
	if last("/api/v1/projections/stats/rebuild", &rebuilt); rebuilt.Rebuilt != "stats" {
		t.Errorf("got %+v", rebuilt)
	}
	s.ask("POST", "/api/v1/projections/nothing/rebuild", "").want(404)
	s.token = s.tokenFor(domain.ScopeAuditRead, domain.ScopeWebhooksWrite)
	s.ask("POST", "/api/v1/projections/stats/rebuild", "").want(403)
}
