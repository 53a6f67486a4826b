package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/binding"
	cloudevents "github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/medilab/webhooks/cmd/e2e/harness"
)

// oddData is what a body must carry byte for byte.
const oddData = `{"z":1.50,"a":"<&\u0000>","n":123456789012345678901234567890.10e-5, "й":["\ud83d\ude00","😀"]}`

// keys gives the names of an object.
func keys(t *testing.T, body []byte) map[string]json.RawMessage {
	t.Helper()
	var object map[string]json.RawMessage
	if err := json.Unmarshal(body, &object); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return object
}

// Each version of the body is what was promised, signed, and read by the libraries that
// receivers use.
func TestPayloadVersions(t *testing.T) {
	t.Parallel()
	const secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
	library, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	p := start(t)
	for _, version := range []string{"1", "2", "cloudevents"} {
		t.Run(version, func(t *testing.T) {
			in := harness.Receive(t, nil)
			w := p.register(in.URL, `{"payload_version":"`+version+`","secret":"`+secret+`","events":["visit.completed"]}`)
			id := p.trigger(`{"event_type":"visit.completed","event_data":` + oddData + `,"source":"касса 1","correlation_id":"c-77"}`)
			p.trigger(`{"event_type":"visit.completed","event_data":{}}`) // has neither source nor correlation
			for i, got := range in.Await(2) {
				if err := library.Verify(got.Body, got.Header); err != nil {
					t.Errorf("call %d: %v", i, err)
				}
				if got.Header.Get("X-Webhook-Payload-Version") != version || got.Header.Get("X-Webhook-Id") != w.ID || got.Header.Get("X-Webhook-Event") != "visit.completed" {
					t.Errorf("call %d has %v", i, got.Header)
				}
			}
			got := in.All()[0]
			if got.Header.Get("X-Webhook-Event-Id") != id {
				got = in.All()[1]
			}
			if !strings.Contains(string(got.Body), oddData) {
				t.Errorf("event_data is not byte for byte in %s", got.Body)
			}
			fields := keys(t, got.Body)
			switch version {
			case "1":
				if len(fields) != 5 || string(fields["webhook_id"]) != quoted(w.ID) || string(fields["attempt"]) != "1" || got.Header.Get("Content-Type") != "application/json" {
					t.Errorf("the body is %s, the headers %v", got.Body, got.Header)
				}
			case "2":
				if len(fields) != 11 || string(fields["event_id"]) != quoted(id) || string(fields["delivery_id"]) != quoted(got.Delivery()) ||
					string(fields["correlation_id"]) != `"c-77"` || string(fields["source"]) != `"касса 1"` || string(fields["payload_version"]) != `"2"` || fields["occurred_at"] == nil {
					t.Errorf("the body is %s", got.Body)
				}
			case "cloudevents":
				for _, r := range in.All() {
					checkCloudEvent(t, r, w.ID)
				}
				var e cloudevents.Event
				if err := json.Unmarshal(got.Body, &e); err != nil || e.ID() != id || e.Extensions()["correlationid"] != "c-77" || string(e.Data()) != oddData {
					t.Errorf("the event is %v, %v", e, err)
				}
			}
			calls := p.awaitCalls(w.ID, 2)
			for _, c := range calls {
				if d := p.details(w.ID, c); c.EventID == id && d.Payload != string(got.Body) {
					t.Errorf("the call log shows %s, sent was %s", d.Payload, got.Body)
				}
			}
		})
	}
}

// checkCloudEvent reads a call as a receiver with the official SDK does.
func checkCloudEvent(t *testing.T, r harness.Call, webhook string) {
	t.Helper()
	message := cehttp.NewMessage(r.Header, nopCloser{strings.NewReader(string(r.Body))})
	if message.ReadEncoding() != binding.EncodingStructured {
		t.Errorf("the encoding is %v: %v", message.ReadEncoding(), r.Header)
	}
	e, err := binding.ToEvent(t.Context(), message)
	if err != nil {
		t.Fatalf("%v: %s", err, r.Body)
	}
	if err := e.Validate(); err != nil {
		t.Errorf("%v: %s", err, r.Body)
	}
	if e.SpecVersion() != "1.0" || e.Type() != "visit.completed" || e.Source() == "" || e.Time().IsZero() || e.DataContentType() != "application/json" ||
		e.Extensions()["webhookid"] != webhook || e.Extensions()["deliveryid"] != r.Delivery() || fmt.Sprint(e.Extensions()["attempt"]) != "1" {
		t.Errorf("the event is %v", e)
	}
}

type nopCloser struct{ *strings.Reader }

func (nopCloser) Close() error { return nil }

