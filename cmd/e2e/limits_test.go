package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/medilab/webhooks/cmd/e2e/harness"
)

// Each limit of a webhook at its edge, and one beyond it on either side.
func TestLimitsOfWebhooks(t *testing.T) {
	t.Parallel()
	p := start(t)
	headers := func(n int) string {
		list := make([]string, n)
		for i := range list {
			list[i] = fmt.Sprintf(`"X-H-%d":"v"`, i)
		}
		return "{" + strings.Join(list, ",") + "}"
	}
	text := func(letter string, n int) string { return quoted(strings.Repeat(letter, n)) }
	type edge struct {
		field   string // of the request
		named   string // in the refusal, when it is another
		ok, bad []string
	}
	for _, e := range []edge{
		{field: "name", ok: []string{`"a"`, text("a", 200), text("я", 200), text("😀", 200)}, bad: []string{`""`, text("a", 201), text("я", 201), `null`, `5`}},
		{field: "url", ok: []string{`"http://a"`, `"https://a.example:65535/?q=1"`}, bad: []string{`""`, `"ftp://a"`, `"https://u:p@a.example/"`, `"a.example"`, `"https://"`, `"https://a:65536"`, `null`}},
		{field: "events", ok: []string{`["*"]`, `["patient.*","visit.created"]`}, bad: []string{`[]`, `null`, `"*"`}},
		{field: "headers", ok: []string{`{}`, `null`, headers(50)}, bad: []string{headers(51), `[]`, `"a"`}},
		{field: "headers", named: "headers.X-A", ok: []string{`{"X-A":` + text("v", 4096) + `}`, `{"X-A":""}`}, bad: []string{`{"X-A":` + text("v", 4097) + `}`, `{"X-A":"я"}`, `{"X-A":"a\nb"}`, `{"X-A":5}`}},
		{field: "secret", ok: []string{text("s", 256), text("я", 128), `null`}, bad: []string{text("s", 257), quoted(strings.Repeat("я", 128) + "s"), `5`}},
		{field: "max_retries", ok: []string{`0`, `10`, `1e1`, `null`}, bad: []string{`-1`, `11`, `1.5`, `"3"`, `1e99`}},
		{field: "retry_delay", ok: []string{`1`, `86400`, `null`}, bad: []string{`0`, `86401`, `-60`, `0.5`, `"60"`}},
		{field: "timeout", ok: []string{`1`, `300`, `null`}, bad: []string{`0`, `301`, `-1`, `29.5`, `true`}},
		{field: "batch", named: "batch.max_events", ok: []string{`{"max_events":1,"max_wait":1}`, `{"max_events":1000,"max_wait":1}`, `null`}, bad: []string{`{"max_events":0,"max_wait":1}`, `{"max_events":1001,"max_wait":1}`, `{"max_wait":1}`}},
		{field: "batch", named: "batch.max_wait", ok: []string{`{"max_events":2,"max_wait":300}`}, bad: []string{`{"max_events":2,"max_wait":0}`, `{"max_events":2,"max_wait":301}`, `{"max_events":2}`}},
		{field: "payload_version", ok: []string{`"1"`, `"2"`, `"cloudevents"`, `null`}, bad: []string{`"3"`, `""`, `1`, `"CloudEvents"`}},
		{field: "order_by", ok: []string{`"patient.id"`, `"*"`, `null`}, bad: []string{`""`, `"$or"`, `5`, text("a", 257)}},
		{field: "order_on_failure", ok: []string{`"skip"`, `"block"`, `null`}, bad: []string{`"stop"`, `""`, `true`}},
		{field: "sequence", ok: []string{`true`, `false`, `null`}, bad: []string{`"true"`, `1`}},
		{field: "is_active", ok: []string{`true`, `false`}, bad: []string{`null`, `"true"`, `1`}},
	} {
		named := e.named
		if named == "" {
			named = e.field
		}
		for i, value := range append(append([]string{}, e.ok...), e.bad...) {
			asked := map[string]json.RawMessage{"name": json.RawMessage(`"a"`), "url": json.RawMessage(`"https://a.example/"`), "events": json.RawMessage(`["*"]`)}
			asked[e.field] = json.RawMessage(value)
			body, err := json.Marshal(asked)
			if err != nil {
				t.Fatalf("%s: %v", value, err)
			}
			if i >= len(e.ok) {
				p.refused(422, "POST", "/webhooks/", string(body), named, "")
				continue
			}
			status, answer := p.request("POST", "/api/v1/webhooks/", string(body))
			if status != http.StatusCreated {
				t.Errorf("%s %.60s answered %d: %s", e.field, value, status, answer)
				continue
			}
			var made webhook
			if err := json.Unmarshal(answer, &made); err != nil {
				t.Fatal(err)
			}
			p.api(200, "PUT", fmt.Sprintf("/webhooks/%d", made.Number), `{`+quoted(e.field)+`:`+value+`}`, nil)
		}
	}

	// Pages of lists.
	for _, limit := range []string{"1", "1000"} {
		for _, list := range []string{"/webhooks/", "/webhooks/events", "/webhooks/1/calls", "/webhooks/alerts"} {
			p.api(200, "GET", list+"?limit="+limit, "", nil)
		}
	}
	for _, limit := range []string{"0", "1001", "-1", "1.5", "many"} {
		for _, list := range []string{"/webhooks/", "/webhooks/events", "/webhooks/1/calls", "/webhooks/alerts"} {
			p.refused(422, "GET", list+"?limit="+limit, "", "limit", "")
		}
	}
}

