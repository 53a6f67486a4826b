package http_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/migrations/testdb"
)

func TestGuideWebhook(t *testing.T) {
	s := newService(t)
	created := s.ask("POST", "/api/v1/webhooks/", `{
	  "name": "Интеграция с CRM",
	  "description": "Отправка данных о пациентах в CRM систему",
	  "url": "https://crm.example.com/webhooks/patients",
	  "events": ["patient.created", "patient.updated"],
	  "headers": {
	    "X-API-Key": "your-api-key"
	  },
	  "secret": "webhook-secret-key",
	  "max_retries": 3,
	  "retry_delay": 60,
	  "timeout": 30,
	  "filters": {
	    "department": "cardiology"
	  }
	}`, "Content-Type", "application/json").want(201)
	id := created.text("id")
	if got := created.header.Get("Location"); got != "/api/v1/webhooks/"+id {
		t.Errorf("Location %q", got)
	}
	for field, want := range map[string]string{
		"number": "1", "name": `"Интеграция с CRM"`, "description": `"Отправка данных о пациентах в CRM систему"`,
		"url": `"https://crm.example.com/webhooks/patients"`, "events": `["patient.created","patient.updated"]`,
		"headers": `{"X-API-Key":"***"}`, "has_secret": "true", "max_retries": "3", "retry_delay": "60", "timeout": "30",
		"filters": `{"department":"cardiology"}`, "batch": "null", "payload_version": `"1"`, "max_concurrent": "null", "rate_limit": "null", "is_active": "true",
		"status": `"active"`, "version": "1", "secret": "",
	} {
		if got := created.get(field); got != want {
			t.Errorf("%s is %s, want %s", field, got, want)
		}
	}
	if strings.Contains(string(created.body), "your-api-key") || strings.Contains(string(created.body), "webhook-secret-key") {
		t.Errorf("a secret shows: %s", created.body)
	}
	for _, path := range []string{"/api/v1/webhooks/" + id, "/api/v1/webhooks/1", "/api/v1/webhooks/1/", "/api/v1/webhooks/" + strings.ToUpper(id)} {
		if got := s.ask("GET", path, "").want(200); string(got.body) != string(created.body) || got.header.Get("ETag") != `"1"` {
			t.Errorf("%s: %s", path, got.body)
		}
	}
	if got := s.ask("GET", "/api/v1/webhooks/?status=active&limit=50", "").want(200); got.text("items", 0, "id") != id || got.get("next_cursor") != "null" {
		t.Errorf("list: %s", got.body)
	}

	updated := s.ask("PUT", "/api/v1/webhooks/"+id, `{"name": "Обновленное название", "is_active": true}`).want(200)
	if updated.text("name") != "Обновленное название" || updated.get("version") != "2" || updated.get("events") != created.get("events") {
		t.Errorf("updated: %s", updated.body)
	}
	off := s.ask("POST", "/api/v1/webhooks/"+id+"/deactivate", "").want(200)
	if off.get("is_active") != "false" || off.text("status") != "inactive" {
		t.Errorf("deactivated: %s", off.body)
	}
	head := s.head()
	if again := s.ask("POST", "/api/v1/webhooks/1/deactivate/", "").want(200); string(again.body) != string(off.body) || s.head() != head {
		t.Errorf("deactivated again: %s", again.body)
	}
	if on := s.ask("POST", "/api/v1/webhooks/"+id+"/activate", "").want(200); on.get("is_active") != "true" {
		t.Errorf("activated: %s", on.body)
	}
	s.ask("DELETE", "/api/v1/webhooks/"+id, "").want(204)
	s.ask("GET", "/api/v1/webhooks/"+id, "").want(404)
	s.ask("DELETE", "/api/v1/webhooks/1", "").want(404)
	s.ask("PUT", "/api/v1/webhooks/1", `{"name":"x"}`).want(404)
	s.ask("POST", "/api/v1/webhooks/1/activate", "").want(404)
	if list := s.ask("GET", "/api/v1/webhooks", "").want(200); list.get("items") != "[]" {
		t.Errorf("list: %s", list.body)
	}
}

