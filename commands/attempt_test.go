package commands

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// decrypter decrypts what was never encrypted.
type decrypter struct{}

func (decrypter) Decrypt(_ domain.WebhookID, _ string, sealed domain.Sealed) (string, error) {
	return string(sealed), nil
}

// echo is a receiver that answers with what it was sent.
type echo struct{ sent http.Header }

func (e *echo) Send(_ context.Context, call Outgoing) Answer {
	e.sent = http.Header{}
	var body []byte
	for _, h := range call.Header {
		e.sent[h.Name] = append(e.sent[h.Name], h.Value)
		body = append(body, (h.Name + ": " + h.Value + "\n")...)
	}
	return Answer{Outcome: domain.OutcomeSuccess, Status: 200, Header: e.sent, Body: body}
}

// connections records which attempts asked for a connection of their own.
type connections struct{ fresh []bool }

func (s *connections) Send(_ context.Context, call Outgoing) Answer {
	s.fresh = append(s.fresh, call.Fresh)
	return Answer{Outcome: "reset"}
}

// The last attempt may have failed because of the connection that it was made over.
func TestRetriesGetNewConnections(t *testing.T) {
	receiver := new(connections)
	a := &Attempter{Sender: receiver, Decrypter: decrypter{}, Clock: eventstore.NewClock()}
	w := domain.Webhook{WebhookSettings: domain.WebhookSettings{ID: domain.WebhookID(uuid.New()), URL: "https://crm.example/", Timeout: 30, PayloadVersion: domain.PayloadV1}, Version: 1}
	for number := 1; number <= 3; number++ {
		a.Make(t.Context(), Attempt{Webhook: w, Number: number, Event: domain.EventTriggered{EventType: "patient.created", EventData: []byte(`{}`)}})
	}
	if want := []bool{false, true, true}; !slices.Equal(receiver.fresh, want) {
		t.Errorf("fresh %v, want %v", receiver.fresh, want)
	}
}

// answering answers every call with the headers.
type answering struct{ header http.Header }

func (s answering) Send(context.Context, Outgoing) Answer {
	return Answer{Outcome: domain.OutcomeSuccess, Status: 200, Header: s.header}
}

