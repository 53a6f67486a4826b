package domain

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"
)

// filtered returns a registry of webhooks for one event type, each with the filters that say gives.
func filtered(n int, filters func(i int) string) *Registry {
	draft := NewRegistry().Draft()
	at := time.Date(2024, 1, 15, 10, 30, 0, 0, time.UTC)
	for i := range n {
		id := WebhookID(uuid.NewSHA1(uuid.Nil, fmt.Append(nil, i)))
		draft.Apply(id, WebhookRegistered{ID: id, Number: int64(i + 1), Name: "a", URL: "https://a.example/",
			Events: []string{"visit.completed"}, Filters: json.RawMessage(filters(i)), Active: true}, at)
	}
	return draft.Registry()
}

// ordered returns all webhooks of the registry by number.
func ordered(r *Registry) (all []*registered) {
	for _, b := range r.blocks {
		all = append(all, b.webhooks...)
	}
	return all
}

// possible returns who is evaluated for the event.
func possible(r *Registry, eventType EventType, event string) (all []*registered) {
	for _, a := range r.audiences(eventType, nil) {
		for i := range a.prefilter.possible(ParseDoc([]byte(event)), nil).all() {
			all = append(all, a.candidates[i])
		}
	}
	return all
}

// The prefilter leaves out only webhooks whose filters do not match: the recipients are
// those whose filters match, by number, whatever the filters and the event.
func TestPrefilterLeavesOutNobody(t *testing.T) {
	plain := []string{`"x"`, `"y"`, `"\u0078"`, `""`, `1`, `1.0`, `10e-1`, `2`, `-1`, `0`, `-0.0`, `true`, `false`, `null`, `[]`, `[1]`, `{"b":1}`,
		`9007199254740993`, `9007199254740992`, `"` + strings.Repeat("z", 100) + `"`}
	paths := []string{"a", "b", "a.b", "c", "a_min", "b_max"}
	rapid.Check(t, func(t *rapid.T) {
		scalar := rapid.SampledFrom(plain)
		path := rapid.SampledFrom(paths)
		list := func(of *rapid.Generator[string], label string) string {
			return "[" + strings.Join(rapid.SliceOfN(of, 1, 4).Draw(t, label), ",") + "]"
		}
		var filter func(depth int) string
		test := func(depth int) string {
			switch rapid.IntRange(0, 9).Draw(t, "test") {
			case 0, 1, 2:
				return scalar.Draw(t, "value")
			case 3:
				return list(scalar, "any")
			case 4:
				return `{"$in":` + list(scalar, "in") + `}`
			case 5:
				return `{"$eq":` + scalar.Draw(t, "eq") + `,"$ne":` + scalar.Draw(t, "ne") + `}`
			case 6:
				return `{"$exists":` + rapid.SampledFrom([]string{"true", "false"}).Draw(t, "exists") + `}`
			case 7:
				return `{"$gte":1}`
			case 8:
				return `{"$or":[` + scalar.Draw(t, "one") + `,{"$in":` + list(scalar, "or in") + `}]}`
			}
			return `{"$prefix":"x"}`
		}
		filter = func(depth int) string {
			conditions := map[string]string{}
			for range rapid.IntRange(0, 3).Draw(t, "conditions") {
				conditions[path.Draw(t, "path")] = test(depth)
			}
			if depth < 2 && rapid.IntRange(0, 3).Draw(t, "or") == 0 {
				conditions["$or"] = "[" + filter(depth+1) + "," + filter(depth+1) + "]"
			}
			var parts []string
			for _, key := range []string{"a", "b", "a.b", "c", "a_min", "b_max", "$or"} {
				if raw, ok := conditions[key]; ok {
					parts = append(parts, fmt.Sprintf("%q:%s", key, raw))
				}
			}
			return "{" + strings.Join(parts, ",") + "}"
		}
		r := filtered(fewFilters+rapid.IntRange(1, 20).Draw(t, "webhooks"), func(i int) string { return filter(0) })
		for range 5 {
			var fields []string
			for _, key := range []string{"a", "b", "c", "a.b", "a_min"} {
				switch rapid.IntRange(0, 4).Draw(t, "field") {
				case 0, 1:
					fields = append(fields, fmt.Sprintf("%q:%s", key, scalar.Draw(t, "has")))
				case 2:
					fields = append(fields, fmt.Sprintf("%q:%s", key, list(scalar, "has list")))
				case 3:
					fields = append(fields, fmt.Sprintf(`%q:[{"b":%s},%s]`, key, scalar.Draw(t, "within"), scalar.Draw(t, "beside")))
				}
			}
			event := []byte("{" + strings.Join(fields, ",") + "}")
			var want []Recipient
			for _, w := range ordered(r) {
				if !w.broken && w.filter.Match(event) {
					want = append(want, w.recipient())
				}
			}
			if got := r.Recipients("visit.completed", event); !slices.Equal(got, want) {
				t.Fatalf("%s goes to %d, want %d", event, len(got), len(want))
			}
		}
	})
}

// Filters that name a value are evaluated only when the event has it.
func TestPrefilterFindsFew(t *testing.T) {
	r := filtered(1000, func(i int) string {
		switch i % 5 {
		case 0:
			return fmt.Sprintf(`{"department":"d%d","kind":"visit"}`, i) // the rarer value counts
		case 1:
			return fmt.Sprintf(`{"patient_id":%d.0}`, i)
		case 2:
			return fmt.Sprintf(`{"department":["d%d","e%d"]}`, i, i)
		case 3:
			return fmt.Sprintf(`{"$or":[{"department":"d%d"},{"patient_id":{"$in":[%d]}}],"amount_min":1}`, i, i)
		}
		return fmt.Sprintf(`{"department":{"$or":["d%d",{"$eq":null}]}}`, i)
	})
	for event, want := range map[string]int{
		`{"department":"d5","kind":"visit"}`: 1, `{"patient_id":6}`: 1, `{"department":"e7","kind":"visit"}`: 1, `{"department":["d5","d7","d8","d5"]}`: 3,
		`{"patient_id":8e0}`: 1, `{"department":null}`: 200, `{"department":{"x":1}}`: 0, `{}`: 0, `[]`: 0, `no json`: 0,
	} {
		if got := possible(r, "visit.completed", event); len(got) != want || !slices.IsSortedFunc(got, byNumber) {
			t.Errorf("%s: %d, want %d", event, len(got), want)
		}
	}
	// A change rebuilds it.
	id := ordered(r)[5].ID
	filters := json.RawMessage(`{"department":"moved"}`)
	r = r.With(id, WebhookChanged{Filters: &filters}, time.Unix(1_800_000_000, 0))
	for event, want := range map[string]int{`{"department":"d5","kind":"visit"}`: 0, `{"department":"moved"}`: 1} {
		if got := r.Recipients("visit.completed", []byte(event)); len(got) != want {
			t.Errorf("after the change %s goes to %d, want %d", event, len(got), want)
		}
	}
}

// What a hostile event costs is bounded by what its webhooks name, not by how often it has it.
func TestPrefilterOfRepeatedValues(t *testing.T) {
	r := filtered(1000, func(int) string { return `{"department":"d"}` })
	event := []byte(`{"department":["d"` + strings.Repeat(`,"d"`, 200_000) + `]}`)
	if got := r.Recipients("visit.completed", event); len(got) != 1000 {
		t.Errorf("it goes to %d", len(got))
	}
	if n := len(possible(r, "visit.completed", string(event))); n != 1000 {
		t.Errorf("%d were evaluated", n)
	}
}
