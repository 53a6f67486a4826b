package commands

import (
	"testing"

	"github.com/medilab/webhooks/domain"
)

func TestAnswersThatEchoSecrets(t *testing.T) {
	var r redactor
	r.addHeader("Authorization", `Bearer top-"secret"-token`)
	r.addHeader("X-Api-Key", "another-secret")
	r.addHeader("X-Clinic", "main")
	r.addHeader("X-Prefix", "a-long-prefix")
	r.addHeader("X-Longer", "a-long-prefix-and-what-follows")
	r.addHeader("X-Base64", `AbC/dEf+"<`)
	r.addHeader("Accept", "application/json")
	r.addHeader("Accept-Key", "hidden-in-accept")
	r.addHeader("X-Pin", "4711")
	for name, tt := range map[string]struct {
		body, want string
		cut        bool
	}{
		"nothing":           {body: "ok", want: "ok"},
		"whole":             {body: `key: another-secret!`, want: `key: ***!`},
		"twice":             {body: `another-secret another-secret`, want: `*** ***`},
		"without scheme":    {body: `got top-"secret"-token`, want: `got ***`},
		"in JSON":           {body: `{"a":"Bearer top-\"secret\"-token"}`, want: `{"a":"***"}`},
		"one in another":    {body: `a-long-prefix-and-what-follows a-long-prefix`, want: `*** ***`},
		"in JSON of Go":     {body: `{"a":"AbC/dEf+\"\u003c"}`, want: `{"a":"***"}`},
		"in JSON of PHP":    {body: `{"a":"AbC\/dEf+\"<"}`, want: `{"a":"***"}`},
		"in JSON of Python": {body: `{"a":"AbC/dEf+\"<"}`, want: `{"a":"***"}`},
		"cut off":           {body: `key: another-sec`, want: `key: ***`, cut: true},
		"whole, not cut":    {body: `key: another-sec`, want: `key: another-sec`},
		"short words":       {body: `main {"pin":4711} 4711`, want: `*** {"pin":***} ***`},
		"parts of words":    {body: `remaining 147110 mainmain`, want: `remaining 147110 mainmain`},
		"Accept-*":          {body: `hidden-in-accept`, want: `***`},
		"what is no secret": {body: `application/json`, want: `application/json`},
	} {
		if got := string(r.body([]byte(tt.body), tt.cut)); got != tt.want {
			t.Errorf("%s: got %s, want %s", name, got, tt.want)
		}
	}
	headers := r.header([]domain.HeaderField{{Name: "Location", Value: "/?k=another-secret"}, {Name: "Content-Type", Value: "application/json"}})
	if headers[0].Value != "/?k=***" || headers[1].Value != "application/json" {
		t.Errorf("got %v", headers)
	}
	named := r.header([]domain.HeaderField{{Name: "X-Another-Secret-1", Value: "1"}, {Name: "4711", Value: "1"}, {Name: "X-47110", Value: "1"}})
	if named[0].Name != "***" || named[1].Name != "***" || named[2].Name != "X-47110" {
		t.Errorf("got %v", named)
	}
	if got := new(redactor).body([]byte("a long answer"), true); string(got) != "a long answer" {
		t.Errorf("without secrets: got %s", got)
	}
}
