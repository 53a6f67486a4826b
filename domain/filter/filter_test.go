package filter

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/medilab/webhooks/domain/strictjson"
)

type fataler interface {
	Helper()
	Fatalf(string, ...any)
}

func compiled(t fataler, filter string) *Filter {
	t.Helper()
	f, problems := Compile([]byte(filter))
	if problems != nil {
		t.Fatalf("%s: %v", filter, problems)
	}
	return f
}

func TestFilterMatches(t *testing.T) {
	for _, c := range []struct {
		filter string
		yes    []string
		no     []string
	}{
		{``, []string{`{}`, `{"a":1}`}, nil},
		{`null`, []string{`{}`}, nil},
		{` { } `, []string{`{}`}, nil},

		// The guide's.
		{`{"department":"cardiology","patient_type":"new","amount_min":1000}`,
			[]string{`{"department":"cardiology","patient_type":"new","amount":1000}`, `{"amount":1000.01,"patient_type":"new","department":"cardiology","x":[]}`},
			[]string{`{}`, `{"department":"cardiology","patient_type":"new"}`, `{"department":"cardiology","patient_type":"new","amount":999.999}`,
				`{"department":"cardiology","patient_type":"old","amount":1000}`, `{"department":"Cardiology","patient_type":"new","amount":1000}`,
				`{"department":"cardiology","patient_type":"new","amount":"1000"}`, `{"department":"cardiology","patient_type":"new","amount":null}`}},
		{`{"notification_enabled":true}`, []string{`{"notification_enabled":true}`},
			[]string{`{"notification_enabled":"true"}`, `{"notification_enabled":1}`, `{"notification_enabled":false}`, `{"notification_enabled":null}`, `{}`}},

		// Equality by type.
		{`{"a":1}`, []string{`{"a":1}`, `{"a":1.0}`, `{"a":1e0}`, `{"a":10e-1}`, `{"a":0.1E1}`}, []string{`{"a":"1"}`, `{"a":true}`, `{"a":1.0000000000000000000001}`, `{"a":-1}`}},
		{`{"a":0}`, []string{`{"a":0}`, `{"a":-0}`, `{"a":0.000}`, `{"a":0e5}`}, []string{`{"a":1e-400}`, `{"a":false}`, `{"a":null}`, `{"a":""}`}},
		{`{"a":9007199254740993}`, []string{`{"a":9007199254740993}`, `{"a":9007199254740993.0}`}, []string{`{"a":9007199254740992}`}},
		{`{"a":1e308}`, []string{`{"a":1` + strings.Repeat("0", 308) + `}`}, []string{`{"a":1e307}`}},
		{`{"a":null}`, []string{`{"a":null}`}, []string{`{}`, `{"a":0}`, `{"a":"null"}`, `{"b":null}`}},
		{`{"a":""}`, []string{`{"a":""}`}, []string{`{"a":" "}`, `{}`}},
		{`{"a":"\u044f"}`, []string{`{"a":"я"}`, `{"\u0061":"\u044F"}`}, []string{`{"a":"Я"}`}},
		{`{"a":{"x":1,"y":[2]}}`, []string{`{"a":{"y":[2.0],"x":1}}`}, []string{`{"a":{"x":1}}`, `{"a":{"x":1,"y":[2],"z":0}}`, `{"a":{"x":1,"y":2}}`, `{"a":{"x":1,"y":[2,3]}}`}},
		{`{"a":{"$eq":{}}}`, []string{`{"a":{}}`, `{"a":[{}]}`}, []string{`{"a":{"b":1}}`, `{}`}},

		// A list is any of its values; the event's list is any of its elements.
		{`{"a":["x",1,null]}`, []string{`{"a":"x"}`, `{"a":1.0}`, `{"a":null}`, `{"a":["y","x"]}`}, []string{`{"a":"y"}`, `{"a":[]}`, `{}`, `{"a":["y",2]}`, `{"a":[["x"]]}`}},
		{`{"a":"x"}`, []string{`{"a":["y","x"]}`}, []string{`{"a":[]}`, `{"a":[["x"]]}`, `{"a":{"x":"x"}}`}},
		{`{"a":{"$eq":[1,2]}}`, []string{`{"a":[1,2]}`, `{"a":[[1,2]]}`}, []string{`{"a":[2,1]}`, `{"a":[1]}`, `{"a":1}`, `{"a":[1,2,3]}`}},
		{`{"a":[{"$gt":5},"none"]}`, []string{`{"a":6}`, `{"a":"none"}`}, []string{`{"a":5}`, `{}`}},

		// Paths.
		{`{"a.b":1}`, []string{`{"a":{"b":1}}`, `{"a.b":1}`, `{"a":[{"b":0},{"b":1}]}`, `{"a":{"b":[1]}}`, `{"a.b":1,"a":{"b":2}}`},
			[]string{`{"a":1}`, `{"b":1}`, `{"a":{"b":2}}`, `{"a.b":2,"a":{"b":1}}`, `{"a":[1]}`, `{"a":[[{"b":1}]]}`, `{"a":null}`, `{"a":"b"}`}},
		{`{"a.b.c":1}`, []string{`{"a":{"b.c":1}}`, `{"a":{"b":{"c":1}}}`, `{"a":[{"b":[{"c":1}]}]}`}, []string{`{"a":{"b":{}}}`}},
		{`{"a..b":1}`, []string{`{"a..b":1}`, `{"a":{"":{"b":1}}}`}, []string{`{"a":{"b":1}}`}},
		{`{"":1}`, []string{`{"":1}`}, []string{`{}`}},

		// Bounds.
		{`{"x_min":10,"x_max":20}`, []string{`{"x":10}`, `{"x":20.0}`, `{"x":15}`, `{"x":[1,15]}`}, []string{`{"x":9.99}`, `{"x":20.000000001}`, `{"x":"15"}`, `{"x":null}`, `{"x":[]}`, `{}`}},
		{`{"x_min":10}`, []string{`{"x_min":10}`, `{"x_min":10.0,"x":1}`, `{"x":1e300}`, `{"x":9999999999999999999999}`}, []string{`{"x_min":11,"x":11}`, `{"x_min":null,"x":11}`, `{"x_min":"10"}`, `{"x":-1e300}`, `{"x":9.` + strings.Repeat("9", 1000) + `}`}},
		{`{"p.x_max":-1}`, []string{`{"p":{"x":-1}}`, `{"p":{"x_max":-1}}`, `{"p.x":-2}`}, []string{`{"p":{"x":0}}`, `{"p":{"x_max":-2,"x":-2}}`}},
		{`{"_min":1}`, []string{`{"_min":1}`}, []string{`{"":2}`}},
		{`{"x_min":{"$eq":"low"}}`, []string{`{"x_min":"low"}`}, []string{`{"x":"low"}`, `{}`}},

		// Operators.
		{`{"a":{"$eq":1}}`, []string{`{"a":1.0}`, `{"a":[1]}`}, []string{`{"a":2}`, `{}`}},
		{`{"a":{"$ne":1}}`, []string{`{"a":2}`, `{"a":"1"}`, `{"a":null}`, `{"a":[]}`, `{"a":[2,3]}`}, []string{`{"a":1}`, `{"a":1.0}`, `{}`, `{"a":[1,2]}`, `{"b":2}`}},
		{`{"a":{"$ne":5}}`, []string{`{"a":1e-400}`, `{"a":{"b":1}}`}, []string{`{"a":1e-9999999999999999999}`, `{"a":[1,1e-9999999999999999999]}`, `{"a":{"b":[1e-9999999999999999999]}}`}},
		{`{"a":{"$nin":[5,"x"]}}`, []string{`{"a":6}`}, []string{`{"a":1e-9999999999999999999}`}},
		{`{"a":{"$ne":"x"}}`, []string{`{"a":[["x"]]}`, `{"a":["y",["x"]]}`}, []string{`{"a":[["x"],"x"]}`}},
		{`{"a":{"$nin":["x",["y"]]}}`, []string{`{"a":[["x"]]}`}, []string{`{"a":[["y"],1]}`, `{"a":["y"]}`, `{"a":["z","x"]}`}},
		{`{"a":{"$ne":null}}`, []string{`{"a":1}`}, []string{`{"a":null}`, `{}`}},
		{`{"a.b.c":1}`, []string{`{"a":[{"b":[{"c":2},{"c":1}]}]}`}, []string{`{"a":[[{"b":{"c":1}}]]}`}},
		{`{"a.b":{"$ne":1}}`, []string{`{"a":{"b":2}}`, `{"a":[{"b":2},{}]}`}, []string{`{"a":[[{"b":2}]]}`, `{"a":{}}`, `{"a":2}`, `{"a":[{"b":2},{"b":1}]}`, `{"a":[]}`}},
		{`{"a":{"$gt":1}}`, []string{`{"a":1.0000000000000000000000001}`, `{"a":[0,2]}`}, []string{`{"a":1}`, `{"a":"2"}`, `{"a":true}`, `{"a":null}`, `{}`, `{"a":{"b":2}}`}},
		{`{"a":{"$gte":1}}`, []string{`{"a":1}`, `{"a":1e300}`}, []string{`{"a":0.99}`}},
		{`{"a":{"$lt":1}}`, []string{`{"a":0}`, `{"a":-1e300}`}, []string{`{"a":1}`, `{"a":1.0}`}},
		{`{"a":{"$lte":1}}`, []string{`{"a":1.00}`, `{"a":1e-400}`}, []string{`{"a":1.01}`}},
		{`{"a":{"$gt":5,"$lt":10}}`, []string{`{"a":7}`, `{"a":[1,7]}`}, []string{`{"a":[1,20]}`, `{"a":5}`}},
		{`{"a":{"$in":["x",2]}}`, []string{`{"a":"x"}`, `{"a":2.0}`, `{"a":[0,2]}`}, []string{`{"a":"2"}`, `{}`}},
		{`{"a":{"$nin":["x",2]}}`, []string{`{"a":"y"}`, `{"a":null}`, `{"a":[]}`}, []string{`{"a":"x"}`, `{"a":2}`, `{}`, `{"a":["y","x"]}`}},
		{`{"a":{"$exists":true}}`, []string{`{"a":null}`, `{"a":[]}`, `{"a":0}`}, []string{`{}`, `{"b":{"a":1}}`}},
		{`{"a":{"$exists":false}}`, []string{`{}`, `{"b":1}`}, []string{`{"a":null}`, `{"a":1}`, `[]`, `{`, `x`, ``}},
		{`{"a":{"$exists":false,"$ne":1}}`, nil, []string{`{}`, `{"a":2}`}},
		{`{"a.b":{"$exists":false}}`, []string{`{}`, `{"a":1}`, `{"a":[{}]}`}, []string{`{"a":{"b":null}}`, `{"a":[{},{"b":1}]}`}},
		{`{"a":{"$prefix":"+79"}}`, []string{`{"a":"+7900"}`, `{"a":["x","+79"]}`, `{"a":"\u002b79"}`}, []string{`{"a":"7900"}`, `{"a":79}`, `{}`, `{"a":"+7"}`}},
		{`{"a":{"$regex":"^I1[0-5]$"}}`, []string{`{"a":"I12"}`, `{"a":["X","I10"]}`}, []string{`{"a":"I123"}`, `{"a":"i12"}`, `{"a":12}`, `{}`}},
		{`{"a":{"$regex":"б"}}`, []string{`{"a":"абв"}`}, []string{`{"a":"АБВ"}`, `{"a":"` + strings.Repeat("б", maxPatternText) + `"}`}},
		{`{"a":{"$or":[1,{"$gte":9},{"$exists":false}]}}`, []string{`{"a":1}`, `{"a":10}`, `{}`}, []string{`{"a":2}`, `{"a":null}`}},
		{`{"a":{"$or":[1,2],"$ne":2}}`, []string{`{"a":1}`}, []string{`{"a":2}`, `{}`}},
		{`{"$or":[{"a":1},{"b":{"$gt":1}},{"$or":[{"c":1}]}]}`, []string{`{"a":1}`, `{"b":2}`, `{"c":1}`}, []string{`{}`, `{"a":2,"b":1}`}},
		{`{"z":1,"$or":[{"a":1},{"b":1}]}`, []string{`{"z":1,"b":1}`}, []string{`{"b":1}`, `{"z":1}`}},
	} {
		f := compiled(t, c.filter)
		for _, event := range c.yes {
			if v := f.Explain(Parse([]byte(event))); !f.Match(Parse([]byte(event))) || !v.Matched {
				t.Errorf("%s should match %.80s: %+v", c.filter, event, v)
			}
		}
		for _, event := range c.no {
			if v := f.Explain(Parse([]byte(event))); f.Match(Parse([]byte(event))) || v.Matched || v.Reason == "" {
				t.Errorf("%s should not match %.80s: %+v", c.filter, event, v)
			}
		}
	}
	if !(*Filter)(nil).Match(Parse([]byte(`{}`))) || !(*Filter)(nil).Explain(Parse(nil)).Matched {
		t.Error("no filter matches everything")
	}
}

