package domain

import (
	"encoding/json"
	"errors"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
)

func guideSpec() WebhookSpec {
	return WebhookSpec{
		Name: Ask("Интеграция с CRM"), URL: Ask("https://crm.example.com/webhooks/patients"),
		Events: Ask([]string{"patient.created", "patient.updated"}),
	}
}

func TestCheckSpec(t *testing.T) {
	with := func(alter func(*WebhookSpec)) WebhookSpec {
		spec := guideSpec()
		alter(&spec)
		return spec
	}
	for _, c := range []struct {
		name     string
		spec     WebhookSpec
		changing bool
		refused  string // fields
	}{
		{"the guide's", guideSpec(), false, ""},
		{"nothing", WebhookSpec{}, false, "name url events"},
		{"nothing to change", WebhookSpec{}, true, ""},
		{"everything at once", WebhookSpec{
			Name: Ask(""), URL: Ask("ftp://a"), Events: Ask([]string{"patient.born"}), Headers: Ask([]Header{{"Host", "a"}}),
			Secret: Ask(NewSecret(strings.Repeat("s", 257))), MaxRetries: Ask(11), RetryDelay: Ask(0), Timeout: Ask(301),
			Filters: Ask(json.RawMessage(`[]`)), Batch: Ask(Batch{}), PayloadVersion: Ask(PayloadVersion("3")), Active: AskNull[bool](),
			MaxConcurrent: Ask(0), RateLimit: Ask(0.0),
		}, false, "name url events[0] headers.Host secret max_retries retry_delay timeout filters batch.max_events batch.max_wait payload_version max_concurrent rate_limit is_active"},
		{"name of 200", with(func(s *WebhookSpec) { s.Name = Ask(strings.Repeat("й", 200)) }), false, ""},
		{"name of 201", with(func(s *WebhookSpec) { s.Name = Ask(strings.Repeat("й", 201)) }), false, "name"},
		{"name with NUL", with(func(s *WebhookSpec) { s.Name = Ask("a\x00b") }), false, "name"},
		{"description with NUL", with(func(s *WebhookSpec) { s.Description = Ask("\x00") }), false, "description"},
		{"null of what is required", WebhookSpec{Name: AskNull[string](), URL: AskNull[string](), Events: AskNull[[]string]()}, true, "name url events"},
		{"null of what has a default", WebhookSpec{
			Description: AskNull[string](), Headers: AskNull[[]Header](), Secret: AskNull[Secret](), MaxRetries: AskNull[int](), RetryDelay: AskNull[int](),
			Timeout: AskNull[int](), Filters: AskNull[json.RawMessage](), Batch: AskNull[Batch](), PayloadVersion: AskNull[PayloadVersion](),
			MaxConcurrent: AskNull[int](), RateLimit: AskNull[float64](),
		}, true, ""},
		{"least", with(func(s *WebhookSpec) {
			s.MaxRetries, s.RetryDelay, s.Timeout, s.Batch = Ask(0), Ask(1), Ask(1), Ask(Batch{1, 1})
			s.MaxConcurrent, s.RateLimit = Ask(1), Ask(0.01)
		}), false, ""},
		{"most", with(func(s *WebhookSpec) {
			s.MaxRetries, s.RetryDelay, s.Timeout, s.Batch = Ask(10), Ask(86400), Ask(300), Ask(Batch{1000, 300})
			s.MaxConcurrent, s.RateLimit = Ask(512), Ask(10_000.0)
		}), false, ""},
		{"below", with(func(s *WebhookSpec) { s.MaxRetries, s.Batch = Ask(-1), Ask(Batch{0, 1}) }), false, "max_retries batch.max_events"},
		{"limits above", with(func(s *WebhookSpec) { s.MaxConcurrent, s.RateLimit = Ask(513), Ask(10_000.5) }), false, "max_concurrent rate_limit"},
		{"a rate below", with(func(s *WebhookSpec) { s.RateLimit = Ask(0.0099) }), false, "rate_limit"},
		{"above", with(func(s *WebhookSpec) { s.RetryDelay, s.Batch = Ask(86401), Ask(Batch{1001, 301}) }), false, "retry_delay batch.max_events batch.max_wait"},
		{"a mask for a new header", with(func(s *WebhookSpec) { s.Headers = Ask([]Header{{"X-A", Masked}}) }), false, "headers.X-A"},
		{"a mask for a stored header", WebhookSpec{Headers: Ask([]Header{{"X-A", Masked}})}, true, ""},
		{"no events", with(func(s *WebhookSpec) { s.Events = Ask([]string{}) }), false, "events"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := CheckSpec(BuiltinCatalog(), c.spec, !c.changing)
			var fields []string
			for _, f := range FieldsOf(err) {
				fields = append(fields, f.Field)
			}
			if got := strings.Join(fields, " "); got != c.refused || (err != nil) != (c.refused != "") {
				t.Errorf("refused %q, want %q (%v)", got, c.refused, err)
			}
		})
	}
}

