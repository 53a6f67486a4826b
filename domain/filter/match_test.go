package filter

import (
	"encoding/json"
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"
)

// letters returns a text of so many letters a and b.
func letters(n int) string {
	random := rand.New(rand.NewSource(1))
	text := make([]byte, n)
	for i := range text {
		text[i] = "ab"[random.Intn(2)]
	}
	return string(text)
}

// explained returns the filters that Explain says match, and those that it says were cut.
func explained(m *Matches) (matched, cut []Ref) {
	for s, set := range m.sets {
		for i := range set.filters {
			switch v := m.Explain(Ref{s, i}); {
			case v.Matched:
				matched = append(matched, Ref{s, i})
			case v.Reason == "":
				panic("no reason")
			case strings.Contains(v.Reason, "was not evaluated"):
				cut = append(cut, Ref{s, i})
			}
		}
	}
	return matched, cut
}

// Cheap filters are decided whatever expensive ones there are, and before them; the
// expensive ones share what is left, and those that get nothing say so.
func TestExpensiveFiltersDoNotHinderCheapOnes(t *testing.T) {
	note := letters(8000)
	event := []byte(`{"note":"` + note + `","short":"abc","department":"eyes","list":[` + strings.Repeat("0,", 5000) + `1]}`)
	all := sets(2000, func(i int) string {
		switch i % 5 {
		case 0:
			return `{"department":"eyes"}`
		case 1:
			return fmt.Sprintf(`{"short":{"$regex":"^a.*c$|%d"}}`, i)
		case 2:
			return `{"department":{"$ne":"heart"},"$or":[{"note":{"$regex":"(a|b)*c$"}},{"short":"abc"}]}`
		case 3:
			return fmt.Sprintf(`{"list":{"$gt":%d}}`, i)
		}
		return fmt.Sprintf(`{"note":{"$regex":"^(a|b|aa|ab|ba|bb)*(a|b)?(c|%d)$"}}`, i)
	})
	m := Match(Parse(event), all)
	matched, cut := map[int]int{}, map[int]int{}
	for _, ref := range m.Matched {
		matched[ref.Index+256*ref.Set]++
	}
	for _, ref := range m.cut {
		cut[(ref.Index+256*ref.Set)%5]++
	}
	for i := range 2000 {
		if want := i%5 < 3; want != (matched[i] == 1) {
			t.Errorf("filter %d: %d", i, matched[i])
		}
	}
	if cut[4] < 300 || cut[0]+cut[1]+cut[2] > 0 {
		t.Errorf("cut: %v", cut)
	}
	gotMatched, gotCut := explained(&m)
	if !slices.Equal(gotMatched, m.Matched) || !slices.Equal(gotCut, m.cut) {
		t.Errorf("explained: %d matched, %d cut; decided: %d, %d", len(gotMatched), len(gotCut), len(m.Matched), len(m.cut))
	}
}

// One filter that asks for much, but is alone, is evaluated.
func TestMatchEvaluatesOneExpensiveFilter(t *testing.T) {
	for filter, event := range map[string]string{
		`{"a":{"$regex":"[^x]*(.?.?.?.?){70}!"}}`:   `{"a":"` + strings.Repeat("y", 350) + `!"}`,
		`{"a":{"$regex":"^(a|b)*!$"}}`:              `{"a":"` + letters(maxPatternText-1) + `!"}`,
		`{"a":7}`:                                   `{"a":[` + strings.Repeat("0,", 500_000) + `7]}`,
		`{"a.b":{"$gt":6},"a.c":{"$exists":false}}`: `{"a":[` + strings.Repeat(`{"b":0},`, 9000) + `{"b":7}]}`,
		`{"a":{"$in":[{"b":1},{"b":7}]}}`:           `{"a":[` + strings.Repeat(`{"b":0},`, 9000) + `{"b":7}]}`,
	} {
		for _, others := range []int{1, 40} {
			all := sets(others, func(i int) string {
				if i == others/2 {
					return filter
				}
				return `{"a":"other"}`
			})
			if m := Match(Parse([]byte(event)), all); len(m.Matched) != 1 {
				t.Errorf("%s among %d: %d matched, %d cut", filter, others, len(m.Matched), len(m.cut))
			}
		}
	}
}

