package domain

import (
	"fmt"
	"strings"
	"testing"
)

// A tracestate is kept as W3C Trace Context wants it.
func TestTracestate(t *testing.T) {
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	member := func(key string, n int) string { return key + "=" + strings.Repeat("v", n-len(key)-1) }
	many := func(n int) string {
		members := make([]string, n)
		for i := range members {
			members[i] = fmt.Sprintf("k%d=v", i)
		}
		return strings.Join(members, ",")
	}
	long := member("b", 200)
	four := strings.Join([]string{member("a", 127), member("c", 127), member("d", 127), member("e", 127)}, ",") // 511
	for state, want := range map[string]string{
		"":                            "",
		"congo=t61rcWkgMzE,rojo=00f0": "congo=t61rcWkgMzE,rojo=00f0",
		" congo=t61 ,\t,rojo=a b,":    "congo=t61,rojo=a b",
		"9tenant@vendor=1,a_-*/=x":    "9tenant@vendor=1,a_-*/=x",
		"Congo=1":                     "",
		"congo":                       "",
		"congo=":                      "",
		"a=1,a=2":                     "",
		"a=1=2":                       "",
		"a=\n":                        "",
		"a=ü":                         "",
		many(32):                      many(32),
		many(33):                      "",
		four:                          four,
		four + ",f=1":                 four,
		long + "," + four:             four,
		long + "," + member("a", 100): long + "," + member("a", 100),
	} {
		if got := NewTrace(parent, state); got != (Trace{parent, want}) {
			t.Errorf("%q: %q, want %q", state, got.Tracestate, want)
		}
		if got := NewTrace("00-0-0-00", state); got != (Trace{}) {
			t.Errorf("without a traceparent %q is %v", state, got)
		}
	}
}

// Events of one trace may differ in their states: then the trace alone is what they have in common.
func TestCommonTrace(t *testing.T) {
	one, two, three, none := Trace{"p", "a=1"}, Trace{"p", "a=2"}, Trace{"q", "a=1"}, Trace{}
	for _, c := range []struct {
		of   []Trace
		want Trace
	}{{nil, none}, {[]Trace{one, one}, one}, {[]Trace{one, two, one}, Trace{Traceparent: "p"}}, {[]Trace{one, three}, none}, {[]Trace{none, one}, none}} {
		events := make([]PayloadEvent, len(c.of))
		for i := range c.of {
			events[i].Trace = c.of[i]
		}
		if got := CommonTrace(events); got != c.want {
			t.Errorf("%v have %v in common, want %v", c.of, got, c.want)
		}
	}
}
