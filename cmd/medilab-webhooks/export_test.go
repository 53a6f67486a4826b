package main

import (
	"encoding/json"
	"testing"
)

// YAML breaks lines at these separators, and drops the blanks beside them, unless they are escaped.
func TestLineSeparatorsAreExported(t *testing.T) {
	const text = "a \u2028 b \u2029 c"
	item, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	document, err := yamlOf([]json.RawMessage{item})
	if err != nil {
		t.Fatal(err)
	}
	if got := document.Content[0].Value; got != text {
		t.Errorf("exported %q, want %q", got, text)
	}
}
