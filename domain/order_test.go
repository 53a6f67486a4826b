package domain

import (
	"testing"
	"time"
)

func orderedBy(path string, batch *Batch) Webhook {
	return Webhook{}.Evolve(WebhookRegistered{ID: goldenWebhook, Number: 1, Events: []string{"*"}, OrderBy: path, Batch: batch, Active: true}, goldenTime)
}

func TestLineOf(t *testing.T) {
	w := orderedBy("patient.id", nil)
	same := [][2]string{
		{`{"patient":{"id":1}}`, `{ "patient": {"id": 1.0, "name": "a"}}`},
		{`{"patient":{"id":100}}`, `{"patient":{"id":1e2}}`},
		{`{"patient":{"id":0.105}}`, `{"patient":{"id":105e-3}}`},
		{`{"patient":{"id":-0}}`, `{"patient":{"id":0.0}}`},
		{`{"patient":{"id":"é"}}`, `{"patient":{"id":"\u00e9"}}`},
		{`{"patient":{"id":true}}`, `{"patient.id":true}`},
	}
	for _, pair := range same {
		if a, b := w.LineOf([]byte(pair[0])), w.LineOf([]byte(pair[1])); a != b || a == NoLine || a == wholeLine {
			t.Errorf("%s and %s: lines %d and %d", pair[0], pair[1], a, b)
		}
	}
	different := map[Line]string{}
	for _, data := range []string{`1`, `-1`, `"1"`, `true`, `"true"`, `"t"`, `10`, `1.01`, `""`, `"+1e1"`} {
		data = `{"patient":{"id":` + data + `}}`
		line := w.LineOf([]byte(data))
		if other, taken := different[line]; taken || line == NoLine {
			t.Errorf("%s: line %d, as %s", data, line, other)
		}
		different[line] = data
	}
	for _, data := range []string{`{}`, `{"patient":1}`, `{"patient":{"id":null}}`, `{"patient":{"id":{}}}`, `{"patient":{"id":[1]}}`,
		`{"patient":[{"id":1},{"id":2}]}`, `{"patient":{"id":1e999999999999999999}}`} {
		if line := w.LineOf([]byte(data)); line != NoLine {
			t.Errorf("%s: line %d", data, line)
		}
	}
	for _, whole := range []Webhook{orderedBy(OrderAll, nil), orderedBy("patient.id", &Batch{MaxEvents: 2, MaxWait: 1})} {
		if line := whole.LineOf([]byte(`{}`)); line != wholeLine {
			t.Errorf("%+v: line %d", whole, line)
		}
	}
	if line := orderedBy("", nil).LineOf([]byte(`{"patient":{"id":1}}`)); line != NoLine {
		t.Errorf("not ordered: line %d", line)
	}
}

func TestRecipientsHaveLines(t *testing.T) {
	data := []byte(`{"patient":{"id":7},"ward":3}`)
	registry := NewRegistry()
	hooks := []WebhookRegistered{
		{OrderBy: "patient.id"}, {}, {OrderBy: "*", Sequence: true}, {OrderBy: "nothing"}, {OrderBy: "patient.id", Filters: []byte(`{"ward":3}`)},
	}
	for i := range hooks {
		hooks[i].ID, hooks[i].Number, hooks[i].Events, hooks[i].Active = WebhookID{byte(i + 1)}, int64(i+1), []string{"*"}, true
		registry = registry.With(hooks[i].ID, hooks[i], goldenTime)
		recipients := registry.Recipients("patient.created", data)
		if len(recipients) != i+1 {
			t.Fatalf("%d recipients of %d", len(recipients), i+1)
		}
		last := recipients[i]
		w, _ := registry.Webhook(hooks[i].ID)
		if last.Line != w.LineOf(data) || last.NumberedSince != w.SequenceSince || (w.SequenceSince > 0) != hooks[i].Sequence {
			t.Errorf("%+v is the recipient %+v", hooks[i], last)
		}
	}
	if other := registry.Recipients("patient.created", []byte(`{"patient":{"id":8}}`)); other[0].Line == registry.Recipients("patient.created", data)[0].Line {
		t.Error("a shared list of recipients was changed")
	}
}

