package filter

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"weak"
)

// A filter is compiled once while anybody has it, and forgotten afterwards.
func TestFiltersAreShared(t *testing.T) {
	shared := sharedFilters{filters: map[sourceHash]weak.Pointer[Filter]{}}
	get := func(i int) *Filter {
		f, problems := shared.get(fmt.Appendf(nil, `{"a":%d}`, i))
		if problems != nil {
			t.Fatal(problems)
		}
		return f
	}
	first := get(0)
	for i := range 5000 {
		if i%1000 == 0 {
			runtime.GC()
		}
		get(i)
	}
	if get(0) != first {
		t.Error("compiled twice")
	}
	if n := len(shared.filters); n > 4000 {
		t.Errorf("%d filters are remembered", n)
	}
}

// What compiling takes is in proportion to the source, whatever is in it.
func TestCompilingAllocatesLittle(t *testing.T) {
	list := func(value func(i int) string) string {
		var b strings.Builder
		for i := 0; b.Len() < maxFilterBytes-100; i++ {
			b.WriteString("," + value(i))
		}
		return `{"a":[` + b.String()[1:] + `]}`
	}
	for name, source := range map[string]string{
		"one number": list(func(int) string { return "1" }),
		"numbers":    list(func(i int) string { return fmt.Sprint(i) }),
		"texts":      list(func(i int) string { return fmt.Sprintf(`"%x"`, i) }),
		"objects":    list(func(int) string { return "{}" }),
	} {
		const perByte = 400
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, problems := compile([]byte(source)); problems != nil {
			t.Fatal(problems)
		}
		runtime.ReadMemStats(&after)
		if took := int(after.TotalAlloc - before.TotalAlloc); took > perByte*len(source) {
			t.Errorf("%s: %d bytes for %d", name, took, len(source))
		}
	}
}

// Conditions beyond those that exclude most events are not indexed, however many there are.
func TestPrefilterIsSmall(t *testing.T) {
	var conditions []string
	for i := range 150 {
		conditions = append(conditions, fmt.Sprintf(`"k%d":[%s]`, i, strings.TrimSuffix(strings.Repeat(fmt.Sprint(i)+`,"x",`, 20), ",")))
	}
	f := compiled(t, "{"+strings.Join(conditions, ",")+"}")
	named := 0
	for _, option := range f.options() {
		named += len(option)
	}
	if named == 0 || named > manyValues {
		t.Errorf("%d values are indexed", named)
	}
}
