package http_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// RFC 3339, which the format date-time refers to, allows lower-case letters.
func init() {
	openapi3.DefineStringFormatValidator("date-time", openapi3.NewRegexpFormatValidator("(?i)"+openapi3.FormatOfStringDateTime))
}

// Every operation that takes from and to refuses a range that ends before it begins, and
// takes times as RFC 3339 allows them.
func TestRangesOfTime(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.register("")
	var described struct {
		Paths map[string]map[string]struct {
			Parameters []struct{ Name string }
		}
	}
	s.ask("GET", "/api/v1/openapi.json", "").want(200).into(&described)
	ranges := 0
	for path, operations := range described.Paths {
		for _, p := range operations["get"].Parameters {
			if p.Name != "to" {
				continue
			}
			ranges++
			path := strings.NewReplacer("{webhook}", "1").Replace(path)
			s.ask("GET", path+"?from=2024-01-15T10:30:01Z&to=2024-01-15T10:30:00Z", "").refusing("to")
			s.ask("GET", path+"?from=2024-01-15T1:30:00Z&to=2024-01-15T10:30:00%2B24:00", "").refusing("from", "to")
			s.ask("GET", path+"?from=2024-01-15t10:30:00z&to=2024-01-15t10:30:00z", "").want(200)
		}
	}
	if ranges < 5 {
		t.Errorf("%d operations take a range", ranges)
	}
	for _, path := range []string{"backtest", "replay"} {
		body := func(from, to string) string {
			data, err := json.Marshal(map[string]string{"from": from, "to": to})
			if err != nil {
				t.Fatal(err)
			}
			return string(data)
		}
		s.ask("POST", "/api/v1/webhooks/1/"+path, body("2024-01-15T10:30:01Z", "2024-01-15T10:30:00Z")).refusing("to")
		s.ask("POST", "/api/v1/webhooks/1/"+path, body("2024-01-15T1:30:00Z", "2024-01-15T10:30:00+24:00")).refusing("from", "to")
		if got := s.ask("POST", "/api/v1/webhooks/1/"+path, body("2024-01-15t10:30:00z", "2024-01-15t10:30:01z")); got.status >= 300 {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
}