func TestWebhookChange(t *testing.T) {
	s := newService(t)
	s.register(`"headers":{"X-A":"secret-a","X-B":"secret-b"},"secret":"s","filters":{"a":1},"max_retries":0,"batch":{"max_events":10,"max_wait":5}`)
	change := func(body string, headers ...string) answer {
		t.Helper()
		return s.ask("PATCH", "/api/v1/webhooks/1", body, headers...)
	}

	head := s.head()
	for _, same := range []string{
		`{}`, `{"name":"CRM"}`, `{"headers":{"X-A":"***","X-B":"***"}}`, `{"headers":{"X-A":"secret-a","X-B":"***"}}`, `{"secret":"s"}`,
		`{"filters":{ "a" : 1 }}`, `{"max_retries":0.0}`, `{"batch":{"max_wait":5,"max_events":10}}`, `{"is_active":true}`,
	} {
		if got := change(same).want(200); got.get("version") != "1" || s.head() != head {
			t.Errorf("%s changed something: %s", same, got.body)
		}
	}

	got := change(`{"headers":{"x-a":"***","X-C":"new"},"secret":null,"filters":null,"max_retries":null,"batch":null,"description":"d"}`).want(200)
	if got.get("headers") != `{"X-C":"***","x-a":"***"}` || got.get("has_secret") != "false" || got.get("filters") != "null" ||
		got.get("max_retries") != "3" || got.get("batch") != "null" || got.get("version") != "2" {
		t.Errorf("got %s", got.body)
	}
	change(`{"headers":{"X-Unknown":"***"}}`).refusing("headers.X-Unknown")

	if got := change(`{"name":"B","is_active":false}`).want(200); got.get("version") != "4" {
		t.Errorf("two changes make two versions: %s", got.body)
	}
	change(`{"name":"C"}`, "If-Match", `"3"`).want(412)
	change(`{"name":"C"}`, "If-Match", `"nonsense"`).want(412)
	change(`{"name":"C"}`, "If-Match", `"99"`).want(412)
	if got := change(`{"name":"C"}`, "If-Match", `"4"`).want(200); got.header.Get("ETag") != `"5"` {
		t.Errorf("ETag %q", got.header.Get("ETag"))
	}
	s.ask("DELETE", "/api/v1/webhooks/1", "", "If-Match", `"4"`).want(412)
}

// What GET answers can be sent back: read-only fields are refused only if they differ.
func TestAnswerIsAChange(t *testing.T) {
	s := newService(t)
	s.register(`"headers":{"X-A":"secret-a"},"secret":"s","filters":{"a":[1,"b"]},"batch":{"max_events":10,"max_wait":5},"order_by":"a","rate_limit":0.5,"fields":["a"],
		"recipient":{"name":"R"},"auth":{"type":"oauth2","token_url":"http://a.example/","client_id":"c","client_secret":"cs"},"auto_deactivate_after":3600`)
	s.ask("POST", "/api/v1/webhooks/1/rotate-secret", "").want(200)
	got, head := string(s.ask("GET", "/api/v1/webhooks/1", "").want(200).body), s.head()
	for _, method := range []string{"PUT", "PATCH"} {
		if again := s.ask(method, "/api/v1/webhooks/1", got).want(200); string(again.body) != got || s.head() != head {
			t.Errorf("%s of what GET answers changed something: %s", method, again.body)
		}
	}
	if renamed := s.ask("PUT", "/api/v1/webhooks/1", strings.Replace(got, `"name":"CRM"`, `"name":"B"`, 1)).want(200); renamed.get("name") != `"B"` {
		t.Errorf("got %s", renamed.body)
	}
	s.ask("PUT", "/api/v1/webhooks/1", got).refusing("version", "updated_at")
	s.ask("PUT", "/api/v1/webhooks/1", got, "If-Match", `"2"`).want(412)
	s.ask("PUT", "/api/v1/webhooks/1", `{"previous_secret_until":"2024-01-15T10:30:00Z"}`).want(200) // it was when that was read
	zone := strings.Replace(s.ask("GET", "/api/v1/webhooks/1", "").want(200).text("created_at"), "Z", "+00:00", 1)
	s.ask("PUT", "/api/v1/webhooks/1", `{"created_at":"`+zone+`"}`).want(200)
	s.ask("PUT", "/api/v1/webhooks/1", `{"id":[],"number":2,"has_secret":false,"public_key":{},"status":"inactive","created_at":null,"previous_secret_until":""}`).
		refusing("id", "number", "has_secret", "public_key", "status", "created_at", "previous_secret_until")
	s.ask("POST", "/api/v1/webhooks", `{"name":"a","url":"http://a.example/","events":["*"],"number":1}`).refusing("number")
}

