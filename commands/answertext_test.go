package commands

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"io"
	"strings"
	"testing"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/unicode"

	"github.com/medilab/webhooks/domain"
)

func answered(contentType, encoding string) []domain.HeaderField {
	return []domain.HeaderField{{Name: "Content-Encoding", Value: encoding}, {Name: "Content-Type", Value: contentType}}
}

func encoded(t *testing.T, e encoding.Encoding, text string) []byte {
	t.Helper()
	b, err := e.NewEncoder().Bytes([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func packed(t *testing.T, by func(io.Writer) io.WriteCloser, text []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := by(&b)
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipped(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }
func zlibbed(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) }
func deflated(w io.Writer) io.WriteCloser {
	f, _ := flate.NewWriter(w, flate.BestSpeed) // fails for unknown levels only
	return f
}

func TestAnswerText(t *testing.T) {
	const text, kana = "Ошибка: пациент не найден", "エラー"
	cp1251, le := encoded(t, charmap.Windows1251, text), unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM)
	long := bytes.Repeat([]byte("x<y>"), 40<<10)
	for name, tt := range map[string]struct {
		contentType, encoding string
		body                  []byte
		want                  string
		more                  bool
	}{
		"UTF-8":              {"text/plain", "", []byte(text), text, false},
		"UTF-8 with a mark":  {"text/plain", "", []byte("\ufeff" + text), text, false},
		"UTF-8 after all":    {"text/plain; charset=windows-1251", "", []byte(text), text, false},
		"windows-1251":       {"text/plain; charset=windows-1251", "", cp1251, text, false},
		"quoted charset":     {`text/plain; charset="Windows-1251"`, "", cp1251, text, false},
		"KOI8-R":             {"text/plain; charset=koi8-r", "", encoded(t, charmap.KOI8R, text), text, false},
		"by the document":    {"text/html", "", append([]byte(`<meta charset="windows-1251">`), cp1251...), `<meta charset="windows-1251">` + text, false},
		"UTF-16LE":           {"text/plain; charset=utf-16le", "", encoded(t, le, text), text, false},
		"UTF-16 with a mark": {"text/plain", "", encoded(t, unicode.UTF16(unicode.BigEndian, unicode.UseBOM), text), text, false},
		"ASCII in UTF-16":    {"application/json; charset=utf-16", "", encoded(t, le, `{"error":1}`), `{"error":1}`, false},
		"ISO-2022-JP":        {"text/plain; charset=iso-2022-jp", "", encoded(t, japanese.ISO2022JP, kana), kana, false},
		"Shift_JIS":          {"text/plain; charset=shift_jis", "", encoded(t, japanese.ShiftJIS, kana), kana, false},
		"gzip":               {"text/plain", "gzip", packed(t, gzipped, []byte(text)), text, false},
		"gzip of 1251":       {"text/plain; charset=windows-1251", "GZIP", packed(t, gzipped, cp1251), text, false},
		"deflate":            {"text/plain", "deflate", packed(t, zlibbed, []byte(text)), text, false},
		"raw deflate":        {"text/plain", "deflate", packed(t, deflated, []byte(text)), text, false},
		"bomb":               {"text/plain", "gzip", packed(t, gzipped, long), string(long[:maxUnpacked]), true},
		"no gzip":            {"text/plain", "gzip", []byte(text), text, false},
		"unknown charset":    {"text/plain; charset=klingon", "", []byte("a\xff"), "a\ufffd", false},
		"unknown encoding":   {"text/plain", "br", []byte("a\xff"), "a\ufffd", false},
		"empty":              {"text/plain", "gzip", nil, "", false},
	} {
		got, more := AnswerText(answered(tt.contentType, tt.encoding), tt.body)
		if got != tt.want || more != tt.more {
			t.Errorf("%s: %.60q, more %v, want %.60q", name, got, more, tt.want)
		}
	}
}

// What is left of a compressed answer that was cut can be read.
func TestTextOfACutAnswer(t *testing.T) {
	text := strings.Repeat("a", 1000)
	whole := packed(t, func(w io.Writer) io.WriteCloser { z, _ := gzip.NewWriterLevel(w, gzip.NoCompression); return z }, []byte(text))
	if got, _ := AnswerText(answered("text/plain", "gzip"), whole[:500]); len(got) < 400 || strings.Trim(got, "a") != "" {
		t.Errorf("%.60q", got)
	}
}

// A secret is masked in whatever the receiver wraps it, and only then are the bytes
// that came not kept.
func TestSecretInAnEncodedAnswer(t *testing.T) {
	var r redactor
	r.add("hunter2hunter2")
	const text = "you sent hunter2hunter2"
	le := unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM)
	for name, tt := range map[string]struct {
		header []domain.HeaderField
		body   []byte
	}{
		"gzip":   {answered("text/plain", "gzip"), packed(t, gzipped, []byte(text))},
		"UTF-16": {answered("text/plain; charset=utf-16", ""), encoded(t, le, text)},
	} {
		kept := r.answer(tt.header, tt.body, false)
		if shown, _ := AnswerText(tt.header, kept); shown != "you sent "+domain.Masked {
			t.Errorf("%s: shown %q", name, shown)
		}
	}
	harmless := packed(t, gzipped, []byte("fine"))
	if kept := r.answer(answered("text/plain", "gzip"), harmless, false); !bytes.Equal(kept, harmless) {
		t.Errorf("kept %q", kept)
	}
}

// A charset that only the XML declaration names is believed; one of the header goes first.
func TestAnswerTextOfXML(t *testing.T) {
	const text = `<?xml version="1.0" encoding="windows-1251"?><ответ>принято</ответ>`
	body := encoded(t, charmap.Windows1251, text)
	for _, contentType := range []string{"", "application/xml", "text/xml; charset=windows-1251"} {
		if got, _ := AnswerText(answered(contentType, ""), body); got != text {
			t.Errorf("%q: %q", contentType, got)
		}
	}
	if got, _ := AnswerText(answered("text/xml; charset=koi8-r", ""), encoded(t, charmap.KOI8R, text)); got != text {
		t.Errorf("by the header: %q", got)
	}
}
