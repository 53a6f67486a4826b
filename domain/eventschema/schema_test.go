package eventschema

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func check(t *testing.T, schema, data string) ([]Violation, error) {
	t.Helper()
	s, err := Compile([]byte(schema))
	if err != nil {
		t.Fatalf("%s: %v", schema, err)
	}
	return s.Check([]byte(data), func(int) error { return nil })
}

func TestCheck(t *testing.T) {
	for _, x := range []struct{ schema, data, want string }{
		{`{"type":"object"}`, `{"a":1}`, ``},
		{`true`, `{}`, ``},
		{`{"required":["a","b"]}`, `{"a":1}`, `.b is required`},
		{`{"properties":{"a":{"type":["integer","string"]}}}`, `{"a":1.0}`, ``},
		{`{"properties":{"a":{"type":["integer","string"]}}}`, `{"a":1.5}`, `.a must be of type integer or string`},
		{`{"properties":{"a":{"items":{"required":["code"]}}}}`, `{"a":[{"code":1},{}]}`, `.a[1].code is required`},
		{`{"additionalProperties":false,"properties":{"a":true}}`, `{"a":1,"z":1,"y":2}`, `.y is not allowed; .z is not allowed`},
		{`{"properties":{"a":{"enum":["x"]}}}`, `{"a":"secret"}`, `.a breaks the rule enum of its schema`},
		{`{"properties":{"a":{"pattern":"^x"}}}`, `{"a":"secret"}`, `.a breaks the rule pattern of its schema`},
		{`{"properties":{"a":{"format":"date-time"}}}`, `{"a":"secret"}`, `.a must have the format date-time`},
		{`{"properties":{"a":{"format":"date-time"}}}`, `{"a":"2024-01-15T10:30:00Z"}`, ``},
		{`{"properties":{"a":{"minimum":0.1}}}`, `{"a":0.1}`, ``},
		{`{"properties":{"a":{"$ref":"#/$defs/d"}},"$defs":{"d":{"type":"null"}}}`, `{"a":1}`, `.a must be of type null`},
		{`{"$id":"https://clinic.example/s","properties":{"a":{"$ref":"s#/$defs/d"}},"$defs":{"d":{"type":"null"}}}`, `{"a":1}`, `.a must be of type null`},
		{`{"anyOf":[{"required":["a"]},{"required":["b"]}]}`, `{}`, ` breaks the rule anyOf of its schema`},
		{`{"allOf":[{"required":["a"]},{"required":["b"]}]}`, `{}`, `.a is required; .b is required`},
		{`{"propertyNames":{"maxLength":3}}`, `{"secret":1}`, ` breaks the rule propertyNames of its schema`},
		{`{"$schema":"http://json-schema.org/draft-07/schema#","required":["a"]}`, `{}`, `.a is required`},
	} {
		found, err := check(t, x.schema, x.data)
		var got []string
		for _, v := range found {
			got = append(got, v.Path+" "+v.Message)
		}
		if err != nil || strings.Join(got, "; ") != x.want {
			t.Errorf("%s, %s: got %q %v, want %q", x.schema, x.data, got, err, x.want)
		}
	}
}

// Names that only the data has are left out of what others than its sender see.
func TestPublicPaths(t *testing.T) {
	const schema = `{"properties":{"a":{"items":{"required":["code"],"additionalProperties":{"type":"null"},"properties":{"code":{"type":"string"}}}}},
		"patternProperties":{"^x":{"type":"null"}}}`
	found, err := check(t, schema, `{"a":[{"12":1,"code":1,"a":1},{}],"xавгуст":1}`)
	var got []string
	for _, v := range found {
		got = append(got, v.Path+" "+v.Public)
	}
	want := ".a[0].a .a[0].a; .a[0].code .a[0].code; .a[0][12] .a[0].*; .a[1].code .a[1].code; .xавгуст .*"
	if err != nil || strings.Join(got, "; ") != want {
		t.Errorf("got %q %v, want %q", got, err, want)
	}
}

