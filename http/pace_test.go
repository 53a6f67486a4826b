package http_test

import (
	"fmt"
	"strings"
	"testing"
)

// The limits of a webhook's calls: set, changed, cleared by null, shown as they were, and
// refused beyond their range.
func TestLimitsOfAWebhook(t *testing.T) {
	s := newService(t)
	id := s.ask("POST", "/api/v1/webhooks/", `{"name":"lab","url":"https://lab.example/","events":["*"],"max_concurrent":4,"rate_limit":2.5}`).want(201).text("id")
	path := "/api/v1/webhooks/" + id
	has := func(path, concurrent, rate string) {
		t.Helper()
		if got := s.ask("GET", path, "").want(200); got.get("max_concurrent") != concurrent || got.get("rate_limit") != rate {
			t.Errorf("%s: %s", path, got.body)
		}
	}
	has(path, "4", "2.5")
	was := s.ask("GET", path+"/history", "").want(200).get("items", 0, "position")
	s.ask("PATCH", path, `{"rate_limit":0.01}`).want(200)
	has(path, "4", "0.01")
	s.ask("PUT", path, `{"max_concurrent":null,"rate_limit":1e4}`).want(200)
	has(path, "null", "10000")
	s.ask("PUT", path, `{"rate_limit":null}`).want(200)
	has(path, "null", "null")
	has(path+"?as_of="+was, "4", "2.5")
	changes := s.ask("GET", path+"/history", "").want(200).get("items", 1, "changes")
	for _, want := range []string{`{"field":"max_concurrent","was":4,"became":null}`, `{"field":"rate_limit","was":0.01,"became":10000}`} {
		if !strings.Contains(changes, want) {
			t.Errorf("the history has %s, want %s", changes, want)
		}
	}
	for field, values := range map[string][]string{
		"max_concurrent": {"0", "513", "1.5", `"4"`, "-1"},
		"rate_limit":     {"0", "0.009", "10000.1", `"1"`, "true", "-1", "1e300", "1e-400"},
	} {
		for _, value := range values {
			got := s.ask("PATCH", path, fmt.Sprintf(`{%q:%s}`, field, value)).want(422)
			if got.text("errors", 0, "field") != field {
				t.Errorf("%s = %s: %s", field, value, got.body)
			}
		}
	}
}
