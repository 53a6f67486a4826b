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

func TestMaxConnectionsLeaveDescriptors(t *testing.T) {
	for _, c := range []struct{ descriptors, workers, want int }{
		{1024, 512, 424}, // what calls and the database leave
		{4096, 512, 2048},
		{256, 512, 64}, // calls must wait for each other's descriptors
		{1 << 20, 512, 8192},
	} {
		if got := maxConnections(c.descriptors, c.workers, 24); got != c.want {
			t.Errorf("%d descriptors and %d workers: %d connections, want %d", c.descriptors, c.workers, got, c.want)
		}
	}
}