func TestCompileRefuses(t *testing.T) {
	for schema, want := range map[string]string{
		`{"type":"objekt"}`:                            "type ",
		`{"properties":{"a":{"minLength":-1}}}`:        "properties.a.minLength ",
		`{"properties":{"a":{"pattern":"("}}}`:         "",
		`{"pattern":"a{1000}{1000}"}`:                  "",
		`{"pattern":"` + `(a{99}b{99}){99}"}`:          "",
		`{"$ref":"https://elsewhere.example/a.json"}`:  "outside of the schema",
		`{"$ref":"file:///etc/passwd"}`:                "outside of the schema",
		`{"$ref":"other.json"}`:                        "outside of the schema",
		`{"$ref":"#/$defs/missing"}`:                   "missing",
		`{"$schema":"https://elsewhere.example/meta"}`: "outside of the schema",
		`5`: "",
		`{"title":"` + strings.Repeat("x", 70000) + `"}`: "KB",
	} {
		if _, err := Compile([]byte(schema)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: got %v, want %q", schema, err, want)
		}
	}
}

// Whatever the schema and the data, a check ends after a bounded number of steps.
func TestCheckIsBounded(t *testing.T) {
	doubling := func(in, keyword string) string {
		schema := `{"$defs":{"d0":{"required":["missing"]}`
		for i := 1; i < 60; i++ {
			schema += fmt.Sprintf(`,"d%d":{"%s":[{"$ref":"#/$defs/d%d"},{"$ref":"#/$defs/d%d"}]}`, i, keyword, i-1, i-1)
		}
		return schema + `},"` + in + `":{"$ref":"#/$defs/d59"}}`
	}
	nested := strings.Repeat("[", 60) + "1" + strings.Repeat("]", 60)
	for name, x := range map[string]struct{ schema, data string }{
		"allOf":               {doubling("additionalProperties", "allOf"), `{"a":{}}`},
		"anyOf":               {doubling("additionalProperties", "anyOf"), `{"a":{}}`},
		"anyOf, inverted":     {doubling("not", "anyOf"), `{}`},
		"branches by members": {`{"not":{"$ref":"#/$defs/a"},"$defs":{"a":{"type":"array","items":{"$ref":"#/$defs/a"},"contains":{"$ref":"#/$defs/a"}}}}`, nested},
		"a long text":         {`{"properties":{"a":{"pattern":"(x+x+)+y"}}}`, `{"a":"` + strings.Repeat("x", 1<<20) + `"}`},
		"many values":         {`{"properties":{"a":{"items":{"type":"string"}}}}`, `{"a":[` + strings.Repeat("1,", 1<<19) + `1]}`},
		"many comparisons": {`{"properties":{"a":{"items":{"enum":["` + strings.Repeat(`x","`, 8000) + `"]}}}}`,
			`{"a":[` + strings.Repeat(`"y",`, 100_000) + `1]}`},
		"a long number":    {`{"properties":{"a":{"minimum":1}}}`, `{"a":` + strings.Repeat("1", 1<<20) + `}`},
		"a large exponent": {`{"properties":{"a":{"minimum":1}}}`, `{"a":1e-999999999}`},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Compile([]byte(x.schema))
			if err != nil {
				t.Fatal(err)
			}
			spent := 0
			found, err := s.Check([]byte(x.data), func(work int) error { spent += work; return nil })
			if !errors.Is(err, ErrTooCostly) || found != nil {
				t.Errorf("got %v %v", found, err)
			}
			if most := 4*len(x.data) + budget*stepWork; spent > most {
				t.Errorf("spent %d, more than %d", spent, most)
			}
		})
	}
}

// An error of spend, such as that the caller has gone, ends the check; the next one is whole.
func TestSpendEndsACheck(t *testing.T) {
	s, err := Compile([]byte(`{"required":["a"]}`))
	if err != nil {
		t.Fatal(err)
	}
	gone := errors.New("gone")
	for calls := range 2 {
		left := calls
		_, err := s.Check([]byte(`{}`), func(int) error {
			if left--; left < 0 {
				return gone
			}
			return nil
		})
		if !errors.Is(err, gone) {
			t.Errorf("after %d calls: %v", calls, err)
		}
	}
	if found, err := s.Check([]byte(`{}`), func(int) error { return nil }); err != nil || len(found) != 1 {
		t.Errorf("got %v %v", found, err)
	}
}
