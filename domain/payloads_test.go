package domain

import (
	"slices"
	"testing"
)

// Payloads are withheld wherever they stand in an answer, and what is cut off, as in a damaged log,
// is gone through as far as it goes.
func TestFindPayloads(t *testing.T) {
	const answer = `{"items": [{"event_id":"e1","event_data":{"a":[1,{"got":2}]},"tags":[]}, {"call_id":"c","want":null},` +
		`{"event_ids":["e2","e3",4],"calls":[{"call_id":"d","response_body":"x","status":200}],"payload":[]}],"next":{}}`
	const withheld = `{"items": [{"event_id":"e1","event_data":null,"tags":[],"redacted":true}, {"call_id":"c","want":null},` +
		`{"event_ids":["e2","e3",4],"calls":[{"call_id":"d","response_body":null,"status":200,"redacted":true}],"payload":null,"redacted":true}],"next":{}}`
	found := FindPayloads([]byte(answer))
	if got := string(found.Withheld([]byte(answer))); got != withheld {
		t.Errorf("withheld:\n%s, want\n%s", got, withheld)
	}
	slices.Sort(found.IDs)
	if got, want := slices.Compact(found.IDs), []string{"d", "e1", "e2", "e3"}; !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	for i := range answer {
		found := FindPayloads([]byte(answer[:i]))
		if rest := string(found.Withheld([]byte(answer[:i]))); found.None() != (rest == answer[:i]) {
			t.Errorf("of %s is left %s", answer[:i], rest)
		}
	}
}
