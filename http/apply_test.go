package http_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/medilab/webhooks/migrations/testdb"
)

const apply = "/api/v1/webhooks/apply"

// A list is applied by one append, whatever of it differs, and refused whole.
func TestApply(t *testing.T) {
	s := newService(t)
	s.register(`"timeout":7,"secret":"s","headers":{"X-A":"1","X-B":"2"},"filters":{"a":"\u0041"}`)
	name := s.ask("GET", "/api/v1/webhooks/1", "").text("name")
	s.ask("POST", "/api/v1/webhooks/1/deactivate", "").want(200)
	head := s.head()
	list := func(first string) string {
		return fmt.Sprintf(`{"webhooks":[{"name":%q,"url":"http://a.test/","events":["*"],%s},{"name":"new","url":"http://b.test/","events":["visit.*"]}]`, name, first)
	}
	s.ask("POST", apply, list(`"timeout":7,"secret":"s","headers":{"X-A":"***"},"filters":{"a":"A"},"retry_delay":0`)+`}`).refusing("webhooks[0].retry_delay")
	s.ask("POST", apply, list(`"headers":{"X-C":"***"}`)+`}`).refusing("webhooks[0].headers.X-C")
	s.ask("POST", apply, list(`"batch":7,"secert":"s"`)+`,"prun":true}`).refusing("webhooks[0].batch", "webhooks[0].secert", "prun")
	s.ask("POST", apply, `{}`).refusing("webhooks")
	s.ask("POST", apply, `{"webhooks":7}`).refusing("webhooks")
	whole := list(`"timeout":7,"secret":"s","headers":{"X-A":"***","X-B":"2"},"filters":{"a":"A"}`)
	planned := s.ask("POST", apply, whole+`,"dry_run":true,"prune":true}`).want(200)
	if planned.get("changed", 0, "action") != `"change"` || planned.get("changed", 1, "number") != "null" || s.head() != head {
		t.Errorf("planned %s", planned.body)
	}
	s.ask("POST", apply, whole+"}").want(200)
	if got := s.ask("GET", "/api/v1/webhooks/1", "").want(200); got.get("is_active") != "false" || got.get("has_secret") != "true" || got.get("headers") != `{"X-A":"***","X-B":"***"}` {
		t.Errorf("what is left out or masked changed: %s", got.body)
	}
	if n := s.head() - head; n != 2 {
		t.Errorf("%d entries for a change and a new webhook", n)
	}
	same := s.ask("POST", apply, whole+`}`).want(200)
	if same.get("changed") != "[]" || same.get("unchanged") != "2" || s.head()-head != 2 {
		t.Errorf("again: %s", same.body)
	}
	s.ask("POST", apply, `{"webhooks":[{"name":"new","url":"http://b.test/","events":["*"]}],"prune":true}`).want(200)
	s.ask("GET", "/api/v1/webhooks/1", "").want(404)
	if got := s.ask("GET", "/api/v1/webhooks/2", "").want(200); got.get("timeout") != "30" || got.get("events") != `["*"]` {
		t.Errorf("got %s", got.body)
	}
}

// Names stay unique, and every list is applied, however many are at once on two nodes.
func TestAppliedAtOnce(t *testing.T) {
	database := testdb.New(t)
	nodes := []*service{newServiceOn(t, database), newServiceOn(t, database)}
	const callers, names = 24, 5
	answers := make(chan answer, callers)
	for i := range callers {
		var list []string
		for n := range names {
			list = append(list, fmt.Sprintf(`{"name":"w%d","url":"http://a.test/","events":["*"],"description":"by %d"}`, n, i))
		}
		go func() {
			answers <- nodes[i%2].ask("POST", apply, `{"webhooks":[`+strings.Join(list, ",")+`]}`)
		}()
	}
	for range callers {
		(<-answers).want(200)
	}
	found := nodes[0].ask("GET", "/api/v1/webhooks", "").want(200)
	if n := strings.Count(string(found.body), `"name":`); n != names {
		t.Errorf("there are %d webhooks: %s", n, found.body)
	}
	by := found.text("items", 0, "description")
	if n := strings.Count(string(found.body), by); n != names {
		t.Errorf("lists are mixed: %s", found.body)
	}
}
