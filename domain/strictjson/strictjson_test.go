package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

func isError(err error) bool {
	var refused Error
	return errors.As(err, &refused)
}

func nested(depth int) string {
	return strings.Repeat("[", depth) + strings.Repeat("]", depth)
}

func TestCheckJSONAccepts(t *testing.T) {
	for _, text := range []string{
		`{}`, `[]`, `null`, `true`, `false`, `0`, `-0`, `""`, ` { } `, "\t\r\n[ 1 , 2 ]\n",
		`{"a":1,"b":{"a":1},"c":[{"a":1},{"a":1}]}`,
		`"\u0000"`, `{"\u0000":"\u0000"}`, `"\ud83d\ude00"`, `"\"\\\/\b\f\n\r\t"`,
		`1e308`, `-1e308`, `10e307`, `0.1e309`, `1.000e308`, `1E+308`, `1e-400`, `-1e-99999999999999999999999`, `0e999999999999999999999`,
		`0.` + strings.Repeat("0", 1000), `0.` + strings.Repeat("0", 1000) + `1e1300`, `0.` + strings.Repeat("3", 100000),
		strings.Repeat("9", 308), `1` + strings.Repeat("0", 308), `-1` + strings.Repeat("0", 308) + `.000`,
		nested(64), strings.Repeat(`{"a":`, 64) + `1` + strings.Repeat(`}`, 64),
		`"` + "\x7f\u0080\u2028\uFEFF\U0010FFFF" + `"`, `{"":0}`, `{"a":0,"A":0}`,
	} {
		if err := Check([]byte(text)); err != nil {
			t.Errorf("%.60q: %v", text, err)
		}
	}
}