// nested is event_data of objects and lists within one another, so deep.
func nested(depth int) string {
	return `{"a":` + strings.Repeat("[", depth-1) + strings.Repeat("]", depth-1) + `}`
}

// Each limit of an event, and what of JSON is refused, at the edge; what is accepted
// arrives byte for byte.
func TestLimitsOfEvents(t *testing.T) {
	t.Parallel()
	in := harness.Receive(t, nil)
	p := start(t)
	p.register(in.URL, "")
	const most = 10 << 20
	sized := func(n int) string {
		const head, tail = `{"event_type":"visit.created","event_data":{"a":"`, `"}}`
		return head + strings.Repeat("x", n-len(head)-len(tail)) + tail
	}
	batch := func(n int) string {
		return `{"events":[` + strings.TrimSuffix(strings.Repeat(`{"event_type":"visit.updated","event_data":{}},`, n), ",") + `]}`
	}
	event := func(data string) string { return `{"event_type":"visit.created","event_data":` + data + `}` }

	var accepted []string
	for _, data := range []string{
		nested(63), // and the body around it is 64
		`{"n":1e308,"m":-1e308,"o":1` + strings.Repeat("0", 308) + `}`,
		`{"n":0.` + strings.Repeat("0", 5000) + `1,"m":` + strings.Repeat("9", 300) + `.` + strings.Repeat("9", 5000) + `,"o":1e-999999999999999999999,"p":0e99999999}`,
		`{"a":"\u0000\ud83d\ude00\u2028\/","":{" ":null}}`,
		`{}`,
	} {
		p.trigger(event(data))
		accepted = append(accepted, data)
	}
	for body, words := range map[string]string{
		event(nested(64)):                                "deeper than 64",
		event(`{"n":1.0001e308}`):                        "beyond 1e308",
		event(`{"n":-1e309}`):                            "beyond 1e308",
		event(`{"n":1` + strings.Repeat("0", 309) + `}`): "beyond 1e308",
		event(`{"a":1,"a":1}`):                           "repeats a key",
		event(`{"a":{"b":1,"\u0062":2}}`):                "repeats a key",
		event("{\"a\":\"\xff\"}"):                        "UTF-8",
		event(`{"a":"\ud800"}`):                          "surrogate",
		event(`{"a":NaN}`):                               "",
		event(`{"a":01}`):                                "after object value",
		event(`{"a":1}`) + `x`:                           "followed by",
		"\xef\xbb\xbf" + event(`{}`):                     "byte order mark",
		``:                                               "empty",
		`{"event_type":"visit.created",`:                 "",
	} {
		p.refused(400, "POST", "/webhooks/events/trigger", body, "", words)
	}
	for body, field := range map[string]string{
		event(`[]`): "event_data", event(`null`): "event_data", event(`"a"`): "event_data",
		`{"event_type":"visit.created"}`: "event_data", `{"event_data":{}}`: "event_type",
		`{"event_type":"visit.created","event_data":{},"evnt":1}`:                                                  "evnt",
		`{"event_type":"visit.created","event_data":{},"source":5}`:                                                "source",
		`{"event_type":"visit.created","event_data":{},"event_id":"1"}`:                                            "event_id",
		`{"event_type":"visit.created","event_data":{},"correlation_id":` + quoted(strings.Repeat("я", 501)) + `}`: "correlation_id",
	} {
		p.refused(422, "POST", "/webhooks/events/trigger", body, field, "")
	}
	p.trigger(`{"event_type":"visit.created","event_data":{},"correlation_id":` + quoted(strings.Repeat("я", 500)) + `}`)
	accepted = append(accepted, `{}`)

	p.refused(413, "POST", "/webhooks/events/trigger", sized(most+1), "", "10 MB")
	full := sized(most)
	p.trigger(full)
	p.refused(422, "POST", "/webhooks/events/trigger/batch", batch(1001), "events", "1000")
	p.refused(413, "POST", "/webhooks/events/trigger/batch", `{"events":[`+sized(most)+`]}`, "", "10 MB")
	var answered struct{ Items []json.RawMessage }
	if p.api(202, "POST", "/webhooks/events/trigger/batch", batch(1000), &answered); len(answered.Items) != 1000 {
		t.Errorf("a batch of 1000 is answered with %d", len(answered.Items))
	}

	bodies := map[string]int{}
	for _, r := range in.Await(len(accepted) + 1001) {
		var body struct {
			EventType string          `json:"event_type"`
			EventData json.RawMessage `json:"event_data"`
		}
		if err := json.Unmarshal(r.Body, &body); err != nil {
			t.Fatal(err)
		}
		if body.EventType == "visit.created" {
			bodies[string(body.EventData)]++
		}
	}
	for _, data := range append(accepted, strings.TrimSuffix(strings.TrimPrefix(full, `{"event_type":"visit.created","event_data":`), "}")) {
		if bodies[data] == 0 {
			t.Errorf("%.60s did not arrive as it was", data)
		}
		bodies[data]--
	}
	if n := len(in.All()); n != len(accepted)+1001 {
		t.Errorf("%d calls arrived: something of what was refused", n)
	}
}

