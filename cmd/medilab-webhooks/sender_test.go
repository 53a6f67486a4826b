package main

import (
	"testing"
)

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