func TestCheckJSONRefuses(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{``, "the JSON is empty at byte 0"},
		{` `, "is empty"},
		{"\xef\xbb\xbf{}", "begins with a byte order mark at byte 0"},
		{`{`, "ends too early at byte 1"},
		{`{"a"`, "ends too early at byte 4 (in a)"},
		{`{"a":`, "ends too early"},
		{`{"a":1`, "ends too early"},
		{`{"a":1,`, "ends too early"},
		{`[1,`, "ends too early at byte 3"},
		{`"abc`, "ends too early"},
		{`"abc\`, "ends too early"},
		{`{} {}`, "followed by something else at byte 3"},
		{`{}x`, "followed by something else"},
		{"{}\x00", "followed by something else"},
		{`{"a":1,}`, "is not valid at byte 6: invalid character ','"},
		{`{,}`, "is not valid at byte 1: invalid character ',' at start of value"},
		{`{a:1}`, "invalid character 'a' at start of value"},
		{`{"a" 1}`, "is not valid at byte 5 (in a): invalid character '1' after object name (expecting ':')"},
		{`{"a":1 "b":2}`, "after object value (expecting ',' or '}')"},
		{`{"a":1]`, "after object value (expecting ',' or '}')"},
		{`[1}`, "after array element (expecting ',' or ']')"},
		{`[1 2]`, "after array element (expecting ',' or ']')"},
		{`[,]`, "is not valid at byte 1: invalid character ',' at start of value"},
		{`]`, "at start of value"},
		{`'a'`, "at start of value"},
		{`+1`, "at start of value"},
		{`.5`, "at start of value"},
		{`NaN`, "at start of value"},
		{`/* */1`, "at start of value"},
		{"\u00a01", "at start of value"},
		{`tru`, "ends too early"},
		{`True`, "at start of value"},
		{`nul!`, "in literal null (expecting 'l')"},
		{`01`, "followed by something else at byte 1"},
		{`[01]`, "after array element"},
		{`-`, "ends too early"},
		{`-a`, "in number (expecting digit)"},
		{`1.`, "ends too early"},
		{`[1.]`, "in number (expecting digit)"},
		{`1e`, "ends too early"},
		{`1e+`, "ends too early"},
		{"\"a\nb\"", "is not valid at byte 2: invalid character '\\n' in string (expecting non-control character)"},
		{"\"\x00\"", "non-control character"},
		{`"\x"`, "invalid escape sequence `\\x` in string"},
		{`"\u12g4"`, "invalid escape sequence"},
		{`"\u12"`, "invalid escape sequence"},
		{`"\ud800"`, "invalid surrogate pair"},
		{`"\udc00"`, "invalid surrogate pair"},
		{`"\ud800\ud800"`, "invalid surrogate pair"},
		{`"\ud800x"`, "invalid surrogate pair"},
		{nested(65), "nests deeper than 64 at byte 64"},
		{strings.Repeat("[", 10_000_000), "nests deeper than 64"},
		{`{"a":1,"a":2}`, "repeats a key at byte 7 (in a)"},
		{`{"a":1,"\u0061":2}`, "repeats a key"},
		{`{"\u0061":1,"a":2}`, "repeats a key"},
		{`{"d":{"items":[0,1,{"x":1,"x":2}]}}`, "repeats a key at byte 26 (in d.items[2].x)"},
		{`{"":1,"":2}`, "repeats a key"},
		{`{"event_data":{"sum":1e309}}`, "number beyond 1e308 at byte 21 (in event_data.sum)"},
		{`1.0000001e308`, "beyond 1e308"},
		{`-1e400`, "beyond 1e308"},
		{`1e999999999999999999999999`, "beyond 1e308"},
		{`2` + strings.Repeat("0", 308), "beyond 1e308"},
		{strings.Repeat("9", 309), "beyond 1e308"},
		{"\"a\xff\"", "is not valid at byte 2: invalid UTF-8"},
		{"{\"a\":[\"\xc3\x28\"]}", "is not valid at byte 7 (in a[0]): invalid UTF-8"},
		{"\"\xed\xa0\x80\"", "invalid UTF-8"},
		{"{}\xff", "is followed by something else at byte 2"},
		{"{,\xff", "is not valid at byte 1"},
	} {
		err := Check([]byte(c.text))
		if !isError(err) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60q: got %v, want %q", c.text, err, c.want)
		}
	}
}

// The table of names grows; the repeated one may be anywhere.
func TestCheckJSONFindsRepeatsAmongManyKeys(t *testing.T) {
	for _, count := range []int{2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 1000, 100_000} {
		for _, repeated := range []int{-1, 0, count / 2, count - 1} {
			var b strings.Builder
			b.WriteString(`{"outer":{`)
			for i := range count {
				fmt.Fprintf(&b, `"key%d":{"key0":%d},`, i, i)
			}
			last := "other"
			if repeated >= 0 {
				last = fmt.Sprintf(`\u006bey%d`, repeated)
			}
			fmt.Fprintf(&b, `"%s":0},"key0":0}`, last)
			err := Check([]byte(b.String()))
			if (repeated >= 0) != (err != nil) {
				t.Fatalf("%d keys, %d repeated: got %v", count, repeated, err)
			}
		}
	}
}

// An object that grew a table leaves nothing behind for the next one at its depth.
func TestCheckJSONTablesStartEmpty(t *testing.T) {
	var b strings.Builder
	b.WriteString("[")
	for range 3 {
		b.WriteString("{")
		for i := range 200 {
			fmt.Fprintf(&b, `"k%d":1,`, i)
		}
		b.WriteString(`"z":{"k1":1}},`)
	}
	b.WriteString("{}]")
	for range 3 {
		if err := Check([]byte(b.String())); err != nil {
			t.Fatal(err)
		}
	}
}

// jsontextAccepts is the reference: what it leaves open is decided with big numbers.
func jsontextAccepts(data []byte) bool {
	decoder := jsontext.NewDecoder(bytes.NewReader(data))
	values := 0
	for {
		token, err := decoder.ReadToken()
		if err == io.EOF {
			return values == 1
		}
		if err != nil || decoder.StackDepth() > MaxDepth {
			return false
		}
		if token.Kind() == '0' && !withinRange(token.String()) {
			return false
		}
		if decoder.StackDepth() == 0 {
			values++
		}
	}
}

func withinRange(number string) bool {
	var mantissa, exponent, _ = strings.Cut(strings.ToLower(number), "e")
	f, _, err := big.ParseFloat(mantissa, 10, uint(64+4*len(mantissa)), big.ToNearestEven)
	if err != nil || f.Sign() == 0 {
		return err == nil
	}
	if len(strings.TrimLeft(exponent, "+-0")) > 6 {
		return strings.HasPrefix(exponent, "-") // the texts here are too short to make up for it
	}
	limit, _ := new(big.Rat).SetString("1e308")
	value, ok := new(big.Rat).SetString(number)
	return ok && value.Abs(value).Cmp(limit) <= 0
}

func FuzzCheckJSON(f *testing.F) {
	for _, seed := range []string{
		`{"a":[1,2.5e3,true,null,"x\u0041\ud83d\ude00"],"b":{"a":{}}}`, `{"a":1,"\u0061":2}`, `[1e308,1.1e308,1e-400,0e999]`,
		"\xef\xbb\xbf{}", "\"\xff\"", `"\ud800"`, nested(64), nested(65), ` {"a" : [ ] } `, `{}{}`, `-0.0E-0`, "", "nul", "{\"a\":\"\x1f\"}",
		`{"aaaaaaaa":1,"aaaaaaaab":2,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1,"j":1,"k":1,"l":1,"m":1,"n":1,"o":1,"p":1,"q":1,"b":2}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 10_000 {
			t.Skip("the reference is slow")
		}
		err := Check(data)
		if want := jsontextAccepts(data); want != (err == nil) {
			t.Fatalf("%q: got %v, jsontext accepts: %v", data, err, want)
		}
		if err == nil && !(json.Valid(data) && utf8.Valid(data)) {
			t.Fatalf("%q: encoding/json refuses it", data)
		}
		checkFieldsOf(t, data, err == nil)
	})
}