// Every change of a webhook keeps to If-Match, of which one tag of several suffices.
func TestIfMatch(t *testing.T) {
	s := newService(t)
	s.register("")
	for _, change := range []string{"PUT", "POST /activate", "POST /deactivate", "POST /rotate-secret", "DELETE"} {
		method, path, _ := strings.Cut(change, " ")
		path = "/api/v1/webhooks/1" + path
		version := s.ask("GET", "/api/v1/webhooks/1", "").want(200).get("version")
		for _, stale := range []string{`"0"`, `"0", "77"`, `"nonsense", "0"`, `"0,` + version + `"`} {
			s.ask(method, path, `{}`, "If-Match", stale).want(412)
		}
		if got := s.ask(method, path, `{}`, "If-Match", `"nonsense", "0" , "`+version+`"`); got.status >= 300 {
			t.Errorf("%s: %d %s", change, got.status, got.body)
		}
	}
}

func TestWebhookRules(t *testing.T) {
	s := newService(t)
	post := func(body string) answer { t.Helper(); return s.ask("POST", "/api/v1/webhooks", body) }
	post(`{}`).refusing("name", "url", "events")
	post(`{"name":1,"url":true,"events":"*","headers":[],"secret":{},"max_retries":"3","retry_delay":1.5,"timeout":null,"filters":[],"batch":1,"payload_version":1,"is_active":"yes"}`).
		refusing("name", "url", "events", "headers", "secret", "max_retries", "retry_delay", "filters", "batch", "payload_version", "is_active")
	const fine = `"name":"a","url":"http://a.example/","events":["*"]`
	post(`{`+fine+`,"filter":{},"status":"active","id":"x"}`).refusing("filter", "status", "id")
	post(`{"nam":"a","max_retries":11}`).refusing("nam", "name", "url", "events", "max_retries")
	post(`{`+fine+`,"max_retries":11,"retry_delay":0,"timeout":301}`).refusing("max_retries", "retry_delay", "timeout")
	post(`{`+fine+`,"max_retries":1e300,"retry_delay":-99999999999999999999}`).refusing("max_retries", "retry_delay")
	post(`{`+fine+`,"headers":{"Host":"x","content-type":"x","X-Webhook-Event":"x","Idempotency-Key":"x","X-Ok":1}}`).
		refusing("headers.Host", "headers.content-type", "headers.X-Webhook-Event", "headers.Idempotency-Key", "headers.X-Ok")
	post(`{`+fine+`,"batch":{"max_events":0}}`).refusing("batch.max_events", "batch.max_wait")
	post(`{` + fine + `,"batch":{"max_events":10,"max_wait":5,"min":1}}`).refusing("batch.min")
	post(`{`+fine+`,"payload_version":"3","secret":"`+strings.Repeat("x", 257)+`"}`).refusing("payload_version", "secret")
	post(`{` + fine + `,"filters":{"a":{"$like":"x"}}}`).want(422)
	post(`{"name":"a","url":"ftp://a/","events":[]}`).refusing("url", "events")
	for _, e := range post(`{` + fine + `,"batch":{"max_events":0,"max_wait":1},"headers":{"Host":"x"},"filters":{"a":{"$x":1}},"max_retries":11,"odd.one":1}`).want(422).problem().Errors {
		want := map[string]string{"batch": "batch.max_events", "headers": "headers.Host", "filters": "filters.a.$x", "max_retries": "", "odd.one": ""}
		if path, known := want[e.Field]; !known || path != e.Path {
			t.Errorf("refused %+v", e)
		}
	}
	post(`{"name":"`+strings.Repeat("я", 201)+`","url":"http://u:p@a/","events":["patient.none"]}`).refusing("name", "url", "events[0]")
	post(`{"name":"a\u0000","description":"\u0000","url":"http://a/","events":["*"]}`).refusing("name", "description")
	if s.head() != 0 {
		t.Error("something was kept")
	}
	post(`{"name":null,"url":"http://a/","events":["*"]}`).refusing("name")
	post(`{` + fine + `,"max_retries":10,"retry_delay":86400,"timeout":300,"description":null,"filters":null,"batch":{"max_events":1000,"max_wait":300},"payload_version":"cloudevents","is_active":false}`).want(201)
}

