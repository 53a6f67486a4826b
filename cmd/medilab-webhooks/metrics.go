package main

import (
	"context"
	nethttp "net/http"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/medilab/webhooks/commands/mail"
	"github.com/medilab/webhooks/commands/outbox"
	"github.com/medilab/webhooks/commands/saga"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

// metrics are what Prometheus scrapes at /metrics.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.HistogramVec
	attempts *prometheus.HistogramVec
	givenUp  *prometheus.CounterVec
	emails   *prometheus.CounterVec
	messages *prometheus.CounterVec
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
		givenUp: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "medilab_deliveries_given_up_total", Help: "Deliveries that failed for good on this node, by reason.",
		}, []string{"reason"}),
	}
	m.emails = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "medilab_alert_emails_total", Help: "E-mails about alerts that this node tried to send, by result.",
	}, []string{"result"})
	m.givenUp.WithLabelValues(string(domain.GaveUpRetriesExhausted)) // there from the start, so that a rate has its first
	m.givenUp.WithLabelValues(string(domain.GaveUpGone))
	m.messages = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "medilab_source_messages_total", Help: "Messages of brokers that this node took, by source and what became of them.",
	}, []string{"source", "outcome"})
	m.registry.MustRegister(m.requests, m.attempts, m.givenUp, m.emails, m.messages, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// answered counts a response of the API.
func (m *metrics) answered(route, method string, status int, took time.Duration) {
	if !slices.Contains(knownMethods, method) {
		method = "other" // clients may send any: each would be a series for ever
	}
	m.requests.WithLabelValues(route, method, strconv.Itoa(status)).Observe(took.Seconds())
}

var knownMethods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

// attempted counts a call to a receiver.
func (m *metrics) attempted(call domain.Call) {
	m.attempts.WithLabelValues(string(call.Outcome)).Observe(float64(call.Duration) / 1e6)
}

// gaveUp counts a delivery that failed for good.
func (m *metrics) gaveUp(reason domain.GaveUp) { m.givenUp.WithLabelValues(string(reason)).Inc() }

// mailed counts an e-mail that was sent, or was not.
func (m *metrics) mailed(err error) {
	result := "sent"
	if err != nil {
		result = "failed"
	}
	m.emails.WithLabelValues(result).Inc()
}

// taken counts a message of a broker.
func (m *metrics) taken(source, outcome string) { m.messages.WithLabelValues(source, outcome).Inc() }

// handler serves the metrics, with those of the server's parts.
func (m *metrics) handler(s *server) nethttp.Handler {
	m.registry.MustRegister(partMetrics{s})
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// partMetrics reads at each scrape what the server's parts and the database keep.
type partMetrics struct{ server *server }

// Describe implements prometheus.Collector. It names none, as what is collected varies.
func (partMetrics) Describe(chan<- *prometheus.Desc) {}

const scrapeTimeout = 2 * time.Second

// Collect implements prometheus.Collector. What the database cannot answer now is left out.
func (p partMetrics) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	c := constMetrics(out)
	p.node(c)
	if head, err := p.server.log.Head(ctx); err == nil {
		c.gauge("medilab_log_position", "The last position of the log.", float64(head))
	}
	if state, err := outbox.ReadState(ctx, p.server.pool); err == nil {
		c.gauge("medilab_outbox_waiting_events", "Emitted events that are not in the log yet, counted up to 100,000.", float64(state.Waiting))
		c.gauge("medilab_outbox_parked_events", "Emitted events that could not be accepted.", float64(state.Parked))
	}
	if waiting, err := mail.Overdue(ctx, p.server.pool); err == nil && p.server.settings.mail != nil {
		c.gauge("medilab_alert_emails_waiting", "Alerts that have waited for an e-mail for over 20 minutes, those of one kind about one webhook as one.", float64(waiting))
	}
	if g, err := p.server.queries.Gauges(ctx); err == nil {
		const calls = "Calls to receivers by all nodes, test calls left out."
		c.counter("medilab_calls_total", calls, float64(g.Successes), "status", "success")
		c.counter("medilab_calls_total", calls, float64(g.Failures), "status", "failed")
		c.gauge("medilab_deliveries_pending", "Deliveries that are not at their end.", float64(g.Pending))
		c.gauge("medilab_projections_lag_seconds", "Age of the oldest event that the read models lack.", g.LagSeconds)
		c.gauge("medilab_parked_events", "Entries of the log that no read model could take.", float64(g.Parked))
		for kind, n := range g.OpenAlerts {
			c.gauge("medilab_alerts_open", "Open alerts by kind.", float64(n), "kind", string(kind))
		}
		for state, n := range g.Jobs {
			c.gauge("medilab_jobs", "Replays and bulk retries that have not ended, by state.", float64(n), "state", string(state))
		}
	}
	p.readers(ctx, c)
	p.standby(ctx, c)
	// Last, as it takes longest where many webhooks have a backlog.
	queue := saga.Queue{Pool: p.server.pool}
	if age, err := queue.Age(ctx, p.server.commands.Directory); err == nil {
		c.gauge("medilab_queue_age_seconds", "How long the delivery that is due for longest has waited, of all nodes.", age.Seconds())
	}
}

// node collects what this process keeps itself.
func (p partMetrics) node(c constMetrics) {
	now := p.server.saga.Figures()
	c.gauge("medilab_deliveries_in_flight", "Calls to receivers under way on this node.", float64(now.InFlight))
	c.gauge("medilab_deliveries_claimed", "Deliveries claimed by this node whose call has not begun.", float64(now.Waiting))
	c.gauge("medilab_deliveries_bytes", "Payload bytes of the deliveries in this node's memory.", float64(now.WaitingBytes))
	c.gauge("medilab_workers", "Calls that this node may have under way at once.", float64(now.Workers))
	c.gauge("medilab_lanes", "Webhooks that this node has delivered to.", float64(now.Lanes))
	c.gauge("medilab_lanes_full", "Webhooks whose deliveries wait on this node, as no more calls to them may be under way.", float64(now.FullLanes))
	for _, lack := range domain.Lacks() {
		value := 0.0
		if now.Lacks == lack {
			value = 1
		}
		c.gauge("medilab_node_lacks", "Whether this node lacks what its calls need, so that deliveries wait.", value, "what", string(lack))
	}
	connections := p.server.pool.Stat()
	c.gauge("medilab_database_connections", "Connections to Postgres by this process that are in use.", float64(connections.AcquiredConns()))
	c.gauge("medilab_database_connections_max", "The most connections to Postgres that this process shares.", float64(connections.MaxConns()))
	c.counter("medilab_log_lost_positions_total", "Positions of the log that its database lost, as this process saw it.", float64(p.server.log.LostPositions()))
}

func (p partMetrics) readers(ctx context.Context, c constMetrics) {
	rows, err := p.server.pool.Query(ctx, `SELECT name, position FROM medilab.readers WHERE position IS NOT NULL`)
	if err != nil {
		return
	}
	var name string
	var position int64
	_, _ = pgx.ForEachRow(rows, []any{&name, &position}, func() error { // what cannot be read is left out
		c.gauge("medilab_reader_position", "Up to where a reader has applied the log.", float64(position), "reader", name)
		return nil
	})
}

// standby collects how reading from the standby goes.
func (p partMetrics) standby(ctx context.Context, c constMetrics) {
	s := p.server.standby
	if s == nil {
		return
	}
	usable := 0.0
	if s.State() == projections.StandbyOK {
		usable = 1
	}
	c.gauge("medilab_standby_usable", "Whether queries go to the standby.", usable)
	standby, primary := s.Reads()
	const queries = "Queries that may go to the standby, by the server that answered them."
	c.counter("medilab_standby_queries_total", queries, float64(standby), "server", "standby")
	c.counter("medilab_standby_queries_total", queries, float64(primary), "server", "primary")
	if log, models, err := s.Position(ctx); err == nil {
		const position = "How far the standby is: of the log, and of the read models."
		c.gauge("medilab_standby_position", position, float64(log), "of", "log")
		c.gauge("medilab_standby_position", position, float64(models), "of", "projections")
	}
}

// constMetrics sends values as they are now.
type constMetrics chan<- prometheus.Metric

// gauge sends a value that goes up and down; label is a label's name and value, if any.
func (c constMetrics) gauge(name, help string, value float64, label ...string) {
	c.send(prometheus.GaugeValue, name, help, value, label)
}

func (c constMetrics) counter(name, help string, value float64, label ...string) {
	c.send(prometheus.CounterValue, name, help, value, label)
}

func (c constMetrics) send(kind prometheus.ValueType, name, help string, value float64, label []string) {
	labels := prometheus.Labels{}
	if len(label) > 0 {
		labels[label[0]] = label[1]
	}
	c <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, nil, labels), kind, value)
}
