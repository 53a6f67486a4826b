package domain

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/medilab/webhooks/domain/eventschema"
)

func TestBuiltinCatalogHasTheGuidesTypes(t *testing.T) {
	c := BuiltinCatalog()
	list := c.Clinic()
	if len(list) != 25 {
		t.Fatalf("got %d types, the guide has 25", len(list))
	}
	for _, info := range list {
		if info.Group != info.Type.Group() || info.RU == "" || info.EN == "" || !c.Known(info.Type) || info.Enforce {
			t.Errorf("%+v is incomplete", info)
		}
	}
	guide, err := os.ReadFile("../docs/guide.ru.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range list {
		if line := "- `" + string(info.Type) + "` - " + info.RU + "\n"; !strings.Contains(string(guide), line) {
			t.Errorf("the guide has no line %q", line)
		}
	}
}

// Every example fits its schema, and so do the events that the guide prints and those that
// the service makes itself.
func TestExamplesFitTheirSchemas(t *testing.T) {
	c := BuiltinCatalog()
	types := append(c.Clinic(), c.System()...)
	var file []string
	for _, info := range types {
		schema, err := eventschema.Compile(info.Schema)
		if err != nil {
			t.Errorf("%s: %v", info.Type, err)
			continue
		}
		data := map[string][]byte{"the example": info.Example, "no object": []byte("[]")}
		switch info.Type {
		case "patient.created":
			data["the guide's event"] = []byte(`{"patient_id":123,"name":"Иван Иванов","phone":"+7900123456","email":"ivan@example.com","created_at":"2024-01-15T10:30:00Z"}`)
		case DeliveryGivenUp:
			_, event := GivenUpEvent(DeliveryID{1}, Call{EventType: "patient.created", Attempt: 4, Error: "x"}, time.Unix(0, 0))
			data["the service's event"] = event.EventData
		case AlertRaised:
			data["the service's event"] = AlertEvent(Webhook{WebhookSettings: WebhookSettings{ID: WebhookID{1}}}, WebhookAlertRaised{}, time.Unix(0, 0)).EventData
		case AlertResolved:
			data["the service's event"] = AlertEvent(Webhook{}, WebhookAlertResolved{}, time.Unix(0, 0)).EventData
		}
		for name, one := range data {
			found, err := schema.Check(one, func(int) error { return nil })
			if err != nil || (len(found) > 0) != (name == "no object") {
				t.Errorf("%s: %s: %v %v", info.Type, name, found, err)
			}
		}
		if !info.Type.IsSystem() {
			file = append(file, `{"type":"`+string(info.Type)+`","enforce":true}`)
		}
	}
	enforced, err := ParseCatalog([]byte("[" + strings.Join(file, ",") + "]"))
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range c.Clinic() {
		if c.Enforces(info.Type) || !enforced.Enforces(info.Type) {
			t.Errorf("%s: it is enforced only where a file says so", info.Type)
		}
	}
}

func TestDataFields(t *testing.T) {
	c, err := ParseCatalog([]byte(`[
		{"type": "lab.result_ready", "schema": {"required": ["result_id"], "properties": {"value": {"type": "number"}}}, "enforce": true},
		{"type": "lab.opened", "schema": {"required": ["a"]}},
		{"type": "patient.created", "schema": {"required": ["snils"]}, "enforce": true}]`))
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct{ eventType, data, want string }{
		{"lab.result_ready", `{"result_id":1,"value":1.5}`, "[]"},
		{"lab.result_ready", `{"value":"Иванов"}`, "[event_data.result_id is required event_data.value must be of type number]"},
		{"lab.result_ready", `{"result_id":1e-999999999}`, "[event_data is too costly to check against the schema of its type]"},
		{"lab.opened", `{}`, "[]"},
		{"patient.created", `{}`, "[event_data.snils is required]"},
		{"patient.updated", `{}`, "[]"},
	} {
		got, err := c.With([]EventType{"old.type"}).DataFields(EventTriggered{EventType: x.eventType, EventData: []byte(x.data)}, func(int) error { return nil })
		if err != nil || fmt.Sprint(got) != x.want {
			t.Errorf("%s %s: got %v %v, want %s", x.eventType, x.data, got, err, x.want)
		}
	}
	if info, _ := c.Find("patient.created"); info.Example != nil || info.RU != "Создан новый пациент" || !info.Enforce {
		t.Errorf("an example that does not fit the file's schema must go: %+v", info)
	}
	if info, _ := BuiltinCatalog().Find("patient.created"); info.Example == nil || info.Enforce {
		t.Error("a parsed catalogue changed the built-in one")
	}
}

