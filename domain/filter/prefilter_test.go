package filter

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// sets returns the filters that are given for each index, in sets of a block's size,
// without those that do not compile.
func sets(n int, filters func(i int) string) (all []*Set) {
	var list []*Filter
	for i := range n {
		if f, problems := Compile([]byte(filters(i))); problems == nil {
			list = append(list, f)
		}
	}
	for block := range slices.Chunk(list, 256) {
		all = append(all, NewSet(block))
	}
	return all
}

// possible returns how many filters are evaluated for the event, and whether those of each
// set come in ascending order.
func possible(sets []*Set, event string) (n int, ordered bool) {
	ordered = true
	for _, s := range sets {
		budget := eventWork
		indexes := slices.Collect(s.possible(Parse([]byte(event)), &budget))
		n += len(indexes)
		ordered = ordered && slices.IsSorted(indexes)
	}
	return n, ordered
}

// The prefilter leaves out only filters that do not match: what matches are
// those whose filters match, in order, whatever the filters and the event.
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
		all := sets(fewFilters+rapid.IntRange(1, 20).Draw(t, "webhooks"), func(i int) string { return filter(0) })
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
			var want []Ref
			for s, set := range all {
				for i, f := range set.filters {
					if f.Match(Parse(event)) {
						want = append(want, Ref{s, i})
					}
				}
			}
			if got := Match(Parse(event), all).Matched; !slices.Equal(got, want) {
				t.Fatalf("%s goes to %v, want %v", event, got, want)
			}
		}
	})
}

// Filters that name a value are evaluated only when the event has it.
func TestPrefilterFindsFew(t *testing.T) {
	all := sets(1000, func(i int) string {
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
		if got, ordered := possible(all, event); got != want || !ordered {
			t.Errorf("%s: %d, want %d", event, got, want)
		}
	}
}

// What a hostile event costs is bounded by what its webhooks name, not by how often it has it.
func TestPrefilterOfRepeatedValues(t *testing.T) {
	all := sets(1000, func(int) string { return `{"department":"d"}` })
	event := []byte(`{"department":["d"` + strings.Repeat(`,"d"`, 200_000) + `]}`)
	if got := Match(Parse(event), all).Matched; len(got) != 1000 {
		t.Errorf("it goes to %d", len(got))
	}
	if n, _ := possible(all, string(event)); n != 1000 {
		t.Errorf("%d were evaluated", n)
	}
}