func approved(t *testing.T, spec WebhookSpec, creating bool) ApprovedSpec {
	t.Helper()
	a, err := CheckSpec(BuiltinCatalog(), spec, creating)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestDecideRegister(t *testing.T) {
	spec := guideSpec()
	spec.Events = Ask([]string{"patient.created", "*", "patient.created"})
	got := DecideRegister(goldenWebhook, 7, approved(t, spec, true), Sealing{})
	want := WebhookRegistered{
		ID: goldenWebhook, Number: 7, Name: "Интеграция с CRM", URL: "https://crm.example.com/webhooks/patients",
		Events: []string{"patient.created", "*"}, MaxRetries: 3, RetryDelay: 60, Timeout: 30, PayloadVersion: PayloadV1, Active: true,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the defaults:\n%+v, want\n%+v", got, want)
	}

	spec.Filters, spec.Batch, spec.Active, spec.MaxRetries = Ask(json.RawMessage(`{ "a": 1 }`)), Ask(Batch{10, 5}), Ask(false), Ask(0)
	spec.MaxConcurrent, spec.RateLimit = Ask(4), Ask(0.5)
	spec.Headers, spec.Secret = Ask([]Header{{"X-A", "v"}}), Ask(NewSecret("s"))
	sealing := Sealing{Headers: []SealedHeader{{"X-A", "sealed"}}, Secret: "sealed"}
	got = DecideRegister(goldenWebhook, 7, approved(t, spec, true), sealing)
	want.Filters, want.Batch, want.Active, want.MaxRetries = json.RawMessage(`{"a":1}`), &Batch{10, 5}, false, 0
	want.MaxConcurrent, want.RateLimit = 4, 0.5
	want.Headers, want.Secret = sealing.Headers, sealing.Secret
	if !reflect.DeepEqual(got, want) {
		t.Errorf("everything:\n%+v, want\n%+v", got, want)
	}
}

func given(changes ...Change) Webhook {
	var w Webhook
	for _, c := range changes {
		w = w.Evolve(c, goldenTime)
	}
	return w
}

var registered1 = WebhookRegistered{
	ID: goldenWebhook, Number: 1, Name: "CRM", Description: "d", URL: "https://a.example/", Events: []string{"*"},
	Headers: []SealedHeader{{"X-A", "sealed"}}, Secret: "sealed", MaxRetries: 5, RetryDelay: 10, Timeout: 20,
	Filters: json.RawMessage(`{"a":1}`), Batch: &Batch{10, 5}, PayloadVersion: PayloadV2, Active: true,
}

func TestDecideChange(t *testing.T) {
	for _, c := range []struct {
		name  string
		given []Change
		when  WebhookSpec
		with  Sealing
		then  []Change
		err   Kind
	}{
		{name: "nothing asked", given: []Change{registered1}},
		{name: "the same again", given: []Change{registered1}, when: WebhookSpec{
			Name: Ask("CRM"), Description: Ask("d"), URL: Ask("https://a.example/"), Events: Ask([]string{"*"}),
			Headers: Ask([]Header{{"X-A", Masked}}), Secret: Ask(NewSecret("s")), MaxRetries: Ask(5), RetryDelay: Ask(10), Timeout: Ask(20),
			Filters: Ask(json.RawMessage(`{ "a" : 1 }`)), Batch: Ask(Batch{10, 5}), PayloadVersion: Ask(PayloadV2), Active: Ask(true),
		}, with: Sealing{Headers: registered1.Headers, Secret: registered1.Secret}},
		{name: "only what is other", given: []Change{registered1},
			when: WebhookSpec{Name: Ask("Имя"), Description: Ask("d"), MaxRetries: Ask(4)},
			then: []Change{WebhookChanged{Name: ptr("Имя"), MaxRetries: ptr(4)}}},
		{name: "null clears", given: []Change{registered1}, when: WebhookSpec{
			Description: AskNull[string](), Headers: AskNull[[]Header](), Secret: AskNull[Secret](), MaxRetries: AskNull[int](), RetryDelay: AskNull[int](),
			Timeout: AskNull[int](), Filters: AskNull[json.RawMessage](), Batch: AskNull[Batch](), PayloadVersion: AskNull[PayloadVersion](),
		}, then: []Change{WebhookChanged{
			Description: ptr(""), Headers: new([]SealedHeader), Secret: ptr(Sealed("")), MaxRetries: ptr(3), RetryDelay: ptr(60), Timeout: ptr(30),
			Filters: ptr(json.RawMessage(`{}`)), Batch: &Batch{}, PayloadVersion: ptr(PayloadV1),
		}}},
		{name: "empty filters clear", given: []Change{registered1}, when: WebhookSpec{Filters: Ask(json.RawMessage(`{ }`))},
			then: []Change{WebhookChanged{Filters: ptr(json.RawMessage(`{}`))}}},
		{name: "cleared filters stay cleared", given: []Change{registered1, WebhookChanged{Filters: ptr(json.RawMessage(`{}`))}},
			when: WebhookSpec{Filters: AskNull[json.RawMessage]()}},
		{name: "other secrets", given: []Change{registered1}, when: WebhookSpec{Headers: Ask([]Header{{"X-B", "v"}}), Secret: Ask(NewSecret("s"))},
			with: Sealing{Headers: []SealedHeader{{"X-B", "other"}}, Secret: "other"},
			then: []Change{WebhookChanged{Headers: &[]SealedHeader{{"X-B", "other"}}, Secret: ptr(Sealed("other"))}}},
		{name: "deactivated besides", given: []Change{registered1}, when: WebhookSpec{Name: Ask("B"), Active: Ask(false)},
			then: []Change{WebhookChanged{Name: ptr("B")}, WebhookDeactivated{}}},
		{name: "activated alone", given: []Change{registered1, WebhookDeactivated{}}, when: WebhookSpec{Active: Ask(true)},
			then: []Change{WebhookActivated{}}},
		{name: "deleted", given: []Change{registered1, WebhookDeleted{}}, when: WebhookSpec{Name: Ask("B")}, err: KindNotFound},
		{name: "never registered", when: WebhookSpec{Name: Ask("B")}, err: KindNotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := DecideChange(given(c.given...), approved(t, c.when, false), c.with)
			if (err != nil || c.err != KindInternal) && KindOf(err) != c.err {
				t.Fatalf("got %v, want %v", err, c.err)
			}
			if !reflect.DeepEqual(got, c.then) {
				t.Fatalf("got\n%+v, want\n%+v", got, c.then)
			}
			// What was decided once changes nothing when it is asked again.
			if again, err := DecideChange(given(append(c.given, got...)...), approved(t, c.when, false), c.with); len(again) > 0 && err == nil {
				t.Errorf("asked again: %+v", again)
			}
		})
	}
}