func TestParseCatalogNamesWhatIsWrong(t *testing.T) {
	for _, x := range []struct{ entry, want string }{
		{`{"type":"lab.b","schema":{"type":"objekt"}}`, "[1].schema is not a JSON Schema that can be used: type "},
		{`{"type":"lab.b","schema":{"$ref":"https://elsewhere.example/a"}}`, "[1].schema is not a JSON Schema"},
		{`{"type":"lab.b","schema":true}`, "[1].schema must be a JSON object"},
		{`{"type":"lab.b","example":[]}`, "[1].example must be a JSON object"},
		{`{"type":"lab.b","example":{"a":"1"},"schema":{"properties":{"a":{"type":"integer"}}}}`, "[1].example.a must be of type integer"},
		{`{"type":"patient.created","example":{"name":"x"}}`, "[1].example.patient_id is required"},
		{`{"type":"lab.b","enforce":true}`, "[1].enforce needs a schema"},
		{`{"type":"lab.b","subject":"client_id, client..id"}`, "[1].subject must have no empty part"},
		{`{"type":"lab.b","subject":" , "}`, "[1].subject must be a path"},
		{`{"type":"patient.created"}`, "[1].type exists already"},
		{`{"type":"patient.created","en":"x","enforce":true}`, "[1].type exists already"},
		{`{"type":"patient.created","enforce":false}`, "[1].type exists already"},
	} {
		_, err := ParseCatalog([]byte("[\n\"lab.a\",\n\n" + x.entry + "]"))
		if err == nil || !strings.Contains(err.Error(), x.want) || !strings.Contains(err.Error(), "(line 4)") {
			t.Errorf("%s: got %v, want %s", x.entry, err, x.want)
		}
	}
}

// Data of a type that is not known, as of what is parked, may name patients as any type does.
func TestSubjectPathsOfUnknownTypes(t *testing.T) {
	c, err := ParseCatalog([]byte(`[{"type":"lab.sampled","subject":"sample.donor"},{"type":"lab.mixed","subject":"of"},"lab.other"]`))
	if err != nil {
		t.Fatal(err)
	}
	data := []byte(`{"patient_id":1,"sample":{"donor":"d-31"},"of":[2,3]}`)
	for eventType, want := range map[EventType]string{"lab.sampled": "[d-31]", "lab.other": "[1]", AlertRaised: "[1]", "lab.sample": "[1 2 3 d-31]", "": "[1 2 3 d-31]"} {
		if got := fmt.Sprint(c.SubjectPaths(eventType, ParseSubjectPaths("patient_id")).In(data)); got != want {
			t.Errorf("%q: got %s, want %s", eventType, got, want)
		}
	}
}

func TestKnownLeavesOutTheServicesOwnTypes(t *testing.T) {
	c := BuiltinCatalog()
	for _, own := range c.System() {
		if c.Known(own.Type) {
			t.Errorf("%s must not be triggered", own.Type)
		}
		if _, ok := c.Find(own.Type); !ok {
			t.Errorf("%s must be found", own.Type)
		}
		if got := c.CheckEventType(own.Type); len(got) != 1 {
			t.Errorf("%s: got %v", own.Type, got)
		}
	}
	if (Catalog{}).Known("patient.created") {
		t.Error("the zero catalogue knows nothing")
	}
}

