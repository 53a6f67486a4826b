package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// What strangers send makes no series of its own.
func TestSeriesAreBounded(t *testing.T) {
	m := newMetrics()
	for i := range 1000 {
		m.answered("", fmt.Sprintf("X%d", i), 404, time.Millisecond)
	}
	m.answered("/healthz", "GET", 200, time.Millisecond)
	series := make(chan prometheus.Metric, 2000)
	m.requests.Collect(series)
	if len(series) != 2 {
		t.Errorf("%d series", len(series))
	}
}