func TestFilterNeverMatchesDataItCannotRead(t *testing.T) {
	f := compiled(t, `{"$or":[{"a":{"$exists":false}},{"a":1},{"a":{"$ne":5}}]}`)
	for _, data := range []string{``, ` `, `null`, `[]`, `[{"a":1}]`, `"a"`, `{"a":1`, `{"a":1}}`, `{"a":1,"a":1}`, `{"a":1e999}`, "{\"a\":\"\xff\"}", `{"b":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + `}`} {
		if f.Match(Parse([]byte(data))) || f.Explain(Parse([]byte(data))).Reason == "" {
			t.Errorf("%.40q matched", data)
		}
	}
}

func TestFilterRefused(t *testing.T) {
	for _, c := range []struct{ filter, field, message string }{
		{`[]`, "filters", "must be an object"},
		{`"a"`, "filters", "must be an object"},
		{`{`, "filters", "cannot be read"},
		{`{"a":1,"a":2}`, "filters", "repeats a key"},
		{`{"a":1e400}`, "filters", "beyond 1e308"},
		{`{"a":"` + strings.Repeat("x", maxFilterBytes) + `"}`, "filters", "at most"},
		{`{"$foo":1}`, "filters.$foo", "not a known operator"},
		{`{"$gt":1}`, "filters.$gt", "stands inside a field"},
		{`{"a":{"$gtt":1}}`, "filters.a.$gtt", "did you mean $gt"},
		{`{"a":{"$where":"x"}}`, "filters.a.$where", "not a known operator"},
		{`{"a":{"$EQ":1}}`, "filters.a.$EQ", "not a known operator"},
		{`{"a":{}}`, "filters.a", "is empty"},
		{`{"a":{"$gt":1,"b":2}}`, "filters.a.b", "stands beside operators"},
		{`{"a":[]}`, "filters.a", "at least one"},
		{`{"a":[{"$foo":1}]}`, "filters.a[0].$foo", "not a known operator"},
		{`{"a":{"$in":[]}}`, "filters.a.$in", "at least one"},
		{`{"a":{"$nin":"x"}}`, "filters.a.$nin", "must be a list"},
		{`{"a":{"$gt":"1"}}`, "filters.a.$gt", "must be a number"},
		{`{"a":{"$lte":null}}`, "filters.a.$lte", "must be a number"},
		{`{"a":{"$gte":[1]}}`, "filters.a.$gte", "must be a number"},
		{`{"a":{"$exists":1}}`, "filters.a.$exists", "true or false"},
		{`{"a":{"$exists":"yes"}}`, "filters.a.$exists", "true or false"},
		{`{"a":{"$prefix":1}}`, "filters.a.$prefix", "must be a string"},
		{`{"a":{"$regex":1}}`, "filters.a.$regex", "must be a string"},
		{`{"a":{"$regex":"("}}`, "filters.a.$regex", "not a regular expression"},
		{`{"a":{"$regex":"(?=x)"}}`, "filters.a.$regex", "not a regular expression"},
		{`{"a":{"$regex":"\\1"}}`, "filters.a.$regex", "not a regular expression"},
		{`{"a":{"$regex":"` + strings.Repeat("x", maxPatternBytes+1) + `"}}`, "filters.a.$regex", "at most"},
		{`{"a":{"$regex":"(\\pL{500}){2}"}}`, "filters.a.$regex", "too large"},
		{`{"amount_min":"1000"}`, "filters.amount_min", "must be a number"},
		{`{"amount_max":null}`, "filters.amount_max", "must be a number"},
		{`{"amount_max":[1]}`, "filters.amount_max", "must be a number"},
		{`{"amount_max":{}}`, "filters.amount_max", "must be a number"},
		{`{"amount_max":{"$foo":1}}`, "filters.amount_max.$foo", "not a known operator"},
		{`{"$or":{}}`, "filters.$or", "must be a list"},
		{`{"$or":[]}`, "filters.$or", "at least one"},
		{`{"$or":[{"a":1},{}]}`, "filters.$or[1]", "object of conditions"},
		{`{"$or":["a"]}`, "filters.$or[0]", "object of conditions"},
		{`{"$or":[{"a":1},{"b":{"$x":1}}]}`, "filters.$or[1].b.$x", "not a known operator"},
		{`{"a":{"$or":[]}}`, "filters.a.$or", "at least one"},
		{`{"a":{"$or":[1,{"$x":1}]}}`, "filters.a.$or[1].$x", "not a known operator"},
		{strings.Repeat(`{"$or":[`, 9) + `{"a":1}` + strings.Repeat(`]}`, 9), "filters" + strings.Repeat(".$or[0]", 8) + ".$or", "nests deeper"},
		{`{"a":` + strings.Repeat(`{"$or":[`, 9) + `1` + strings.Repeat(`]}`, 9) + `}`, "filters.a" + strings.Repeat(".$or[0]", 8) + ".$or", "nests deeper"},
		{`{"` + strings.Repeat("a.", maxPathParts) + `b":1}`, "filters." + strings.Repeat("a.", maxPathParts) + "b", "must be a path"},
		{`{"a":1e-9999999999999999999}`, "filters.a", "exponent too long"},
	} {
		f, fields := Compile([]byte(c.filter))
		if f != nil || len(fields) != 1 || fields[0].Field != c.field || !strings.Contains(fields[0].Message, c.message) {
			t.Errorf("%.80s: got %+v, want %s: %s", c.filter, fields, c.field, c.message)
		}
	}
}

func TestFilterTellsAllThatIsWrongAndBoundsIt(t *testing.T) {
	_, problems := Compile([]byte(`{"a":{"$gt":"x"},"b_min":true,"c":[]}`))
	if got := problems; len(got) != 3 {
		t.Fatalf("got %v", got)
	}
	var many strings.Builder
	for i := range maxConditions + 1 {
		fmt.Fprintf(&many, `,"a%d":1`, i)
	}
	_, problems = Compile([]byte("{" + many.String()[1:] + "}"))
	if got := problems; len(got) != 1 || !strings.Contains(got[0].Message, "too many") {
		t.Fatalf("got %v", got)
	}
	_, problems = Compile([]byte("{" + strings.ReplaceAll(many.String()[1:], "1,", "{},") + "}"))
	if got := problems; len(got) != maxFilterErrors {
		t.Fatalf("got %d errors", len(got))
	}
}

func TestFilterDoesNotKeepItsSource(t *testing.T) {
	raw := []byte(`{"a":"x","b":{"$prefix":"y"},"c":12}`)
	f, problems := Compile(raw)
	if problems != nil {
		t.Fatal(problems)
	}
	for i := range raw {
		raw[i] = '!'
	}
	if !f.Match(Parse([]byte(`{"a":"x","b":"yes","c":12}`))) {
		t.Fatal("the filter changed with its source")
	}
}

func TestExplain(t *testing.T) {
	long := strings.Repeat("я", 500)
	for _, c := range []struct {
		filter, event string
		want          Verdict
	}{
		{`{"a":1}`, `{"a":1}`, Verdict{Matched: true}},
		{`{"department":"cardiology"}`, `{"department":"eyes"}`, Verdict{Field: "department", Want: `"cardiology"`, Got: `"eyes"`, Reason: "department is not what the filter asks for"}},
		{`{"b":1,"department":"cardiology"}`, `{"b":1}`, Verdict{Field: "department", Want: `"cardiology"`, Reason: "the event has no department"}},
		{`{"amount_min":1000}`, `{"amount":500.50}`, Verdict{Field: "amount_min", Want: `1000`, Got: `500.50`, Reason: "amount is not what the filter asks for"}},
		{`{"amount_min":1000}`, `{"amount":"5000"}`, Verdict{Field: "amount_min", Want: `1000`, Got: `"5000"`, Reason: "amount is no number"}},
		{`{"amount_min":1000}`, `{}`, Verdict{Field: "amount_min", Want: `1000`, Reason: "the event has no amount"}},
		{`{"amount_min":1000}`, `{"amount_min":1,"amount":2000}`, Verdict{Field: "amount_min", Want: `1000`, Got: `1`, Reason: "the event has a field amount_min itself, which is not equal"}},
		{`{"a":{"$regex": "x"}}`, `{"a":[1,2]}`, Verdict{Field: "a", Want: `{"$regex": "x"}`, Got: `[1,2]`, Reason: "a is no string"}},
		{`{"a.b":1}`, `{"a":[{"b":2},{"b":3}]}`, Verdict{Field: "a.b", Want: `1`, Got: `[2,3]`, Reason: "a.b is not what the filter asks for"}},
		{`{"a":1}`, `{"a":"` + long + `"}`, Verdict{Field: "a", Want: `1`, Got: `"` + strings.Repeat("я", 99) + "…", Reason: "a is not what the filter asks for"}},
		{`{"$or":[{"a":1},{"b":2}]}`, `{"b":1}`, Verdict{Field: "$or", Want: `[{"a":1},{"b":2}]`, Reason: "none of the 2 alternatives matches; the first: the event has no a"}},
		{`{"$or":[{"a":1}]}`, `{"b":1}`, Verdict{Field: "$or", Want: `[{"a":1}]`, Reason: "the event has no a"}},
		{`{"a":1}`, `[]`, Verdict{Reason: "event_data is not a JSON object that can be read"}},
	} {
		if got := compiled(t, c.filter).Explain(Parse([]byte(c.event))); got != c.want {
			t.Errorf("%s on %.60s:\ngot  %+v\nwant %+v", c.filter, c.event, got, c.want)
		}
	}
}