// Usual filters are never cut.
func TestUsualFiltersAreEvaluated(t *testing.T) {
	event := []byte(`{"patient":{"name":"Иванов Иван Иванович","phone":"+79001234567"},"department":"cardiology","amount":1500.50,` +
		`"services":[` + strings.TrimSuffix(strings.Repeat(`{"code":"A04.10.002","price":1800.00,"name":"Эхокардиография"},`, 30), ",") + `],` +
		`"comment":"` + strings.Repeat("Позвонить после обеда. ", 10) + `"}`)
	for _, c := range []struct {
		count   int
		filters func(i int) string
	}{
		{20_000, func(i int) string { return fmt.Sprintf(`{"department":"cardiology","amount_min":%d}`, i%1000) }},
		{20_000, func(i int) string { return fmt.Sprintf(`{"field_%d":{"$exists":false}}`, i) }},
		{500, func(i int) string { return fmt.Sprintf(`{"patient.name":{"$regex":"^Иванов .*|%d$"}}`, i) }},
		{500, func(i int) string { return fmt.Sprintf(`{"patient.phone":{"$regex":"^\\+7900[0-9]{7}$|%d"}}`, i) }},
		{3000, func(i int) string { return fmt.Sprintf(`{"services.price":{"$gt":%d}}`, i%1000) }},
		{3000, func(i int) string { return fmt.Sprintf(`{"services.code":{"$ne":"B%d"}}`, i) }},
		{3000, func(i int) string { return fmt.Sprintf(`{"department":{"$in":["d%d","cardiology",{"a":1}]}}`, i) }},
	} {
		all := sets(c.count, c.filters)
		if m := Match(Parse(event), all); len(m.Matched) != c.count || len(m.cut) > 0 {
			t.Errorf("%s: %d of %d matched, %d cut", c.filters(1), len(m.Matched), c.count, len(m.cut))
		}
	}
}

// For any filters and events, also when the budget does not suffice: the decision is the
// same each time and in Explain, every filter that matched matches alone, and every one
// that matches alone and was not cut matched.
func TestMatchProperties(t *testing.T) {
	expensive := []string{`{"t":{"$regex":"(a|aa)*c"}}`, `{"t":{"$regex":"^(a|b)*$"}}`, `{"list":{"$nin":[1,"x"]}}`, `{"list":{"$regex":"b"}}`,
		`{"$or":[{"t":{"$regex":"(a|b)*d"}},{"list":7}]}`, `{"list.a":{"$gt":1}}`, `{"list":{"$in":[{"a":1},[1]]}}`, `{"list":3,"t":{"$regex":"[ab]+(a|b)*"}}`}
	rapid.Check(t, func(t *rapid.T) {
		var filters []string
		for range rapid.IntRange(0, 30).Draw(t, "filters") {
			filters = append(filters, string(encoded(t, anyFilter().Draw(t, "filter"))))
		}
		for range rapid.IntRange(0, 300).Draw(t, "expensive") {
			filters = append(filters, rapid.SampledFrom(expensive).Draw(t, "expensive filter"))
		}
		event := anyObject(2).Draw(t, "event")
		if rapid.Bool().Draw(t, "large") {
			event["t"] = letters(rapid.IntRange(0, 12_000).Draw(t, "text"))
			event["list"] = slices.Repeat([]any{json.Number("3"), "bab", map[string]any{"a": 1}}, rapid.IntRange(0, 3000).Draw(t, "list"))
		}
		data := encoded(t, event)
		all := sets(len(filters), func(i int) string { return filters[i] })
		m := Match(Parse(data), all)
		again := Match(Parse(data), all)
		if !slices.Equal(m.Matched, again.Matched) || !slices.Equal(m.cut, again.cut) {
			t.Fatal("another decision the second time")
		}
		matched, cut := explained(&m)
		if !slices.Equal(matched, m.Matched) || !slices.Equal(cut, m.cut) {
			t.Fatalf("explained: %v matched, %v cut; decided: %v, %v", matched, cut, m.Matched, m.cut)
		}
		for s, set := range all {
			for i, f := range set.filters {
				ref := Ref{s, i}
				alone := f.Match(Parse(data))
				if got := slices.Contains(m.Matched, ref); got != (alone && !slices.Contains(m.cut, ref)) {
					t.Fatalf("%v: matched %t, alone %t", ref, got, alone)
				}
			}
		}
	})
}

// The order in which cheap filters stand changes nothing about them.
func TestOrderDoesNotMatterToCheapFilters(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		filters := make([]string, 200)
		for i := range filters {
			filters[i] = fmt.Sprintf(`{"t":{"$regex":"^(a|b|aa)*(c|%d)$"}}`, i)
			if i%2 == 0 {
				filters[i] = fmt.Sprintf(`{"n":{"$gte":%d}}`, i)
			}
		}
		event := []byte(`{"t":"` + letters(8000) + `","n":100}`)
		shuffled := rapid.Permutation(filters).Draw(t, "order")
		all := sets(len(shuffled), func(i int) string { return shuffled[i] })
		m := Match(Parse(event), all)
		if len(m.cut) == 0 || len(m.Matched) != 51 {
			t.Fatalf("%d matched, %d cut", len(m.Matched), len(m.cut))
		}
	})
}

