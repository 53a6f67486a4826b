package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/medilab/webhooks/cmd/e2e/harness"
)

// A filter that could never work is refused when it is saved, wherever that is, and the
// field at fault is named.
func TestFiltersRefused(t *testing.T) {
	t.Parallel()
	in := harness.Receive(t, nil)
	p := start(t)
	p.register(in.URL, "")
	for _, c := range []struct{ filters, field, words string }{
		{`[]`, "filters", "object"},
		{`"a"`, "filters", "object"},
		{`5`, "filters", "object"},
		{`{"a":{"$gtt":1}}`, "filters.a.$gtt", "did you mean $gt"},
		{`{"a":{"$where":"x"}}`, "filters.a.$where", "not a known operator"},
		{`{"$gt":1}`, "filters.$gt", "stands inside a field"},
		{`{"$foo":1}`, "filters.$foo", "not a known operator"},
		{`{"a":{}}`, "filters.a", "empty"},
		{`{"a":{"$gt":1,"b":2}}`, "filters.a.b", "beside operators"},
		{`{"a":[]}`, "filters.a", "at least one"},
		{`{"a":{"$in":[]}}`, "filters.a.$in", "at least one"},
		{`{"a":{"$nin":"x"}}`, "filters.a.$nin", "list"},
		{`{"a":{"$gt":"1"}}`, "filters.a.$gt", "number"},
		{`{"a":{"$lte":null}}`, "filters.a.$lte", "number"},
		{`{"a":{"$exists":"yes"}}`, "filters.a.$exists", "true or false"},
		{`{"a":{"$prefix":1}}`, "filters.a.$prefix", "string"},
		{`{"a":{"$regex":1}}`, "filters.a.$regex", "string"},
		{`{"a":{"$regex":"("}}`, "filters.a.$regex", "regular expression"},
		{`{"a":{"$regex":"(?=x)"}}`, "filters.a.$regex", "regular expression"},
		{`{"amount_min":"1000"}`, "filters.amount_min", "number"},
		{`{"amount_max":null}`, "filters.amount_max", "number"},
		{`{"amount_min":[1]}`, "filters.amount_min", "number"},
		{`{"$or":{}}`, "filters.$or", "list"},
		{`{"$or":[]}`, "filters.$or", "at least one"},
		{`{"$or":[{"a":1},{"b":{"$x":1}}]}`, "filters.$or[1].b.$x", "not a known operator"},
		{`{"a":1e-9999999999999999999}`, "filters.a", "exponent"},
	} {
		p.refused(422, "POST", "/webhooks/", `{"name":"a","url":"https://a.example/","events":["*"],"filters":`+c.filters+`}`, c.field, c.words)
		p.refused(422, "PATCH", "/webhooks/1", `{"filters":`+c.filters+`}`, c.field, c.words)
		p.refused(422, "POST", "/webhooks/1/backtest", `{"filters":`+c.filters+`}`, c.field, c.words)
	}
	// What is no JSON to trust is refused before it is looked at.
	for filters, words := range map[string]string{`{"a":1,"a":2}`: "repeats a key", `{"a":1e400}`: "beyond 1e308"} {
		p.refused(400, "PATCH", "/webhooks/1", `{"filters":`+filters+`}`, "", words)
	}
	p.refused(422, "PATCH", "/webhooks/1", `{"filter":{"a":1}}`, "filter", "not a field")
	var w struct {
		Version int             `json:"version"`
		Filters json.RawMessage `json:"filters"`
	}
	if p.api(200, "GET", "/webhooks/1", "", &w); w.Version != 1 {
		t.Errorf("a refused change made version %d", w.Version)
	}
}