func TestFilterOnLargeData(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"items":[`)
	for i := range maxPathValues + 1 {
		fmt.Fprintf(&b, `{"n":%d},`, i)
	}
	b.WriteString(`{}],"plain":[` + strings.Repeat("1,", 100_000) + `2],"big":{"k":{"z":1},` + strings.Repeat(" ", 5000) + `"last":7}}`)
	doc := Parse([]byte(b.String()))
	for filter, want := range map[string]bool{
		`{"items.n":5}`:                false, // too many to compare
		`{"items.n":{"$ne":-1}}`:       false,
		`{"items.n":{"$exists":true}}`: false,
		`{"plain":2}`:                  true,
		`{"big.last":7,"big.k.z":1,"big.last.x":{"$exists":false}}`: true,
	} {
		f := compiled(t, filter)
		if f.Match(doc) != want || f.Explain(doc).Matched != want {
			t.Errorf("%s: got %+v", filter, f.Explain(doc))
		}
	}
}

// What one filter can cost one event is bounded, whoever wrote either of them. What is
// beyond the bounds does not match, says why, and does so whatever else was asked of
// the event before.
func TestFilterWorkIsBounded(t *testing.T) {
	list := func(element string, count int) string {
		return strings.TrimSuffix(strings.Repeat(element+",", count), ",")
	}
	either := func(condition string, count int) string { return `{"$or":[` + list(condition, count) + `]}` }
	array := func(element string, bytes int) string {
		return `{"a":[` + list(element, bytes/(len(element)+1)) + `,7,"x!",{"b":7}]}`
	}
	slow := `[^x]*(.?.?.?.?){70}!`
	hundred := either(`{"a":7}`, 100)
	tests := []struct{ name, filter, event, reason string }{
		{"an expression and many texts", `{"a":{"$regex":"` + slow + `"}}`, array(`"`+strings.Repeat("y", 200)+`"`, 20_000), "bytes of text"},
		{"an expression and a long text", `{"a":{"$regex":"` + slow + `"}}`, `{"a":"` + strings.Repeat("y", 1000) + `!"}`, "bytes of text"},
		{"a small expression and a very long text", `{"a":{"$regex":"!"}}`, `{"a":"` + strings.Repeat("y", maxPatternText) + `!"}`, "bytes of text"},
		{"an expression on a short text", `{"a":{"$regex":"` + slow + `"}}`, `{"a":["` + strings.Repeat("y", 100) + `!",7]}`, ""},
		{"a small expression and a long text", `{"a":{"$regex":"!"}}`, `{"a":"` + strings.Repeat("y", maxPatternText-1) + `!"}`, ""},
		{"one condition and a large array", `{"a":7}`, array("0", 1<<20), ""},
		{"one condition and too large an array", `{"a":7}`, array("0", 3<<20), "to look through"},
		{"on the way through too large an array", `{"a.b":7}`, array("{}", 3<<20), "to look through"},
		{"many conditions and a large array", hundred, array("0", 100_000), "to look through"},
		{"many conditions on the way through a large array", either(`{"a.b":7}`, 100), array("{}", 100_000), "to look through"},
		{"many conditions and an array", hundred, array("0", 10_000), ""},
		{"many conditions and large texts", hundred, `{"a":7,"b":["` + strings.Repeat("y", 3<<20) + `"]}`, ""},
		{"many values and a large array", `{"a":{"$in":[` + list("[]", 10_000) + `,7]}}`, array("{}", 1000), "to look through"},
		{"many alternatives and a large array", `{"a":{"$or":[` + list("1", 10_000) + `,7]}}`, array("0", 1000), "to look through"},
		{"many numbers and a large array", `{"a":{"$in":[` + list("1", 20_000) + `,7]}}`, array("0", 1<<19), ""},
		{"many conditions and a long number", hundred, `{"a":7.` + strings.Repeat("0", 100_000) + `}`, "to look through"},
		{"a long number", `{"a":7}`, `{"a":7.` + strings.Repeat("0", 100_000) + `}`, ""},
		{"a large object", `{"a":{"b":7}}`, `{"a":{"b":7` + strings.Repeat(" ", 3<<20) + `}}`, "to look through"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := compiled(t, tt.filter)
			fresh, shared := Parse([]byte(tt.event)), Parse([]byte(tt.event))
			for _, others := range []string{`{"a":1}`, hundred, `{"a.b":1}`} { // leave what they found in the document
				compiled(t, others).Match(shared)
			}
			for name, doc := range map[string]*Doc{"alone": fresh, "after others": shared} {
				got := f.Explain(doc)
				if f.Match(doc) != got.Matched || got.Matched != (tt.reason == "") || !strings.Contains(got.Reason, tt.reason) {
					t.Errorf("%s: %+v, want the reason %q", name, got, tt.reason)
				}
			}
		})
	}
}

func TestNumbersOfALongList(t *testing.T) {
	f := compiled(t, `{"a":{"$in":[0,-1,1.50,2e3,1e-400,3,4,5,6,7,8,"9",null]}}`)
	for value, want := range map[string]bool{
		"0": true, "-0.0": true, "0e5": true, "-1.0": true, "1": false, "1.5": true, "15e-1": true, "2000": true, "200": false, "1e-400": true, "1e-401": false,
		"8.0000000000000000000000000000000": true, "8.0000000000000000000000000000001": false, "9": false, `"9"`: true, `"8"`: false, "null": true, "false": false,
		"1e-9999999999999999999999": false, "[false,[8]]": false, "[false,8]": true,
	} {
		if got := f.Match(Parse([]byte(`{"a":` + value + `}`))); got != want {
			t.Errorf("%s: %t", value, got)
		}
	}
}

func TestDecimalComparesExactly(t *testing.T) {
	ordered := []string{"-1e308", "-9007199254740993", "-9007199254740992", "-10", "-9.99", "-1e-400", "0", "1e-400", "0.1", "0.100000000000000000001",
		"1", "1.0000000000000000000000000000001", "9.99", "10", "11", "9007199254740992", "9007199254740993", "1e22", "1e308"}
	parse := func(s string) decimal {
		d, ok := parseDecimal([]byte(s))
		if !ok {
			t.Fatalf("%s cannot be compared", s)
		}
		return d
	}
	for i, a := range ordered {
		for j, b := range ordered {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if got := parse(a).compare(parse(b)); got != want {
				t.Errorf("%s to %s: got %d", a, b, got)
			}
		}
	}
	if _, ok := parseDecimal([]byte("1e-9999999999999999999999")); ok {
		t.Error("an exponent that does not fit must not compare")
	}
}

func TestDecimalAgreesWithRationals(t *testing.T) {
	number := rapid.StringMatching(`-?(0|[1-9][0-9]{0,6})(\.[0-9]{1,8})?([eE][+-]?[0-9]{1,2})?`)
	rapid.Check(t, func(t *rapid.T) {
		a, b := number.Draw(t, "a"), number.Draw(t, "b")
		x, _ := new(big.Rat).SetString(a)
		y, _ := new(big.Rat).SetString(b)
		d, _ := parseDecimal([]byte(a))
		e, _ := parseDecimal([]byte(b))
		if d.compare(e) != x.Cmp(y) || e.compare(d) != y.Cmp(x) {
			t.Fatalf("%s to %s: got %d, want %d", a, b, d.compare(e), x.Cmp(y))
		}
	})
}

// anyJSON draws JSON values with few keys and texts, so that filters meet them.
func anyJSON(depth int) *rapid.Generator[any] {
	scalars := rapid.SampledFrom([]any{nil, true, false, 0, 1, json.Number("1.0"), json.Number("-1e-400"), json.Number("9007199254740993"), 5, 10, "", "a", "x", "1", "яя", "a.b"})
	if depth == 0 {
		return scalars
	}
	key := rapid.SampledFrom([]string{"a", "b", "c", "a.b", "a_min", "b_max", ""})
	inner := rapid.Deferred(func() *rapid.Generator[any] { return anyJSON(depth - 1) })
	return rapid.OneOf(scalars,
		rapid.Map(rapid.SliceOfN(inner, 0, 3), func(v []any) any { return v }),
		rapid.Map(rapid.MapOfN(key, inner, 0, 4), func(v map[string]any) any { return v }))
}

func anyObject(depth int) *rapid.Generator[map[string]any] {
	return rapid.MapOfN(rapid.SampledFrom([]string{"a", "b", "c", "a.b", "a_min", "b_max", "b.c", "a.b.c"}), anyJSON(depth), 0, 4)
}

// anyFilter draws filters, most of which compile.
func anyFilter() *rapid.Generator[map[string]any] {
	operator := rapid.SampledFrom([]string{"$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists", "$prefix", "$regex", "$or"})
	return rapid.Custom(func(t *rapid.T) map[string]any {
		filter := anyObject(1).Draw(t, "plain")
		for range rapid.IntRange(0, 2).Draw(t, "operators") {
			op := operator.Draw(t, "operator")
			value := anyJSON(1).Draw(t, "operand")
			switch op {
			case "$in", "$nin", "$or":
				value = rapid.SliceOfN(anyJSON(1), 1, 3).Draw(t, "list")
			case "$exists":
				value = rapid.Bool().Draw(t, "exists")
			case "$gt", "$gte", "$lt", "$lte":
				value = rapid.IntRange(-2, 12).Draw(t, "limit")
			case "$prefix", "$regex":
				value = rapid.SampledFrom([]string{"", "a", "^x", "я+"}).Draw(t, "text")
			}
			filter[rapid.SampledFrom([]string{"a", "b", "a.b"}).Draw(t, "field")] = map[string]any{op: value}
		}
		if rapid.Bool().Draw(t, "or") {
			filter["$or"] = []any{map[string]any{"a": anyJSON(1).Draw(t, "one")}, map[string]any{"b_min": 3}}
		}
		return filter
	})
}

func encoded(t *rapid.T, v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Any filter on any event decides without panic, the same each time and in every way of
// asking; with nothing to evaluate only an explicit absence holds.
func TestFilterProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		raw, event := encoded(t, anyFilter().Draw(t, "filter")), encoded(t, anyObject(3).Draw(t, "event"))
		f, problems := Compile(raw)
		if f == nil {
			if len(problems) == 0 {
				t.Fatalf("%s: %v", raw, problems)
			}
			return
		}
		doc := Parse(event)
		matched := f.Match(doc)
		if f.Match(doc) != matched || f.Match(Parse(event)) != matched {
			t.Fatalf("%s on %s: undecided", raw, event)
		}
		if v := f.Explain(Parse(event)); v.Matched != matched || (v.Reason == "") != matched {
			t.Fatalf("%s on %s: %v explained as %+v", raw, event, matched, v)
		}
		var spaced bytes.Buffer
		if err := json.Indent(&spaced, event, " ", "\t"); err != nil {
			t.Fatal(err)
		}
		if f.Match(Parse(spaced.Bytes())) != matched {
			t.Fatalf("%s on %s: white space changes the decision", raw, event)
		}
		if !f.MatchesAll() && (f.Match(Parse(event[:len(event)-1])) || f.Match(Parse(append([]byte("["), append(event, ']')...)))) {
			t.Fatalf("%s matched what cannot be read", raw)
		}
		if !f.MatchesAll() && f.Match(Parse([]byte("{}"))) && !bytes.Contains(raw, []byte(`"$exists":false`)) {
			t.Fatalf("%s matched nothing at all", raw)
		}
	})
}

// Equality is JSON's own: a value equals itself however it is written, and $ne is the
// opposite of $eq wherever there is something to compare.
func TestFilterEqualityProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := encoded(t, anyJSON(3).Draw(t, "a")), encoded(t, anyJSON(3).Draw(t, "b"))
		equal := compiled(t, `{"v":{"$eq":`+string(a)+`}}`)
		differs := compiled(t, `{"v":{"$ne":`+string(a)+`}}`)
		if !equal.Match(Parse([]byte(`{"v":` + string(a) + `}`))) {
			t.Fatalf("%s is not itself", a)
		}
		event := []byte(`{"v":` + string(b) + `}`)
		if equal.Match(Parse(event)) == differs.Match(Parse(event)) {
			t.Fatalf("%s and %s both equal and differ", a, b)
		}
		if got, want := equal.Match(Parse(event)), equalOrHas(t, a, b); got != want {
			t.Fatalf("%s to %s: got %v, want %v", a, b, got, want)
		}
	})
}

// equalOrHas is the reference: decoded and with numbers as rationals.
func equalOrHas(t *rapid.T, want, got []byte) bool {
	x, y := decoded(t, want), decoded(t, got)
	if canonical(x) == canonical(y) {
		return true
	}
	list, _ := y.([]any)
	for _, element := range list {
		if canonical(x) == canonical(element) {
			return true
		}
	}
	return false
}

func decoded(t *rapid.T, data []byte) any {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func canonical(v any) string {
	switch v := v.(type) {
	case json.Number:
		r, _ := new(big.Rat).SetString(v.String())
		return r.String()
	case string:
		return strconv.Quote(v)
	case []any:
		parts := make([]string, len(v))
		for i := range v {
			parts[i] = canonical(v[i])
		}
		return "[" + strings.Join(parts, ",") + "]"
	case map[string]any:
		parts := make(map[string]string, len(v))
		for key := range v {
			parts[key] = canonical(v[key])
		}
		return fmt.Sprintf("%q", parts) // fmt prints maps in the order of keys
	}
	return fmt.Sprint(v)
}

func FuzzFilter(f *testing.F) {
	for _, seed := range [][2]string{
		{`{"department":"cardiology","amount_min":1000}`, `{"department":"cardiology","amount":1e3}`},
		{`{"a.b":{"$in":[1,"x"],"$ne":2},"$or":[{"c":{"$regex":"^x"}},{"d":{"$exists":false}}]}`, `{"a":[{"b":1}],"c":"xyz"}`},
		{`{"a":[{"$gt":1},null,{"k":[1]}]}`, `{"a":{"k":[1.0]}}`},
		{`{"a":{"$or":[{"$prefix":"\u044f"},1e-9]}}`, `{"a":"я"}`},
	} {
		f.Add([]byte(seed[0]), []byte(seed[1]))
	}
	f.Fuzz(func(t *testing.T, raw, event []byte) {
		filter, problems := Compile(raw)
		if filter == nil {
			if len(problems) == 0 {
				t.Fatalf("%q: %v", raw, problems)
			}
			return
		}
		matched, verdict := filter.Match(Parse(event)), filter.Explain(Parse(event))
		if matched != verdict.Matched || (verdict.Reason == "") != matched {
			t.Fatalf("%q on %q: %v explained as %+v", raw, event, matched, verdict)
		}
		if matched && !filter.MatchesAll() && (strictjson.Check(event) != nil || event[strictjson.SkipSpace(event, 0)] != '{') {
			t.Fatalf("%q matched %q, which is no event", raw, event)
		}
	})
}

func BenchmarkFilter(b *testing.B) {
	event := []byte(`{"patient_id":123456,"name":"Иванов Иван Иванович","phone":"+7900123456",` +
		`"email":"ivan@example.com","created_at":"2024-01-15T10:30:00Z","department":"cardiology","patient_type":"new","amount":15250.75,` +
		`"insurance":{"company":"АО Страхование","number":"7700 123456 7890","valid":true},"tags":["vip","repeat"],"notification_enabled":true,` +
		`"comment":"Позвонить после обеда"}`)
	b.Run("one webhook", func(b *testing.B) {
		f := compiled(b, `{"department":"cardiology","patient_type":"new","amount_min":1000}`)
		b.ReportAllocs()
		for b.Loop() {
			if !f.Match(Parse(event)) {
				b.Fatal("no match")
			}
		}
	})
	b.Run("each of 10000 webhooks", func(b *testing.B) {
		filters := make([]*Filter, 10_000)
		for i := range filters {
			filters[i] = compiled(b, fmt.Sprintf(`{"department":"cardiology","insurance.company":{"$ne":"x%d"},"amount_min":%d}`, i, i%1000))
		}
		b.ReportAllocs()
		for b.Loop() {
			doc := Parse(event)
			for _, f := range filters {
				if !f.Match(doc) {
					b.Fatal("no match")
				}
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(filters)), "ns/decision")
	})
}