// cpu returns the milliseconds that the process has used the processor.
func cpu() float64 {
	var used syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	return float64(used.Utime.Nano()+used.Stime.Nano()) / 1e6
}

// What one event costs at most, whatever the filters.
func BenchmarkWorstCases(b *testing.B) {
	list := func(element string, bytes int) string {
		return `{"a":[` + strings.TrimSuffix(strings.Repeat(element+",", bytes/(len(element)+1)), ",") + `]}`
	}
	inner := func(f string, n int) string { return strings.TrimSuffix(strings.Repeat(f+",", n), ",") }
	for _, c := range []struct {
		name, event string
		count       int
		filters     func(i int) string
	}{
		{"300 expressions, 8 KB", `{"note":"` + letters(8000) + `"}`, 300, func(i int) string {
			return `{"note":{"$regex":"^(a|b|aa|ab|ba|bb)*(a|b)?c$"}}`
		}},
		{"300 different expressions, 8 KB", `{"note":"` + letters(8000) + `"}`, 300, func(i int) string {
			return fmt.Sprintf(`{"note":{"$regex":"^(a|b|aa|ab|ba|bb)*(a|b)?(c|%d)$"}}`, i)
		}},
		{"1000 different expressions, 39 KB", `{"t":"` + letters(39_000) + `"}`, 1000, func(i int) string { return fmt.Sprintf(`{"t":{"$regex":"(a|aa)*(b%d)"}}`, i) }},
		{"1000 different expressions, 15 KB", `{"t":"` + letters(15_000) + `"}`, 1000, func(i int) string { return fmt.Sprintf(`{"t":{"$regex":"(a|aa)*(b%d)"}}`, i) }},
		{"1000 within the allowance", `{"t":"` + letters(20) + `","u":"` + letters(8000) + `"}`, 1000, func(i int) string {
			return fmt.Sprintf(`{"t":{"$regex":"(a|aa)*(b|%d)"},"u":{"$regex":"(a|aa)*(c|%d)"}}`, i, i)
		}},
		{"letter classes", `{"t":"` + strings.Repeat("я", 150) + `"}`, 300, func(i int) string { return fmt.Sprintf(`{"t":{"$regex":"(\\pL{%d})c"}}`, 100+i) }},
		{"many short strings", list(`""`, 39_000), 300, func(i int) string { return fmt.Sprintf(`{"a":{"$regex":"x%d"}}`, i) }},
		{"small numbers", list("0", 39_000), 1000, func(i int) string { return fmt.Sprintf(`{"a":{"$gt":%d}}`, i+1) }},
		{"none of small numbers", list("0", 39_000), 1000, func(i int) string { return fmt.Sprintf(`{"a":{"$nin":[%d,"x"],"$ne":-1}}`, i+1) }},
		{"small numbers, few filters", list("0", 39_000), 30, func(i int) string { return fmt.Sprintf(`{"a":%d}`, i+1) }},
		{"small numbers, indexed", list("0", 39_000), 10_000, func(i int) string { return fmt.Sprintf(`{"a":%d}`, i+1) }},
		{"paths through an array", list(`{"a":0}`, 39_000), 10_000, func(i int) string { return fmt.Sprintf(`{"a.b%d":1}`, i) }},
		{"objects", list(`{"a":{"b":0}}`, 39_000), 1000, func(i int) string {
			return fmt.Sprintf(`{"a":{"$in":[%s,%d]}}`, inner(`{"a":{"b":1}}`, 20), i)
		}},
		{"many values", list(`{}`, 39_000), 300, func(i int) string { return `{"a":{"$in":[` + inner("[]", 10_000) + `]}}` }},
		{"many conditions", `{"a":1}`, 1000, func(i int) string {
			return `{"$or":[` + inner(fmt.Sprintf(`{"a":{"$lt":%d,"$gt":-1,"$ne":1}}`, i+3), 45) + `]}`
		}},
		{"1 MB of numbers", list("0", 1<<20), 1000, func(i int) string { return fmt.Sprintf(`{"a":{"$gt":%d}}`, i+1) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			all := sets(c.count, c.filters)
			cut := 0
			before := cpu()
			for b.Loop() {
				m := Match(Parse([]byte(c.event)), all)
				cut = len(m.cut)
			}
			b.ReportMetric(float64(cut), "cut")
			b.ReportMetric((cpu()-before)/float64(b.N), "cpu-ms/op")
		})
	}
}