func TestWebhookList(t *testing.T) {
	s := newService(t)
	s.register(`"description":"первый"`)
	s.register(`"is_active":false`)
	s.ask("POST", "/api/v1/webhooks", `{"name":"Visits","url":"https://visits.example/","events":["visit.*"]}`).want(201)
	s.ask("POST", "/api/v1/webhooks", `{"name":"All","url":"https://all.example/","events":["*"]}`).want(201)
	numbers := func(query string) string {
		t.Helper()
		var list struct {
			Items []struct{ Number int64 }
			Next  *string `json:"next_cursor"`
		}
		s.ask("GET", "/api/v1/webhooks"+query, "").want(200).into(&list)
		got := ""
		for _, item := range list.Items {
			got += string(rune('0' + item.Number))
		}
		if list.Next != nil {
			got += " " + *list.Next
		}
		return got
	}
	for query, want := range map[string]string{
		"": "4321", "?status=all": "4321", "?status=active": "431", "?status=inactive": "2", "?event_type=patient.created": "421",
		"?event_type=visit.created&status=active&q=": "43", "?q=VISIT": "3", "?q=%D0%9F%D0%95%D0%A0%D0%92": "1", "?limit=1000": "4321",
	} {
		if got := numbers(query); got != want {
			t.Errorf("%s: got %s, want %s", query, got, want)
		}
	}
	first, cursor, _ := strings.Cut(numbers("?limit=3"), " ")
	if rest := numbers("?limit=3&cursor=" + cursor); first != "432" || rest != "1" {
		t.Errorf("pages %q and %q", first, rest)
	}
	if all := numbers("?limit=4"); all != "4321" {
		t.Errorf("a full last page has no next: %q", all)
	}
	for query, field := range map[string]string{
		"?limit=0": "limit", "?limit=1001": "limit", "?limit=x": "limit", "?cursor=x": "cursor", "?cursor=" + cursor + "x": "cursor",
		"?status=on": "status", "?event_type=patient.none": "event_type", "?staus=active": "staus", "?status=all&status=active": "status",
	} {
		s.ask("GET", "/api/v1/webhooks"+query, "").refusing(field)
	}
}

func TestSecretRotation(t *testing.T) {
	s := newService(t)
	s.register(`"secret":"first"`)
	made := s.ask("POST", "/api/v1/webhooks/1/rotate-secret", "").want(200)
	if secret := made.text("secret"); !strings.HasPrefix(secret, "whsec_") || made.text("previous_until") == "" {
		t.Errorf("got %s", made.body)
	}
	given := s.ask("POST", "/api/v1/webhooks/1/rotate-secret/", `{"secret":"second","overlap_seconds":0}`).want(200)
	if given.text("secret") != "second" || given.get("version") != "3" {
		t.Errorf("got %s", given.body)
	}
	s.ask("POST", "/api/v1/webhooks/1/rotate-secret", `{"secret":"whsec_?","overlap_seconds":-1}`).refusing("secret", "overlap_seconds")
	s.ask("POST", "/api/v1/webhooks/1/rotate-secret", `{"overlap_seconds":18446744074}`).refusing("overlap_seconds") // so many nanoseconds are 0.3 s in 64 bits
	s.ask("POST", "/api/v1/webhooks/1/rotate-secret", `{"secret":1,"overlap":3}`).refusing("secret", "overlap")
	s.register("")
	if unsigned := s.ask("POST", "/api/v1/webhooks/2/rotate-secret", "{}").want(200); unsigned.get("previous_until") != "null" {
		t.Errorf("got %s", unsigned.body)
	}
}

func TestRacingChangesAllCount(t *testing.T) {
	s := newService(t)
	s.register("")
	var wg sync.WaitGroup
	answers := make([]answer, 8)
	for i := range answers {
		wg.Go(func() {
			answers[i] = s.ask("PUT", "/api/v1/webhooks/1", `{"description":"`+string(rune('a'+i))+`"}`)
		})
	}
	wg.Wait()
	for _, a := range answers {
		a.want(200)
	}
	if got := s.ask("GET", "/api/v1/webhooks/1", "").want(200); got.get("version") != "9" {
		t.Errorf("got %s", got.body)
	}
}

