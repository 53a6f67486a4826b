package http

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/uuid"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/eventschema"
)

// strict returns the schema with no properties allowed but those that it names.
func strict(s schema) schema {
	s = merged(s, nil)
	if items, ok := s["items"].(schema); ok {
		s["items"] = strict(items)
	}
	if properties, ok := s["properties"].(schema); ok {
		s["additionalProperties"] = false
		if events, ok := properties["events"].(schema); ok {
			s["properties"] = merged(properties, schema{"events": strict(events)})
		}
	}
	return s
}

// Every body and every header that the domain writes is described, and the examples are too.
func TestEveryBodyAndHeaderIsDescribed(t *testing.T) {
	full := sample
	full.Trace, full.Sequence, full.ReplayID = domain.Trace{Traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Tracestate: "rojo=1"}, 7, domain.ReplayID{1}
	bare := domain.Payload{PayloadEvent: domain.PayloadEvent{EventID: uuid.UUID{1}, OccurredAt: time.Unix(0, 0)}, WebhookID: uuid.UUID{2}, DeliveryID: uuid.UUID{3}, Timestamp: time.Unix(0, 0), Attempt: 1}
	key := domain.NewSigningKey(domain.NewSecret("s"))
	signer := domain.Signer{Current: key, Previous: []*domain.SigningKey{key}}
	catalog := domain.BuiltinCatalog()
	types := append(catalog.Clinic(), catalog.System()...)
	described := map[string]bool{"Content-Type": true}
	for _, h := range outgoingHeaders {
		described[h.name] = false
	}
	for _, f := range forms {
		compiled, err := eventschema.Compile(encode(strict(f.body)))
		if err != nil {
			t.Fatal(err)
		}
		bodies := [][]byte{}
		for _, body := range f.examples(types) {
			bodies = append(bodies, body)
		}
		for _, p := range []domain.Payload{full, bare} {
			p.EventType, p.EventData = "patient.created", []byte(`{"a":1}`)
			var body []byte
			var headers []domain.Header
			if f.batch {
				b := domain.Payload{WebhookID: p.WebhookID, DeliveryID: p.DeliveryID, Timestamp: p.Timestamp, Attempt: 1, ReplayID: p.ReplayID,
					Events: []domain.PayloadEvent{{EventType: p.EventType, EventData: p.EventData, EventID: p.EventID, CorrelationID: p.CorrelationID,
						Source: p.Source, OccurredAt: p.OccurredAt, Sequence: p.Sequence, Trace: p.Trace}}}
				body = domain.AppendPayload(nil, f.version, b)
				headers = domain.Headers(f.version, b, body, signer)
			} else {
				body = domain.AppendPayload(nil, f.version, p)
				headers = domain.Headers(f.version, p, body, signer)
			}
			bodies = append(bodies, body)
			for _, h := range headers {
				if _, ok := described[h.Name]; !ok {
					t.Errorf("%s has the header %s, which is not described", f.name, h.Name)
				}
				if h.Name == "Content-Type" && h.Value != f.media {
					t.Errorf("%s is sent as %s, described as %s", f.name, h.Value, f.media)
				}
				described[h.Name] = true
			}
		}
		for _, body := range bodies {
			if found, err := compiled.Check(body, func(int) error { return nil }); err != nil || len(found) > 0 {
				t.Errorf("%s: %s: %v %v", f.name, body, found, err)
			}
		}
	}
	for name, sent := range described {
		if !sent {
			t.Errorf("the header %s is described, and never sent", name)
		}
	}
}

// The AsyncAPI document has a message for each type and form, with a payload that its example fits,
// and what a schema of a file refers to is in it.
func TestMessages(t *testing.T) {
	catalog, err := domain.ParseCatalog([]byte(`[{"type":"lab.result_ready","example":{"value":{"unit":"g/l"}},
		"schema":{"$schema":"https://json-schema.org/draft/2020-12/schema","properties":{"value":{"$ref":"#/$defs/value"}},"$defs":{"value":{"required":["unit"]}}}},
		"lab.opened"]`))
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(Config{Commands: &commands.Commands{Catalog: catalog}})
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/asyncapi.json", nil))
	var document struct {
		AsyncAPI   string
		Channels   map[string]struct{ Messages map[string]any }
		Components struct {
			Messages map[string]struct {
				Payload  json.RawMessage
				Examples []struct{ Payload json.RawMessage }
			}
			Schemas map[string]any
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &document); err != nil || w.Code != 200 || document.AsyncAPI != "3.0.0" {
		t.Fatalf("%d %v: %.200s", w.Code, err, w.Body)
	}
	for name, want := range map[string]int{"event": 30, "eventV2": 30, "cloudEvent": 30, "batch": 1, "cloudEvents": 1} {
		if got := len(document.Channels[name].Messages); got != want {
			t.Errorf("the channel %s has %d messages, want %d", name, got, want)
		}
	}
	all, err := json.Marshal(document.Components.Schemas)
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range document.Components.Messages {
		// The message's payload, where the rest of the document is.
		payload := strings.TrimSuffix(string(m.Payload), "}") + fmt.Sprintf(`,"components":{"schemas":%s}}`, all)
		compiled, err := eventschema.Compile([]byte(payload))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(m.Examples) == 0 {
			if !strings.HasPrefix(name, "lab.opened.") {
				t.Errorf("%s has no example", name)
			}
			continue
		}
		for body, fits := range map[string]bool{string(m.Examples[0].Payload): true, strings.Replace(string(m.Examples[0].Payload), `"unit"`, `"u"`, 1): !strings.HasPrefix(name, "lab.")} {
			if found, err := compiled.Check([]byte(body), func(int) error { return nil }); err != nil || (len(found) == 0) != fits {
				t.Errorf("%s: %s: %v %v", name, body, found, err)
			}
		}
	}
}

// The description shows an example of each type to trigger, and of each body.
func TestExamplesAreDescribed(t *testing.T) {
	s := NewServer(unserved)
	document, err := openapi3.NewLoader().LoadFromData(encode(s.describe()))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(document.Paths.Value("/api/v1/webhooks/events/trigger").Post.RequestBody.Value.Content["application/json"].Examples); n != 25 {
		t.Errorf("%d examples of events", n)
	}
	if strings.Count(string(encode(s.describe())), `"X-Webhook-Sequence"`) != len(forms) {
		t.Error("X-Webhook-Sequence is not among the headers of each body")
	}
}
