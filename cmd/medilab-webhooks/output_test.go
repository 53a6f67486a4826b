package main

import (
	"strings"
	"testing"
)

// What older versions took for a name cannot control the terminal.
func TestTableOfStrangers(t *testing.T) {
	var out strings.Builder
	if err := printTable(&out, [][]string{{"a\x1b[2J\u009b1m\n\tb", "fdp\u202Eexe\u2066\u2028"}}); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); got != "a\ufffd[2J\ufffd1m  b  fdp\ufffdexe\ufffd\ufffd\n" {
		t.Errorf("got %q", got)
	}
}