// checkFieldsOf compares Fields and Elements with encoding/json.
func checkFieldsOf(t *testing.T, data []byte, valid bool) {
	got := map[string]string{}
	err := Fields(data, func(key string, raw []byte) error {
		got[key] = string(raw)
		return nil
	})
	elements := 0
	arrayErr := Elements(data, func(int, []byte) error { elements++; return nil })
	if !valid {
		return
	}
	trimmed := bytes.TrimLeft(data, " \n\r\t")
	if (trimmed[0] == '{') != (err == nil) || (trimmed[0] == '[') != (arrayErr == nil) {
		t.Fatalf("%q: object %v, array %v", data, err, arrayErr)
	}
	if err == nil {
		var want map[string]json.RawMessage
		if err := json.Unmarshal(data, &want); err != nil || len(want) != len(got) {
			t.Fatalf("%q: got %q, want %q", data, got, want)
		}
		for key, raw := range want {
			if got[key] != string(raw) {
				t.Fatalf("%q: field %q is %q, want %q", data, key, got[key], raw)
			}
		}
	}
	if arrayErr == nil {
		var want []json.RawMessage
		if err := json.Unmarshal(data, &want); err != nil || len(want) != elements {
			t.Fatalf("%q: got %d elements, want %d", data, elements, len(want))
		}
	}
}