func TestSuggest(t *testing.T) {
	c := BuiltinCatalog()
	for typed, want := range map[string]string{
		"patient.craeted":                "patient.created",
		"patients.created":               "patient.created",
		"Patient.Created":                "patient.created",
		"payment.refund":                 "payment.refunded",
		"":                               "",
		"x":                              "",
		"something.else_entirely":        "",
		"\xff\xfe":                       "",
		strings.Repeat("patient.", 1000): "",
	} {
		if got := c.Suggest(typed); got != want {
			t.Errorf("Suggest(%.30q) = %q, want %q", typed, got, want)
		}
	}
}

func TestCheckEventType(t *testing.T) {
	c := BuiltinCatalog()
	for _, x := range []struct {
		typ  EventType
		want string
	}{
		{"patient.created", ""},
		{"", "is required"},
		{"patient.create", "is not a known event type; did you mean patient.created?"},
		{"zzz", "is not a known event type"},
		{"patient.*", "is not a known event type"},
		{"*", "is not a known event type"},
	} {
		got := c.CheckEventType(x.typ)
		switch {
		case x.want == "" && len(got) == 0:
		case len(got) == 1 && got[0].Field == "event_type" && strings.HasPrefix(got[0].Message, x.want) && x.want != "":
		default:
			t.Errorf("%q: got %v, want %q", x.typ, got, x.want)
		}
	}
}

func TestSubscriptionMatches(t *testing.T) {
	for _, x := range []struct {
		s    Subscription
		t    EventType
		want bool
	}{
		{"patient.created", "patient.created", true},
		{"patient.created", "patient.updated", false},
		{"patient.*", "patient.updated", true},
		{"patient.*", "patients.updated", false},
		{"patient.*", "patient", true}, // a type is never without a dot; the group is what counts
		{"queue.*", "queue.entry_called", true},
		{"*", "patient.created", true},
		{"*", "lab.result", true},
		{"*", AlertRaised, false},
		{"webhook.*", AlertResolved, true},
		{AllEvents, AlertResolved, false},
		{"webhook.alert_raised", AlertRaised, true},
		{"webhook.alert_raised", AlertResolved, false},
		{"", "patient.created", false},
	} {
		if got := x.s.Matches(x.t); got != x.want {
			t.Errorf("%q.Matches(%q) = %v", x.s, x.t, got)
		}
	}
	if !(Subscriptions{"user.*", "payment.failed"}).Match("payment.failed") || (Subscriptions{}).Match("user.created") {
		t.Error("a list matches when one of it does")
	}
}

func TestParseSubscriptions(t *testing.T) {
	c := BuiltinCatalog()
	for _, x := range []struct {
		name   string
		list   []string
		want   int
		fields string
	}{
		{"types", []string{"patient.created", "patient.updated"}, 2, ""},
		{"group, all and own", []string{"patient.*", "*", "webhook.alert_raised", "webhook.*"}, 4, ""},
		{"doubles", []string{"*", "*"}, 1, ""},
		{"none", nil, 0, "events"},
		{"unknown", []string{"*", "patient.creatd"}, 0, "events[1]"},
		{"unknown group", []string{"patients.*"}, 0, "events[0]"},
		{"empty", []string{""}, 0, "events[0]"},
		{"bare star group", []string{".*"}, 0, "events[0]"},
		{"group without star", []string{"patient"}, 0, "events[0]"},
		{"too many", make([]string, maxSubscriptions+1), 0, "events"},
	} {
		t.Run(x.name, func(t *testing.T) {
			got, refused := c.ParseSubscriptions("events", x.list)
			if len(got) != x.want {
				t.Fatalf("got %v", got)
			}
			if x.fields == "" && len(refused) > 0 || x.fields != "" && (len(refused) != 1 || refused[0].Field != x.fields) {
				t.Fatalf("refused %v, want %q", refused, x.fields)
			}
		})
	}
	_, refused := c.ParseSubscriptions("events", []string{"patients.*"})
	if !strings.HasSuffix(refused[0].Message, "did you mean patient.*?") {
		t.Errorf("got %q", refused[0].Message)
	}
}