func TestDecideLife(t *testing.T) {
	deactivated := []Change{registered1, WebhookDeactivated{}}
	deleted := []Change{registered1, WebhookDeleted{}}
	rotate := func(w Webhook) ([]Change, error) { return DecideRotateSecret(w, "new", "", goldenTime, time.Hour) }
	for _, c := range []struct {
		name  string
		given []Change
		when  func(Webhook) ([]Change, error)
		then  []Change
		err   Kind
	}{
		{"activate", deactivated, DecideActivate, []Change{WebhookActivated{}}, 0},
		{"activate again", []Change{registered1}, DecideActivate, nil, 0},
		{"deactivate", []Change{registered1}, DecideDeactivate, []Change{WebhookDeactivated{}}, 0},
		{"deactivate again", deactivated, DecideDeactivate, nil, 0},
		{"delete", deactivated, DecideDelete, []Change{WebhookDeleted{}}, 0},
		{"rotate", []Change{registered1}, rotate, []Change{WebhookSecretRotated{Secret: "new", PreviousUntil: goldenTime.Add(time.Hour)}}, 0},
		{"activate deleted", deleted, DecideActivate, nil, KindNotFound},
		{"deactivate deleted", deleted, DecideDeactivate, nil, KindNotFound},
		{"delete deleted", deleted, DecideDelete, nil, KindNotFound},
		{"rotate deleted", deleted, rotate, nil, KindNotFound},
		{"activate none", nil, DecideActivate, nil, KindNotFound},
		{"delete none", nil, DecideDelete, nil, KindNotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.when(given(c.given...))
			if (err != nil || c.err != KindInternal) && KindOf(err) != c.err {
				t.Fatalf("got %v, want %v", err, c.err)
			}
			if !reflect.DeepEqual(got, c.then) {
				t.Fatalf("got %+v, want %+v", got, c.then)
			}
		})
	}
}