func TestSequenceCountsFromWhenItWasSwitchedOn(t *testing.T) {
	w := Webhook{}.Evolve(WebhookRegistered{ID: goldenWebhook}, goldenTime)
	for i, step := range []struct {
		change Change
		since  int64
	}{
		{WebhookChanged{Sequence: ptr(true)}, 2}, {WebhookChanged{Sequence: ptr(true)}, 2}, {WebhookDeactivated{}, 2},
		{WebhookChanged{Sequence: ptr(false)}, 0}, {WebhookChanged{Name: ptr("a"), Sequence: ptr(true)}, 6},
	} {
		if w = w.Evolve(step.change, goldenTime); w.SequenceSince != step.since {
			t.Errorf("step %d: numbered since %d, want %d", i, w.SequenceSince, step.since)
		}
	}
}

func TestOrderIsChecked(t *testing.T) {
	for _, c := range []struct {
		spec WebhookSpec
		want string // the field; empty: none
	}{
		{WebhookSpec{OrderBy: Ask("patient.id")}, ""},
		{WebhookSpec{OrderBy: Ask("*"), OrderOnFailure: Ask(OrderBlock)}, ""},
		{WebhookSpec{OrderBy: AskNull[string](), OrderOnFailure: AskNull[OrderOnFailure](), Sequence: AskNull[bool]()}, ""},
		{WebhookSpec{OrderBy: Ask("")}, "order_by"},
		{WebhookSpec{OrderBy: Ask("$or")}, "order_by"},
		{WebhookSpec{OrderBy: Ask("a..b")}, "order_by"},
		{WebhookSpec{OrderBy: Ask("a.")}, "order_by"},
		{WebhookSpec{OrderBy: Ask("a\x00b")}, "order_by"},
		{WebhookSpec{OrderBy: Ask("a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q")}, "order_by"},
		{WebhookSpec{OrderOnFailure: Ask(OrderOnFailure("stop"))}, "order_on_failure"},
	} {
		_, err := CheckSpec(BuiltinCatalog(), c.spec, false)
		var fields []string
		for _, f := range FieldsOf(err) {
			fields = append(fields, f.Field)
		}
		if c.want == "" && err != nil || c.want != "" && (len(fields) != 1 || fields[0] != c.want) {
			t.Errorf("%+v: %v", c.spec, err)
		}
	}
}

func TestBlocksWhenItGivesUp(t *testing.T) {
	w := orderedBy("patient.id", nil)
	w.OrderOnFailure = OrderBlock
	failed := func(ordered bool, retries int) DeliveryAttemptFailed {
		w.MaxRetries = 1
		call := Call{Attempt: 1, Outcome: "http_status", Status: 500, Ordered: ordered}
		return DecideOutcome(goldenDelivery, retries, w, call, goldenTime, 0).(DeliveryAttemptFailed)
	}
	if failed(true, 0).Blocks || !failed(true, 1).Blocks || failed(false, 1).Blocks {
		t.Error("a delivery blocks when it is ordered and has given up, and only then")
	}
	w.OrderOnFailure = OrderSkip
	if failed(true, 1).Blocks {
		t.Error("skip blocks")
	}
	d := Delivery{}.Evolve(failed(true, 1), goldenTime)
	cancelled, err := DecideCancel(d, goldenEvent, goldenWebhook, CancelRequested)
	if err != nil || cancelled.(DeliveryCancelled).Was != DeliveryFailed {
		t.Fatalf("cancelling what failed: %+v, %v", cancelled, err)
	}
	if d = d.Evolve(cancelled, goldenTime.Add(time.Second)); d.State != DeliveryWithdrawn || d.GaveUp != "" {
		t.Errorf("%+v", d)
	}
	if _, err := DecideCancel(d, goldenEvent, goldenWebhook, CancelRequested); err == nil {
		t.Error("what is cancelled can be cancelled")
	}
}
