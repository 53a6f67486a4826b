package strictjson

import (
	"encoding/json"
	"testing"
	"unicode/utf8"
)

func TestAppendString(t *testing.T) {
	for in, want := range map[string]string{
		"":                   `""`,
		"plain":              `"plain"`,
		"<a href='x'>&</a>":  `"<a href='x'>&</a>"`,
		"q\"b\\":             `"q\"b\\"`,
		"\n\r\t\x00\x1f\x7f": `"\n\r\t\u0000\u001f` + "\x7f" + `"`,
		"\b\f":               `"\u0008\u000c"`, // as in bodies that were sent
		"Иван 😀\u2028":       "\"Иван 😀\u2028\"",
		"a\xffb\xe2\x28":     "\"a\uFFFDb\uFFFD(\"",
	} {
		if got := string(AppendString([]byte("x"), in)); got != "x"+want {
			t.Errorf("%q: got %s, want %s", in, got[1:], want)
		}
	}
}

func FuzzAppendString(f *testing.F) {
	f.Add("a\"\\\n<\xff")
	f.Fuzz(func(t *testing.T, s string) {
		var back string
		if err := json.Unmarshal(AppendString(nil, s), &back); err != nil {
			t.Fatal(err)
		}
		if utf8.ValidString(s) && back != s {
			t.Fatalf("got %q back", back)
		}
	})
}
