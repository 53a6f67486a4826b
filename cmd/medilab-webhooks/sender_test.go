package main

import (
	"testing"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/http/sender"
)

// The sender and the domain know the same words.
func TestLacksOfTheSenderAreNoFailures(t *testing.T) {
	for _, outcome := range sender.Lacks {
		if !domain.Outcome(outcome).IsLack() {
			t.Errorf("%s counts as an attempt", outcome)
		}
	}
	for _, outcome := range []sender.Outcome{sender.Success, sender.DNS, sender.Connect, sender.Reset, sender.Timeout} {
		if domain.Outcome(outcome).IsLack() {
			t.Errorf("%s does not count as an attempt", outcome)
		}
	}
}