// A rotation with a key is made once for its caller, also when many ask at once, and answers
// the same each time.
func TestRotationIsMadeOnce(t *testing.T) {
	s := newService(t)
	s.register(`"secret":"first"`)
	const path = "/api/v1/webhooks/1/rotate-secret"
	answers := make(chan answer, 8)
	for range cap(answers) {
		go func() { answers <- s.ask("POST", path, "", "Idempotency-Key", "k") }()
	}
	first := (<-answers).want(200)
	for range cap(answers) - 1 {
		if got := (<-answers).want(200); string(got.body) != string(first.body) {
			t.Errorf("first %s, then %s", first.body, got.body)
		}
	}
	given := s.ask("POST", path, `{"secret":"given-1"}`, "Idempotency-Key", "g").want(200)
	if again := s.ask("POST", path, `{"secret":"given-1"}`, "Idempotency-Key", "g").want(200); string(again.body) != string(given.body) || again.get("version") != "3" {
		t.Errorf("first %s, then %s", given.body, again.body)
	}
	if again := s.ask("POST", path, "", "Idempotency-Key", "k").want(200); string(again.body) != string(first.body) || again.get("version") != "2" {
		t.Errorf("first %s, then %s", first.body, again.body)
	}
	s.ask("POST", path, `{"secret":"given-2"}`, "Idempotency-Key", "g").want(409)
	s.ask("POST", path, `{"overlap_seconds":1}`, "Idempotency-Key", "k").want(409)
	s.register("")
	s.ask("POST", "/api/v1/webhooks/2/rotate-secret", "", "Idempotency-Key", "k").want(409)
	other := s.tokenFor(domain.ScopeWebhooksWrite)
	if got := s.ask("POST", path, "", "Idempotency-Key", "k", "Authorization", "Bearer "+other).want(200); got.get("version") != "4" {
		t.Errorf("another caller's rotation: %s", got.body)
	}
	if log := s.ask("GET", "/api/v1/audit/events", "").want(200); strings.Contains(string(log.body), first.text("secret")) {
		t.Error("the log has the secret")
	}
}

// A webhook with a private key shows the public one, until it has another secret.
func TestPublicKey(t *testing.T) {
	s := newService(t)
	r := newReceiver(t, 200)
	pair := ed25519.NewKeyFromSeed([]byte(strings.Repeat("s", ed25519.SeedSize)))
	private := `"secret":"whsk_` + base64.StdEncoding.EncodeToString(pair) + `"`
	public := `"whpk_` + base64.StdEncoding.EncodeToString(pair[32:]) + `"`
	if got := s.registerAt(r.URL, ","+private); got.get("public_key") != public || got.get("has_secret") != "true" {
		t.Errorf("got %s", got.body)
	}
	s.ask("POST", "/api/v1/webhooks/1/test", `{"event_type":"patient.created"}`).want(200)
	if call := r.next(t); call.header.Get("X-Webhook-Signature") != "" || !strings.HasPrefix(call.header.Get("Webhook-Signature"), "v1a,") {
		t.Errorf("sent %v", call.header)
	}
	for _, change := range []struct{ method, path, body, want string }{
		{"PATCH", "", `{"secret":"text"}`, "null"}, {"PATCH", "", "{" + private + "}", public}, {"POST", "/rotate-secret", "", "null"},
		{"POST", "/rotate-secret", "{" + private + "}", public}, {"PATCH", "", `{"secret":null}`, "null"},
	} {
		s.ask(change.method, "/api/v1/webhooks/1"+change.path, change.body).want(200)
		if got := s.ask("GET", "/api/v1/webhooks/1", "").want(200); got.get("public_key") != change.want {
			t.Errorf("%s %.40s: %s", change.method, change.body, got.get("public_key"))
		}
	}
	s.ask("PATCH", "/api/v1/webhooks/1", `{"secret":"whsk_AAAA"}`).refusing("secret")
	s.ask("PATCH", "/api/v1/webhooks/1", `{"public_key":`+public+`}`).refusing("public_key")
}

// Changes that ask for no version are decided again until each is made, however many come
// at once, on two nodes.
func TestChangesAtOnce(t *testing.T) {
	t.Parallel()
	database := testdb.New(t)
	nodes := []*service{newServiceOn(t, database), newServiceOn(t, database)}
	nodes[0].register("")
	const changes = 240
	statuses := make(chan int, changes)
	for i := range changes {
		go func() {
			statuses <- nodes[i%2].ask("PATCH", "/api/v1/webhooks/1", `{"name":"n`+strconv.Itoa(i)+`"}`).status
		}()
	}
	for range changes {
		if got := <-statuses; got != 200 {
			t.Errorf("a change is answered %d", got)
		}
	}
	if got := nodes[0].ask("GET", "/api/v1/webhooks/1", "").want(200); got.get("version") != strconv.Itoa(changes+1) {
		t.Errorf("got %s", got.body)
	}
}
