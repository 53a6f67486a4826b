package domain

import (
	"maps"
	"slices"
	"testing"
)

// Whether a type holds payloads comes from its struct: a new type is named here if it does.
func TestMayHoldPayloads(t *testing.T) {
	want := []string{"delivery.attempt_failed", "delivery.outcome_late", "delivery.succeeded", "delivery.tested", "event.triggered"}
	var got []string
	for _, name := range slices.Sorted(maps.Keys(decoders)) {
		if MayHoldPayloads(name) {
			got = append(got, name)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for group, want := range map[string]bool{"": true, "*": true, "event.*": true, "delivery.*": true, "unknown.type": true, "unknown.*": true, "session.*": false, "token.*": false, "webhook.*": false, "log.*": false, "data.read": false} {
		if MayHoldPayloads(group) != want {
			t.Errorf("%q: %v", group, !want)
		}
	}
}