// A delivery that fails gets its retries and no more, each no sooner than the schedule says.
func TestRetriesEnd(t *testing.T) {
	t.Parallel()
	in := harness.Receive(t, func(w http.ResponseWriter, _ harness.Call) { w.WriteHeader(http.StatusBadGateway) })
	p := start(t)
	none, two := p.register(in.URL, `{"max_retries":0,"retry_delay":1}`), p.register(in.URL, `{"max_retries":2,"retry_delay":1}`)
	event := p.trigger(`{"event_type":"visit.created","event_data":{}}`)
	p.Until("both have failed", func() bool {
		failed := 0
		for _, d := range p.deliveries(event) {
			if d.State == "failed" && text(d.Reason) == "retries_exhausted" {
				failed++
			}
		}
		return failed == 2
	})
	if calls := p.awaitCalls(none.ID, 1); len(calls) != 1 || calls[0].NextAttemptAt != nil {
		t.Errorf("without retries the calls are %+v", calls)
	}
	calls := p.awaitCalls(two.ID, 3)
	if len(calls) != 3 || calls[2].NextAttemptAt != nil || len(in.All()) != 4 {
		t.Fatalf("the calls are %+v", calls)
	}
	delivered := map[string]string{} // delivery by webhook
	for _, c := range in.All() {
		delivered[c.Header.Get("X-Webhook-Id")] = c.Delivery()
	}
	failures := p.failures(delivered[two.ID])
	if len(failures) != 3 || failures[2].GaveUp != "retries_exhausted" {
		t.Fatalf("the delivery ended as %+v", failures)
	}
	for i, wait := range []time.Duration{time.Second, 2 * time.Second} {
		f := failures[i]
		if next := calls[i].NextAttemptAt; calls[i].Attempt != i+1 || next == nil || next.Sub(calls[i].CreatedAt) > wait+wait/20 {
			t.Errorf("attempt %d was due at %v: %+v", i+2, next, calls[i])
		}
		f.checkWait(t, i+1, wait, failures[i+1].StartedAt)
	}
}