func TestObjectFieldsGivesExactBytes(t *testing.T) {
	data := []byte(" {\"a\" : { \"x\": [1, 2 ] } ,\n\"\\u0062\\n\":\"q\\\"}\",\"c\":-1.50e3,\"d\":null , \"e\":[]}\n")
	var got []string
	if err := Fields(data, func(key string, raw []byte) error {
		got = append(got, key+"="+string(raw))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	want := []string{`a={ "x": [1, 2 ] }`, "b\n=" + `"q\"}"`, "c=-1.50e3", "d=null", "e=[]"}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Fatalf("got %q", got)
	}
}

func TestObjectFieldsStopsAtTheFirstError(t *testing.T) {
	stop, calls := errors.New("stop"), 0
	err := Fields([]byte(`{"a":1,"b":2}`), func(string, []byte) error { calls++; return stop })
	if err != stop || calls != 1 {
		t.Fatalf("got %v after %d calls", err, calls)
	}
	for _, text := range []string{``, `[]`, `1`, `null`, `{`, `{"a`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":{`, `{"a\`} {
		if err := Fields([]byte(text), func(string, []byte) error { return nil }); !isError(err) {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

func TestText(t *testing.T) {
	for raw, want := range map[string]string{`"a\u0000\ud83d\ude00\"\/я"`: "a\x00😀\"/я", `""`: ""} {
		if got, ok := Text([]byte(raw)); !ok || string(got) != want {
			t.Errorf("%s: got %q, %v", raw, got, ok)
		}
	}
	for _, raw := range []string{``, `"`, `1`, `null`, `{}`} {
		if _, ok := Text([]byte(raw)); ok {
			t.Errorf("%q is no string", raw)
		}
	}
}

func usualBody() []byte {
	return []byte(`{"event_type":"patient.created","event_data":{"patient_id":123456,"name":"Иванов Иван Иванович","phone":"+7900123456",` +
		`"email":"ivan@example.com","created_at":"2024-01-15T10:30:00Z","department":"cardiology","patient_type":"new","amount":15250.75,` +
		`"insurance":{"company":"АО Страхование","number":"7700 123456 7890","valid":true},"tags":["vip","repeat"],"notification_enabled":true,` +
		`"comment":"Позвонить после обеда"},"source":"reception","correlation_id":"req-0190163d-8694-739b"}`)
}

func BenchmarkCheckJSON(b *testing.B) {
	var keys strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&keys, `"key%d":%d,`, i, i)
	}
	for _, c := range []struct {
		name string
		body []byte
	}{
		{"usual", usualBody()},
		{"ascii", bytes.ReplaceAll(usualBody(), []byte("Иванов Иван Иванович"), []byte("Ivanov Ivan Ivanovich"))},
		{"10MB text", []byte(`{"a":"` + strings.Repeat("x", 10<<20) + `"}`)},
		{"10MB numbers", []byte(`[` + strings.Repeat("1.5,", 10<<18) + `1]`)},
		{"100k keys", []byte(`{` + keys.String() + `"z":0}`)},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(c.body)))
			b.ReportAllocs()
			for b.Loop() {
				if err := Check(c.body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkFields(b *testing.B) {
	body := usualBody()
	b.ReportAllocs()
	for b.Loop() {
		if err := Fields(body, func(string, []byte) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

// What may be logged and stored quotes no data, but for the single character that is wrong.
func TestPublicQuotesNothing(t *testing.T) {
	const secret = "ЖФЦЩЪЫ"
	endings := []string{`\ud800`, `\udc00`, `\ud800\ud800`, `\ud800\u0416`, `\ud800\n`, `\ud83dЖ`, `\u`, `\u04`, `\u04Ж`, `\q`, `\Ж`, "\n", "\x00", "\xff", "\xd0", `"`, `",`, `":`, `":-`, `":1.`, `":1e`, `":tru`, `":nu`, `":1e999`, `":1}`, `":1,"` + secret, `":[`, `":{`, `"]`, "`", ""}
	for _, begin := range []string{`{"patient_id":"`, `{"`, `["`, `"`, ``, `[`, `{"a":{"`, `{"` + secret + `":1,"`, `{"` + secret + `":{"a":"`, `{"a":`, `{"a":-`, `{"a":1.`, `{"a":t`} {
		for _, end := range endings {
			for _, rest := range []string{"", secret, secret + `"}`, `\u0416\u0424` + secret, `"` + secret + `":1}`} {
				data := begin + secret + end + rest
				err := Check([]byte(data))
				var refused Error
				if !errors.As(err, &refused) {
					if err == nil {
						continue
					}
					t.Fatal(err)
				}
				inPublic := 0
				for _, r := range secret {
					inPublic += strings.Count(refused.Public, string(r))
				}
				if inPublic > 1 || strings.Contains(refused.Public, `\u0`) || strings.Contains(refused.Public, `\ud`) {
					t.Errorf("%q: %q", data, refused.Public)
				}
			}
		}
	}
}

// The public text consists of words that are known here, the place and a character.
func FuzzPublic(f *testing.F) {
	known := regexp.MustCompile(`^the JSON (is empty|begins with a byte order mark|is followed by something else|ends too early|repeats a key|nests deeper than 64|has a number beyond 1e308|is not valid) at byte \d+` +
		`(: (invalid UTF-8|object member name must be a string|missing value after object name|invalid (escape sequence|surrogate pair) in string|` +
		"invalid character ('(\\\\?.|\\\\x..|\\\\u....|\\\\U........)'|`.`)" + ` (at start of (value|string \(expecting '"'\))|after (object name|object value|array element) \(expecting '.'( or '.')?\)|in number \(expecting digit\)|in literal (true|false|null) \(expecting '.'\)|in string \(expecting non-control character\))))?$`)
	for _, seed := range []string{``, `{"a":"\ud800Иванов"}`, `{"a":"\q"}`, `{"a":tRue}`, "[\"\n\"]", `{1:2}`, `{"a"}`, `[1 2]`, "\"\xff\"", `{"a":1,"a":2}`, `[1.x]`, `{}x`, `{"a":1e999}`, "`", `{"a"'b`, "[\u2028", `{"a":1 И`, "\xff"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var refused Error
		if errors.As(Check(data), &refused) && !known.MatchString(refused.Public) {
			t.Errorf("%q: %q", data, refused.Public)
		}
	})
}