func TestCheckRotation(t *testing.T) {
	for _, c := range []struct {
		secret  Secret
		overlap time.Duration
		fields  int
	}{
		{Secret{}, 0, 0}, {NewSecret("s"), MaxOverlap, 0}, {NewSecret("whsec_?"), MaxOverlap + 1, 2}, {NewSecret("s"), -1, 1},
	} {
		if got := FieldsOf(CheckRotation(c.secret, c.overlap)); len(got) != c.fields {
			t.Errorf("%v, %v: got %v", c.secret, c.overlap, got)
		}
	}
}

// Every secret signs until the end that its own rotation promised; so many that their
// signatures would fill the headers are refused, but never a rotation without overlap.
func TestRotationsInsideAnOverlap(t *testing.T) {
	var w Webhook
	w = w.Evolve(WebhookRegistered{ID: goldenWebhook, Secret: "0"}, goldenTime)
	rotate := func(at time.Time, overlap time.Duration, secret string) error {
		changes, err := DecideRotateSecret(w, Sealed(secret), "", at, overlap)
		for _, change := range changes {
			w = w.Evolve(change, at)
		}
		return err
	}
	signing := func(at time.Time) (secrets string) {
		for _, p := range w.previousAt(at) {
			secrets += string(p.Secret)
		}
		return secrets
	}
	for i, overlap := range []time.Duration{3 * time.Hour, time.Hour, 2 * time.Hour} {
		if err := rotate(goldenTime.Add(time.Duration(i)*time.Minute), overlap, strconv.Itoa(i+1)); err != nil {
			t.Fatal(err)
		}
	}
	for after, want := range map[time.Duration]string{time.Minute: "210", 61 * time.Minute: "20", 121 * time.Minute: "20", 123 * time.Minute: "0", 3 * time.Hour: ""} {
		if got := signing(goldenTime.Add(after)); got != want {
			t.Errorf("after %s %q sign, want %q", after, got, want)
		}
	}
	resealed := w.Evolve(WebhookResealed{Secret: "c", PreviousSecret: "B", OlderSecrets: []Sealed{"A", "@"}}, goldenTime.Add(5*time.Minute))
	if got := resealed.Previous; got[0].Secret != "B" || got[2].Secret != "@" || w.Previous[0].Secret != "2" {
		t.Errorf("resealed are %v, before %v", got, w.Previous)
	}
	for len(w.Previous) < maxPrevious {
		if err := rotate(goldenTime, time.Hour, "x"); err != nil {
			t.Fatal(err)
		}
	}
	if err := rotate(goldenTime, time.Hour, "y"); !errors.Is(err, KindConflict) {
		t.Errorf("one more: %v", err)
	}
	if err := rotate(goldenTime, 0, "z"); err != nil || w.Secret != "z" {
		t.Errorf("without overlap: %v", err)
	}
}