// A webhook's change while a delivery is on its way shows from the next attempt on, and
// headers and call log tell of each attempt what it had.
func TestVersionChangesBetweenAttempts(t *testing.T) {
	t.Parallel()
	changed := make(chan struct{})
	in := harness.Receive(t, func(w http.ResponseWriter, r harness.Call) {
		if r.Attempt() == "1" {
			<-changed
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	p := start(t)
	w := p.register(in.URL, `{"retry_delay":1,"headers":{"X-Tenant":"before"}}`)
	id := p.trigger(`{"event_type":"visit.completed","event_data":` + oddData + `}`)
	in.Await(1)
	p.api(200, "PATCH", "/webhooks/1", `{"payload_version":"2","headers":{"X-Tenant":"after"},"secret":"new-secret"}`, nil)
	close(changed)
	got := in.Await(2)
	first, second := got[0], got[1]
	if first.Delivery() != second.Delivery() || second.Attempt() != "2" {
		t.Errorf("attempt 2 is %v", second.Header)
	}
	for i, want := range []struct{ version, tenant string }{{"1", "before"}, {"2", "after"}} {
		if got[i].Header.Get("X-Webhook-Payload-Version") != want.version || got[i].Header.Get("X-Tenant") != want.tenant {
			t.Errorf("attempt %d has %v", i+1, got[i].Header)
		}
	}
	if len(keys(t, first.Body)) != 5 || len(keys(t, second.Body)) != 11 || string(keys(t, second.Body)["event_id"]) != quoted(id) {
		t.Errorf("the bodies are %s and %s", first.Body, second.Body)
	}
	if first.Header.Get("X-Webhook-Signature") != "" || second.Header.Get("X-Webhook-Signature") == "" {
		t.Errorf("the signatures are %v and %v", first.Header, second.Header)
	}
	for i, c := range p.awaitCalls(w.ID, 2) {
		d := p.details(w.ID, c)
		if d.Payload != string(got[i].Body) || d.RequestHeaders["X-Webhook-Payload-Version"] != got[i].Header.Get("X-Webhook-Payload-Version") ||
			d.RequestHeaders["X-Webhook-Signature"] != got[i].Header.Get("X-Webhook-Signature") || d.RequestHeaders["X-Tenant"] != "***" {
			t.Errorf("attempt %d is shown as %+v", i+1, d)
		}
	}
}

// During a rotation's overlap a receiver that has either secret verifies; afterwards only
// one that has the new.
func TestRotationOverlap(t *testing.T) {
	t.Parallel()
	in := harness.Receive(t, nil)
	p := start(t)
	p.register(in.URL, `{"secret":"old-secret"}`)
	library := func(secret string) *standardwebhooks.Webhook {
		l, err := standardwebhooks.NewWebhookRaw([]byte(secret))
		if strings.HasPrefix(secret, "whsec_") {
			l, err = standardwebhooks.NewWebhook(secret)
		}
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	next := func() harness.Call {
		t.Helper()
		n := len(in.All())
		p.trigger(`{"event_type":"visit.completed","event_data":` + oddData + `}`)
		return in.Await(n + 1)[n]
	}
	verifies := func(r harness.Call, secret string) bool { return library(secret).Verify(r.Body, r.Header) == nil }
	rotate := func(body string) (secret string) {
		t.Helper()
		var rotated struct {
			Secret        string
			PreviousUntil *time.Time `json:"previous_until"`
		}
		p.api(200, "POST", "/webhooks/1/rotate-secret", body, &rotated)
		if rotated.PreviousUntil == nil {
			t.Errorf("the rotation says no end of the overlap")
		}
		return rotated.Secret
	}

	if r := next(); !verifies(r, "old-secret") || r.Header.Get("X-Webhook-Signature-Previous") != "" {
		t.Errorf("before: %v", r.Header)
	}
	if got := rotate(`{"secret":"new-secret","overlap_seconds":3600}`); got != "new-secret" {
		t.Errorf("the new secret is %q", got)
	}
	r := next()
	if !verifies(r, "old-secret") || !verifies(r, "new-secret") {
		t.Errorf("in the overlap: %v", r.Header)
	}
	guide := func(secret string) string { return guideSignature(r.Body, secret) }
	if r.Header.Get("X-Webhook-Signature") != guide("new-secret") || r.Header.Get("X-Webhook-Signature-Previous") != guide("old-secret") {
		t.Errorf("in the overlap: %v", r.Header)
	}

	// One that is made, with a short overlap. The first secret signs until its own end.
	made := rotate(`{"overlap_seconds":1}`)
	p.Until("the overlap is over", func() bool {
		if r = next(); !verifies(r, made) || !verifies(r, "old-secret") {
			t.Errorf("in the overlaps: %v", r.Header)
		}
		return !verifies(r, "new-secret")
	})
	if r.Header.Get("X-Webhook-Signature") != guide(made) || r.Header.Get("X-Webhook-Signature-Previous") != guide("old-secret") {
		t.Errorf("after the short overlap: %v", r.Header)
	}

	// None at all: at once.
	rotate(`{"secret":"last-secret","overlap_seconds":0}`)
	if r = next(); !verifies(r, "last-secret") || verifies(r, made) {
		t.Errorf("without an overlap: %v", r.Header)
	}
	p.refused(422, "POST", "/webhooks/1/rotate-secret", `{"overlap_seconds":-1}`, "overlap_seconds", "from 0")
	p.refused(422, "POST", "/webhooks/1/rotate-secret", `{"secret":"whsec_!"}`, "secret", "base64")
}
