package main

import (
	"context"
	nethttp "net/http"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/medilab/webhooks/commands/outbox"
	"github.com/medilab/webhooks/domain"
)

// metrics are what Prometheus reads at /metrics.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.HistogramVec
	attempts *prometheus.HistogramVec
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "medilab_http_request_duration_seconds", Help: "API requests by route, method and status.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}, []string{"route", "method", "status"}),
		attempts: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "medilab_delivery_attempt_duration_seconds", Help: "Calls to receivers by outcome.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
		}, []string{"outcome"}),
	}
	m.registry.MustRegister(m.requests, m.attempts, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// answered is told of every answer of the API.
func (m *metrics) answered(route, method string, status int, took time.Duration) {
	if !slices.Contains(knownMethods, method) {
		method = "other" // anybody may send any: each would be a series for ever
	}
	m.requests.WithLabelValues(route, method, strconv.Itoa(status)).Observe(took.Seconds())
}

var knownMethods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

// attempted is told of every call to a receiver.
func (m *metrics) attempted(call domain.Call) {
	m.attempts.WithLabelValues(string(call.Outcome)).Observe(float64(call.Duration) / 1e6)
}

// handler serves the metrics, the server's own figures among them.
func (m *metrics) handler(s *server) nethttp.Handler {
	m.registry.MustRegister(&figures{server: s})
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// figures reads at each scrape what others keep.
type figures struct{ server *server }

var (
	inFlightDesc = prometheus.NewDesc("medilab_deliveries_in_flight", "Calls to receivers under way on this node.", nil, nil)
	waitingDesc  = prometheus.NewDesc("medilab_deliveries_claimed", "Deliveries claimed by this node whose call has not begun.", nil, nil)
	bytesDesc    = prometheus.NewDesc("medilab_deliveries_bytes", "Payload bytes of the deliveries in this node's memory.", nil, nil)
	workersDesc  = prometheus.NewDesc("medilab_workers", "Calls that this node may have under way at once.", nil, nil)
	headDesc     = prometheus.NewDesc("medilab_log_position", "The last position of the log.", nil, nil)
	readerDesc   = prometheus.NewDesc("medilab_reader_position", "Up to where a reader has applied the log.", []string{"reader"}, nil)
	parkedDesc   = prometheus.NewDesc("medilab_outbox_parked_events", "Emitted events that could not be accepted.", nil, nil)
	callsDesc    = prometheus.NewDesc("medilab_calls_total", "Calls to receivers by all nodes, test calls left out.", []string{"status"}, nil)
	pendingDesc  = prometheus.NewDesc("medilab_deliveries_pending", "Deliveries that are not at their end.", nil, nil)
	lagDesc      = prometheus.NewDesc("medilab_projections_lag_seconds", "Age of the oldest event that the read models lack.", nil, nil)
	alertsDesc   = prometheus.NewDesc("medilab_alerts_open", "Open alerts by kind.", []string{"kind"}, nil)
	poisonDesc   = prometheus.NewDesc("medilab_parked_events", "Entries of the log that no read model could take.", nil, nil)
	unreadDesc   = prometheus.NewDesc("medilab_undispatched_events", "Events that are dispatched only when they can be read.", nil, nil)
	outboxDesc   = prometheus.NewDesc("medilab_outbox_waiting_events", "Emitted events that are not in the log yet, counted up to 100,000.", nil, nil)
)

// Describe implements prometheus.Collector.
func (f *figures) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{inFlightDesc, waitingDesc, bytesDesc, workersDesc, headDesc, readerDesc, parkedDesc, outboxDesc,
		callsDesc, pendingDesc, lagDesc, alertsDesc, poisonDesc, unreadDesc} {
		descs <- d
	}
}

const scrapeTimeout = 2 * time.Second

// Collect implements prometheus.Collector. What the database cannot say now is
// left out.
func (f *figures) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	now := f.server.saga.Figures()
	gauge(inFlightDesc, float64(now.InFlight))
	gauge(waitingDesc, float64(now.Waiting))
	gauge(bytesDesc, float64(now.WaitingBytes))
	gauge(workersDesc, float64(now.Workers))
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	if head, err := f.server.log.Head(ctx); err == nil {
		gauge(headDesc, float64(head))
	}
	if state, err := outbox.ReadState(ctx, f.server.pool); err == nil {
		gauge(outboxDesc, float64(state.Waiting))
		gauge(parkedDesc, float64(state.Parked))
	}
	if g, err := f.server.queries.Gauges(ctx); err == nil {
		counter := func(value int64, status string) {
			out <- prometheus.MustNewConstMetric(callsDesc, prometheus.CounterValue, float64(value), status)
		}
		counter(g.Successes, "success")
		counter(g.Failures, "failed")
		gauge(pendingDesc, float64(g.Pending))
		gauge(lagDesc, g.LagSeconds)
		gauge(poisonDesc, float64(g.Parked))
		for kind, n := range g.OpenAlerts {
			gauge(alertsDesc, float64(n), string(kind))
		}
	}
	var unread int64
	if err := f.server.pool.QueryRow(ctx, `SELECT count(*) FROM medilab.undispatched`).Scan(&unread); err == nil {
		gauge(unreadDesc, float64(unread))
	}
	rows, err := f.server.pool.Query(ctx, `SELECT name, position FROM medilab.readers WHERE position IS NOT NULL`)
	if err != nil {
		return
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		var position int64
		if rows.Scan(&name, &position) == nil {
			gauge(readerDesc, float64(position), name)
		}
	}
}
