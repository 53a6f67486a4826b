package domain

import (
	"slices"
	"testing"

	"github.com/medilab/webhooks/domain/strictjson"
)

// Payloads are withheld wherever they stand in an answer.
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
}

// A damaged log holds what is no JSON. What can be read of it is withheld all the same.
func FuzzFindPayloads(f *testing.F) {
	for _, seed := range []string{
		`{"items":[{"a":[1 2],"payload":"secret"},{"payload":"secret"}]}`, `{"a":{"b" 1},"payload":"secret"}`,
		`{"a":{"payload":"secret","b":[}],"payload":"secret"}`, `{"payload":"x","c":{"payload":"y","z":}}`,
		`{"event_ids":{"payload":"secret"}}`, `{"event_ids":["a",{"payload":"secret"}]}`, `{"event_ids":["a"],"payload":[1,{"got":2}]`, `{"a":{"got":2`, `[`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		found := FindPayloads([]byte(text))
		withheld := found.Withheld([]byte(text))
		if found.None() != (string(withheld) == text) {
			t.Errorf("of %q is left %q", text, withheld)
		}
		least := 0
		if off := strictjson.SkipSpace([]byte(text), 0); off < len(text) {
			least = payloadsIn([]byte(text), off)
		}
		nulls := 0
		for _, e := range found.edits {
			if e.text == "null" {
				nulls++
			}
		}
		if nulls < least {
			t.Errorf("of %q are withheld %d, want %d at least", text, nulls, least)
		}
	})
}

// payloadsIn counts the payloads of the value at off, each member after the one before was read.
func payloadsIn(data []byte, off int) (n int) {
	if data[off] != '[' && data[off] != '{' {
		return 0
	}
	for m := range strictjson.Members(data, off) {
		switch {
		case data[off] == '{' && IsPayload(string(m.Key())):
			if data[m.Off] != 'n' {
				n++
			}
		default:
			n += payloadsIn(data, m.Off)
		}
	}
	return n
}