func TestParseCatalog(t *testing.T) {
	c, err := ParseCatalog([]byte(`[
		{"type": "lab.result_ready", "group": "lab", "ru": "Готов анализ", "en": "A result is ready"},
		{"type": "lab.sample_taken", "en": "A sample was taken"},
		{"type": "lab.sample_lost", "group": "lab", "description": {"ru": "Проба потеряна", "en": "A sample was lost"}},
		{"type": "lab.opened", "description": "Opened"},
		"lab.closed"]`))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Clinic()) != 30 || !c.Known("lab.result_ready") || !c.Known("patient.created") {
		t.Fatalf("got %v", c.Clinic())
	}
	if info, _ := c.Find("lab.sample_taken"); info.Group != "lab" || info.RU != "A sample was taken" {
		t.Fatalf("got %+v", info)
	}
	for name, want := range map[EventType][2]string{
		"lab.sample_lost": {"Проба потеряна", "A sample was lost"}, "lab.opened": {"Opened", "Opened"}, "lab.closed": {"lab.closed", "lab.closed"},
	} {
		if info, known := c.Find(name); !known || info.Group != "lab" || info.RU != want[0] || info.EN != want[1] {
			t.Errorf("got %+v", info)
		}
	}
	if _, refused := c.ParseSubscriptions("events", []string{"lab.*"}); refused != nil {
		t.Fatalf("an added group can be subscribed to: %v", refused)
	}
	if len(BuiltinCatalog().Clinic()) != 25 {
		t.Fatal("a parsed catalogue changed the built-in one")
	}
}

func TestParseCatalogRefuses(t *testing.T) {
	for _, x := range []struct {
		name, file string
		kind       Kind
	}{
		{"not JSON", `nope`, KindMalformed},
		{"empty", ``, KindMalformed},
		{"object", `{"type":"lab.a","ru":"x"}`, KindMalformed},
		{"unknown field", `[{"type":"lab.a","ru":"x","desc":"y"}]`, KindMalformed},
		{"trailing", `[] []`, KindMalformed},
		{"no dot", `[{"type":"lab","ru":"x"}]`, KindInvalid},
		{"upper case", `[{"type":"Lab.A","ru":"x"}]`, KindInvalid},
		{"long", `[{"type":"lab.` + strings.Repeat("a", 100) + `","ru":"x"}]`, KindInvalid},
		{"built in", `[{"type":"patient.created","ru":"x"}]`, KindInvalid},
		{"own group", `[{"type":"webhook.x","ru":"x"}]`, KindInvalid},
		{"double", `[{"type":"lab.a","ru":"x"},{"type":"lab.a","ru":"x"}]`, KindInvalid},
		{"other group", `[{"type":"lab.a","group":"b","ru":"x"}]`, KindInvalid},
		{"odd description", `[{"type":"lab.a","description":5}]`, KindMalformed},
		{"description in another language", `[{"type":"lab.a","description":{"de":"x"}}]`, KindMalformed},
		{"no type", `[{"ru":"x"}]`, KindInvalid},
		{"a number", `[5]`, KindMalformed},
	} {
		t.Run(x.name, func(t *testing.T) {
			if _, err := ParseCatalog([]byte(x.file)); err == nil || KindOf(err) != x.kind {
				t.Fatalf("got %v", err)
			}
		})
	}
	_, err := ParseCatalog([]byte(`[{"type":"lab.a","enforced":true}]`))
	if err == nil || !strings.Contains(err.Error(), `[0] (line 1): it has no field "enforced"`) {
		t.Errorf("an unknown field is refused as %v", err)
	}
}