// One webhook whose filters change again and again: what follows a change is matched by
// it, and what cannot be evaluated never matches.
func TestFiltersDeliver(t *testing.T) {
	t.Parallel()
	cases := []struct {
		filters string
		yes, no []string
	}{
		{`null`, []string{`{}`, `{"a":1}`}, nil},
		{`{"department":"cardiology","patient_type":"new","amount_min":1000}`,
			[]string{`{"department":"cardiology","patient_type":"new","amount":1000}`},
			[]string{`{"department":"cardiology","patient_type":"new","amount":999.99}`, `{"department":"cardiology","patient_type":"new","amount":"1000"}`, `{"department":"cardiology","amount":1000}`, `{}`}},
		{`{"a":true}`, []string{`{"a":true}`}, []string{`{"a":"true"}`, `{"a":1}`, `{"a":null}`, `{}`}},
		{`{"a":1}`, []string{`{"a":1}`, `{"a":1.0}`, `{"a":10e-1}`}, []string{`{"a":"1"}`, `{"a":true}`, `{"a":1.00000000000000000000001}`}},
		{`{"a":9007199254740993}`, []string{`{"a":9007199254740993}`}, []string{`{"a":9007199254740992}`, `{"a":9007199254740994}`}},
		{`{"a":["x",2]}`, []string{`{"a":"x"}`, `{"a":2.0}`, `{"a":["y","x"]}`}, []string{`{"a":"2"}`, `{"a":[]}`, `{"a":"z"}`}},
		{`{"p.city":"Тула"}`, []string{`{"p":{"city":"Тула"}}`, `{"p":[{"city":"Орёл"},{"city":"Тула"}]}`, `{"p.city":"Тула"}`}, []string{`{"p":"Тула"}`, `{"city":"Тула"}`, `{"p":{"city":["Орёл"]}}`}},
		{`{"x_min":10,"x_max":20}`, []string{`{"x":10}`, `{"x":20.0}`, `{"x_min":10,"x_max":20}`, `{"x":[1,15]}`}, []string{`{"x":9.999}`, `{"x":20.001}`, `{"x":null}`, `{"x_min":11,"x":15}`}},
		{`{"a":{"$eq":{"b":[1]}}}`, []string{`{"a":{"b":[1.0]}}`}, []string{`{"a":{"b":[1,2]}}`, `{"a":{"b":1}}`}},
		{`{"a":{"$ne":1}}`, []string{`{"a":2}`, `{"a":"1"}`}, []string{`{"a":1.0}`, `{}`, `{"a":[1,2]}`, `{"a":1e-9999999999999999999999}`}},
		{`{"a":{"$gt":1}}`, []string{`{"a":1.0000000000000000001}`}, []string{`{"a":1}`, `{"a":"2"}`, `{"a":true}`, `{}`, `{"a":1e-9999999999999999999999}`}},
		{`{"a":{"$gte":1}}`, []string{`{"a":1}`}, []string{`{"a":0.99}`, `{"a":null}`}},
		{`{"a":{"$lt":1}}`, []string{`{"a":0.99}`, `{"a":-1e300}`}, []string{`{"a":1.0}`, `{"a":"0"}`, `{}`}},
		{`{"a":{"$lte":1}}`, []string{`{"a":1.00}`}, []string{`{"a":1.01}`, `{"a":[]}`}},
		{`{"a":{"$gt":5,"$lt":10}}`, []string{`{"a":7}`, `{"a":[1,7]}`}, []string{`{"a":[1,20]}`}},
		{`{"a":{"$in":["x",2]}}`, []string{`{"a":"x"}`, `{"a":2}`}, []string{`{"a":"y"}`, `{}`}},
		{`{"a":{"$nin":["x",2]}}`, []string{`{"a":"y"}`}, []string{`{"a":"x"}`, `{"a":2.0}`, `{}`, `{"a":1e-9999999999999999999999}`}},
		{`{"a":{"$exists":true}}`, []string{`{"a":null}`}, []string{`{"b":{"a":1}}`}},
		{`{"a":{"$exists":false}}`, []string{`{"b":1}`}, []string{`{"a":null}`}},
		{`{"a":{"$prefix":"+79"}}`, []string{`{"a":"+7900"}`, `{"a":"\u002b79"}`}, []string{`{"a":"7900"}`, `{"a":79}`}},
		{`{"a":{"$regex":"^I1[0-5]$"}}`, []string{`{"a":"I12"}`}, []string{`{"a":"I123"}`, `{"a":12}`, `{"a":"` + strings.Repeat("I", 20<<10) + `"}`}},
		{`{"z":1,"$or":[{"a":1},{"b":{"$gt":1}}]}`, []string{`{"z":1,"a":1}`, `{"z":1,"b":2}`}, []string{`{"a":1}`, `{"z":1,"b":1}`}},
		{`{"a":{"$or":[1,{"$gte":9}]}}`, []string{`{"a":1}`, `{"a":10}`}, []string{`{"a":2}`, `{}`}},
	}
	in := harness.Receive(t, nil)
	p := start(t)
	p.register(in.URL, "")
	says := map[string]string{} // by event: the filter and the data
	matches := map[string]bool{}
	expected := 0
	for _, c := range cases {
		p.api(200, "PATCH", "/webhooks/1", `{"filters":`+c.filters+`}`, nil)
		data := append(append([]string{}, c.no...), c.yes...)
		for i, id := range p.triggerAll("visit.created", data...) {
			says[id] = c.filters + " on " + data[i]
			matches[id] = i >= len(c.no)
		}
		expected += len(c.yes)
	}
	in.Await(expected)
	// Calls are logged after they are answered; whatever else was sent is there too.
	last := p.trigger(`{"event_type":"visit.created","event_data":{"a":1}}`)
	p.Until("the last event is delivered", func() bool {
		list := p.deliveries(last)
		return len(list) == 1 && list[0].State == "delivered"
	})
	arrived := map[string]bool{}
	for _, r := range in.All() {
		arrived[r.Header.Get("X-Webhook-Event-Id")] = true
	}
	for id, said := range says {
		if arrived[id] != matches[id] {
			t.Errorf("%.200s: arrived is %v", said, arrived[id])
		}
		var explained struct {
			Items []struct{ Verdict, Field, Reason string }
		}
		p.api(200, "GET", "/webhooks/events/"+id+"/explain", "", &explained)
		if len(explained.Items) != 1 {
			t.Errorf("%.200s is explained by %+v", said, explained)
			continue
		}
		v := explained.Items[0]
		if !matches[id] && (v.Verdict != "filtered" || v.Field == "" || v.Reason == "") || matches[id] && v.Verdict == "filtered" {
			t.Errorf("%.200s is explained by %+v", said, v)
		}
	}
}
