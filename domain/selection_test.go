package domain

import (
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestSelection(t *testing.T) {
	const visit = `{ "id" : 7, "patient":{"id":1.0, "name":"Ив\u0430н","ward": {"no": 3}}, "items":[{"code":"A","price": 1e2},{"price":2},5,[{"code":"B"}]], "a.b":[1, 2], "none":null}`
	for _, c := range []struct {
		name, paths, data, want string
	}{
		{"order of the data, exact bytes", "patient.name id", visit, `{"id":7,"patient":{"name":"Ив\u0430н"}}`},
		{"all of a value", "patient", visit, `{"patient":{"id":1.0, "name":"Ив\u0430н","ward": {"no": 3}}}`},
		{"union", "patient.ward.no patient.ward patient.id", visit, `{"patient":{"id":1.0,"ward":{"no": 3}}}`},
		{"missing", "ghost patient.ghost.deeper id.below none", visit, `{"none":null}`},
		{"none", "ghost patient.ghost", visit, `{}`},
		{"through an array", "items.code", visit, `{"items":[{"code":"A"},{},[{"code":"B"}]]}`},
		{"nothing in an array", "items.ghost", visit, `{}`},
		{"a key with dots", "a.b", visit, `{"a.b":[1, 2]}`},
		{"escaped key", "имя", `{"\u0438мя":1,"x":2}`, `{"\u0438мя":1}`},
		{"empty", "id", ` {} `, `{}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := NewSelection(strings.Fields(c.paths)).Of([]byte(c.data)); string(got) != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
	if got := NewSelection(nil).Of([]byte(visit)); string(got) != visit {
		t.Error("no paths select", string(got))
	}
}

// A selection never holds what its paths do not lead to, and selecting again changes nothing.
func TestSelectionOfAnything(t *testing.T) {
	key := rapid.StringMatching(`[ab]`)
	value := rapid.Deferred(func() *rapid.Generator[any] { return anyValue(key, 3) })
	rapid.Check(t, func(t *rapid.T) {
		data, _ := json.Marshal(rapid.MapOf(key, value).Draw(t, "data"))
		paths := rapid.SliceOfN(rapid.StringMatching(`[ab](\.[ab]){0,2}`), 1, 4).Draw(t, "paths")
		s := NewSelection(paths)
		got := s.Of(data)
		if !json.Valid(got) {
			t.Fatalf("%s of %s by %q is no JSON", got, data, paths)
		}
		if again := s.Of(got); string(again) != string(got) {
			t.Fatalf("%s became %s", got, again)
		}
		var all, some any
		_ = json.Unmarshal(data, &all)
		_ = json.Unmarshal(got, &some)
		for _, leaf := range leaves(some, "") {
			led := false
			for _, path := range paths {
				led = led || leaf == path || strings.HasPrefix(leaf, path+".") || strings.HasPrefix(path, leaf+".")
			}
			if leaf != "" && !led {
				t.Fatalf("%s has %s, which %q do not name", got, leaf, paths)
			}
		}
	})
}

func anyValue(key *rapid.Generator[string], depth int) *rapid.Generator[any] {
	number := rapid.Map(rapid.IntRange(0, 9), func(n int) any { return n })
	if depth == 0 {
		return number
	}
	below := anyValue(key, depth-1)
	return rapid.OneOf(number,
		rapid.Map(rapid.MapOf(key, below), func(m map[string]any) any { return m }),
		rapid.Map(rapid.SliceOfN(below, 0, 3), func(l []any) any { return l }))
}

// leaves are the paths of a value's members that are no containers, or empty ones.
func leaves(value any, at string) (paths []string) {
	under := func(key string) string { return strings.TrimPrefix(at+"."+key, ".") }
	switch v := value.(type) {
	case map[string]any:
		for key, below := range v {
			paths = append(paths, leaves(below, under(key))...)
		}
		if len(v) > 0 {
			return paths
		}
	case []any:
		for _, below := range v {
			paths = append(paths, leaves(below, at)...)
		}
		return paths
	}
	return append(paths, at)
}

func BenchmarkSelection(b *testing.B) {
	data := []byte(`{"patient_id":123,"name":"Иван","visit":{"id":7,"doctor":"Петров","items":[{"code":"A","price":1},{"code":"B","price":2}]},"text":"` + strings.Repeat("x", 300) + `"}`)
	s := NewSelection([]string{"patient_id", "visit.id", "visit.items.code"})
	for b.Loop() {
		s.Of(data)
	}
}