// What a receiver says of its limits reaches the caller, in each of the usual headers.
func TestBackoffOfAnAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		header []string // names and values
		calls  int
		wait   time.Duration
	}{
		"no header":         {},
		"RateLimit":         {[]string{"RateLimit", `"a";r=9;t=60`, "RateLimit", `"b";r=3;t=5`}, 3, 5 * time.Second},
		"the older headers": {[]string{"RateLimit-Limit", "10", "RateLimit-Remaining", "2", "RateLimit-Reset", "7"}, 2, 7 * time.Second},
		"X- headers":        {[]string{"X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "8"}, 0, 8 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			header := http.Header{}
			for i := 0; i < len(c.header); i += 2 {
				header.Add(c.header[i], c.header[i+1])
			}
			a := &Attempter{Sender: answering{header}, Decrypter: decrypter{}, Clock: eventstore.NewClock()}
			w := domain.Webhook{WebhookSettings: domain.WebhookSettings{ID: domain.WebhookID(uuid.New()), URL: "https://crm.example/", Timeout: 30, PayloadVersion: domain.PayloadV1}, Version: 1}
			_, got := a.Make(t.Context(), Attempt{Webhook: w, Number: 1, Event: domain.EventTriggered{EventType: "patient.created", EventData: []byte(`{}`)}})
			if want := (domain.Backoff{Calls: c.calls, For: c.wait}); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
}

// Headers that a webhook may not set are dropped also when they are stored, and
// what is secret in the others does not come back into the log by an echo.
func TestHeadersOfAnAttempt(t *testing.T) {
	receiver := new(echo)
	a := &Attempter{Sender: receiver, Decrypter: decrypter{}, Clock: eventstore.NewClock()}
	w := domain.Webhook{WebhookSettings: domain.WebhookSettings{ID: domain.WebhookID(uuid.New()), URL: "https://crm.example/", Timeout: 30, PayloadVersion: domain.PayloadV1, Secret: "the-signing-secret",
		Headers: []domain.SealedHeader{
			{Name: "X-API-Key", Value: "canary-header-value"}, {Name: "x-webhook-signature", Value: "sha256=forged"}, {Name: "webhook-id", Value: "forged"},
			{Name: "Host", Value: "forged.example"}, {Name: "Content-Type", Value: "text/forged"}, {Name: "USER-AGENT", Value: "forged"},
			{Name: "Cookie", Value: "forged"}, {Name: "X-Idempotency-Key", Value: "forged"}, {Name: "X-Split", Value: "a\r\nX-Forged: b"},
		}}, Version: 1}
	event := domain.EventID(uuid.New())
	call, _ := a.Make(t.Context(), Attempt{
		Webhook: w, Delivery: domain.DeliveryOf(event, w.ID), Number: 1, EventID: event,
		Event: domain.EventTriggered{EventType: "patient.created", EventData: []byte(`{}`)},
	})
	if receiver.sent["X-API-Key"][0] != "canary-header-value" {
		t.Errorf("sent %v", receiver.sent)
	}
	for name, values := range receiver.sent {
		for _, value := range values {
			if len(values) != 1 || value == "forged" || name == "x-webhook-signature" || name == "X-Split" || value == "text/forged" || value == "forged.example" {
				t.Errorf("sent %s: %q", name, values)
			}
		}
	}
	record := string(domain.DeliverySucceeded{Call: call}.AppendJSON(nil))
	for _, secret := range []string{"canary-header-value", "the-signing-secret"} {
		if strings.Contains(record, secret) || strings.Contains(string(call.Body), secret) {
			t.Errorf("%s is recorded: %s", secret, record)
		}
	}
}

// A secret that came back in a rotation signs once.
func TestASecretSignsOnce(t *testing.T) {
	receiver := new(echo)
	a := &Attempter{Sender: receiver, Decrypter: decrypter{}, Clock: eventstore.NewClock()}
	later := time.Now().Add(time.Hour)
	w := domain.Webhook{WebhookSettings: domain.WebhookSettings{ID: domain.WebhookID(uuid.New()), URL: "https://crm.example/", Timeout: 30, PayloadVersion: domain.PayloadV1, Secret: "a"}, Version: 1,
		Previous: []domain.PreviousSecret{{Secret: "a", Until: later}, {Secret: "b", Until: time.Now().Add(-time.Hour)}, {Secret: "b", Until: later}, {Secret: "b", Until: later}}}
	a.Make(t.Context(), Attempt{Webhook: w, Number: 1, Event: domain.EventTriggered{EventType: "patient.created", EventData: []byte(`{}`)}})
	signatures := strings.Fields(receiver.sent["webhook-signature"][0])
	if len(signatures) != 2 || signatures[0] == signatures[1] || receiver.sent["X-Webhook-Signature"][0] == receiver.sent["X-Webhook-Signature-Previous"][0] {
		t.Errorf("signed %v", receiver.sent)
	}
}

// A batch is part of the trace that its events have in common, or linked to each of theirs.
func TestSpansOfABatch(t *testing.T) {
	const one, other = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	spans := tracetest.NewSpanRecorder()
	a := &Attempter{
		Sender: new(connections), Decrypter: decrypter{}, Clock: eventstore.NewClock(),
		Tracer: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("test"),
	}
	w := domain.Webhook{WebhookSettings: domain.WebhookSettings{ID: domain.WebhookID(uuid.New()), URL: "https://crm.example/", Timeout: 30, PayloadVersion: domain.PayloadV1}, Version: 1}
	for _, traces := range [][]string{{one, one}, {one, other}, {"", ""}} {
		batch := make([]domain.PayloadEvent, len(traces))
		for i, trace := range traces {
			batch[i] = domain.PayloadEvent{EventType: "patient.created", EventData: []byte(`{}`), Trace: domain.Trace{Traceparent: trace}}
		}
		a.Make(t.Context(), Attempt{Webhook: w, Number: 1, Batch: batch})
	}
	for i, want := range []struct {
		parent string
		links  int
	}{{"00f067aa0ba902b7", 0}, {"0000000000000000", 2}, {"0000000000000000", 0}} {
		span := spans.Ended()[i]
		if got := span.Parent().SpanID().String(); got != want.parent || len(span.Links()) != want.links || span.Status().Description != "reset" {
			t.Errorf("batch %d: parent %s, %d links, %v", i, got, len(span.Links()), span.Status())
		}
	}
}

// A batch of nothing but the service's own events is told apart: its call raises no alert.
func TestCallsOfSystemEvents(t *testing.T) {
	a := &Attempter{Sender: new(connections), Decrypter: decrypter{}, Clock: eventstore.NewClock()}
	w := domain.Webhook{WebhookSettings: domain.WebhookSettings{ID: domain.WebhookID(uuid.New()), URL: "https://crm.example/", Timeout: 30, PayloadVersion: domain.PayloadV1}, Version: 1}
	event := func(of domain.EventType) domain.PayloadEvent {
		return domain.PayloadEvent{EventType: of, EventData: []byte(`{}`)}
	}
	for name, c := range map[string]struct {
		attempt Attempt
		want    bool
	}{
		"an alert":              {Attempt{Event: domain.EventTriggered{EventType: string(domain.AlertRaised), EventData: []byte(`{}`)}}, true},
		"an event":              {Attempt{Event: domain.EventTriggered{EventType: "patient.created", EventData: []byte(`{}`)}}, false},
		"a batch of alerts":     {Attempt{Batch: []domain.PayloadEvent{event(domain.AlertRaised), event(domain.DeliveryGivenUp)}}, true},
		"one with other events": {Attempt{Batch: []domain.PayloadEvent{event(domain.AlertRaised), event("patient.created")}}, false},
	} {
		c.attempt.Webhook, c.attempt.Number = w, 1
		if call, _ := a.Make(t.Context(), c.attempt); call.IsSystem() != c.want {
			t.Errorf("%s: %t", name, call.IsSystem())
		}
	}
}
