// Package texts translates what callers are shown. Everywhere else it is written, recorded and
// logged in English: it is translated at the edge, by the table in russian.txt, whose entries
// are formats with holes.
package texts

import (
	"bytes"
	"cmp"
	_ "embed"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/text/language"
)

//go:embed russian.txt
var russian string

// Languages are what texts can be had in, the first if a caller asks for none of them.
var Languages = []language.Tag{language.English, language.Russian}

var matcher = language.NewMatcher(Languages)

// Preferred returns which of Languages a header Accept-Language asks for.
func Preferred(accept string) language.Tag {
	if accept == "" {
		return Languages[0]
	}
	_, n := language.MatchStrings(matcher, accept)
	return Languages[n]
}

// Table is texts with their translations.
type Table struct {
	Texts   map[string]string // Russian by English
	formats []entry           // the most literal first
}

// entry is a text with holes.
type entry struct {
	text    string
	english *regexp.Regexp
	holes   []string // what they stand for, as in the table
	literal int      // bytes outside the holes
	begin   string   // before the first hole; with end it rules out most entries at little cost
	end     string   // after the last
	russian string
}

// NewTable returns the table of the texts in Russian by those in English, with holes as in russian.txt.
func NewTable(texts map[string]string) *Table {
	t := &Table{Texts: texts}
	for english, translation := range texts {
		if hole.MatchString(english) {
			t.formats = append(t.formats, newEntry(english, translation))
		}
	}
	slices.SortFunc(t.formats, func(a, b entry) int { return cmp.Or(b.literal-a.literal, strings.Compare(a.text, b.text)) })
	return t
}

var table = sync.OnceValue(func() *Table {
	texts, english := map[string]string{}, ""
	for line := range strings.Lines(russian) {
		line = strings.TrimSuffix(line, "\n")
		if translation, ok := strings.CutPrefix(line, "\t"); ok {
			texts[english] = translation
		} else {
			english = line
		}
	}
	return NewTable(texts)
})

var (
	hole = regexp.MustCompile(`\{[td]?\}`)
	slot = regexp.MustCompile(`\{(\d)(?::([^|}]*)\|([^|}]*)\|([^|}]*))?\}`)
)

func newEntry(english, translation string) entry {
	e := entry{text: english, holes: hole.FindAllString(english, -1), russian: translation}
	literals := hole.Split(english, -1)
	e.begin, e.end = literals[0], literals[len(literals)-1]
	for i, literal := range literals {
		e.literal += len(literal)
		literals[i] = regexp.QuoteMeta(literal)
	}
	pattern := literals[0]
	for i, kind := range e.holes {
		if kind == "{d}" {
			pattern += `(\d[\dhmsµn.]*)` + literals[i+1]
		} else {
			pattern += `(.*?)` + literals[i+1]
		}
	}
	e.english = regexp.MustCompile(`(?s)^` + pattern + `$`)
	return e
}

// Russian returns the text in Russian, and whether the table has it. A text may be several
// ones, each of which may begin with the field that it is about.
func Russian(text string) (string, bool) {
	translate := func(part string) string { translated, _ := Russian(part); return translated }
	if translation, ok := table().Find(text, translate); ok {
		return translation, true
	}
	parts := strings.Split(text, "; ")
	for i, part := range parts {
		translation, ok := table().Find(part, translate)
		if !ok {
			field, rest, _ := strings.Cut(part, " ")
			translation, ok = table().Find(rest, translate)
			translation = strings.TrimSuffix(field, ":") + ": " + translation
		}
		if !ok {
			return text, false
		}
		parts[i] = translation
	}
	return strings.Join(parts, "; "), true
}

// Find returns the translation of a text, and whether the table has it. What is in a hole {t} is
// translated by part.
func (t *Table) Find(text string, part func(string) string) (string, bool) {
	if translation, ok := t.Texts[text]; ok {
		return translation, true
	}
	for i := range t.formats {
		e := &t.formats[i]
		if !strings.HasPrefix(text, e.begin) || !strings.HasSuffix(text, e.end) {
			continue
		}
		if found := e.english.FindStringSubmatch(text); found != nil {
			return e.fill(found[1:], part), true
		}
	}
	return "", false
}

// fill returns the translation with what was in the holes.
func (e *entry) fill(values []string, part func(string) string) string {
	return slot.ReplaceAllStringFunc(e.russian, func(s string) string {
		m := slot.FindStringSubmatch(s)
		at := int(m[1][0] - '1')
		value := values[at]
		switch {
		case m[2] != "":
			return m[2+form(value)]
		case e.holes[at] == "{t}":
			value = part(value)
		case e.holes[at] == "{d}":
			value = duration(value)
		case fraction.MatchString(value):
			value = strings.Replace(value, ".", ",", 1)
		}
		return value
	})
}

var fraction = regexp.MustCompile(`^\d+\.\d+$`)

// form returns which form of a word goes with the number: that of one, of few or of many.
// Fractions go with that of few.
func form(number string) int {
	n, err := strconv.ParseUint(number, 10, 64)
	switch {
	case err != nil:
		return 1
	case n%10 == 1 && n%100 != 11:
		return 0
	case n%10 >= 2 && n%10 <= 4 && (n%100 < 12 || n%100 > 14):
		return 1
	}
	return 2
}

var (
	unit  = regexp.MustCompile(`([\d.]+)(h|ms|m|s)`)
	units = map[string]string{"h": "ч", "m": "мин", "s": "с", "ms": "мс"}
)

// duration returns a time.Duration's text in Russian, without units that are zero.
func duration(text string) string {
	var parts []string
	for _, m := range unit.FindAllStringSubmatch(text, -1) {
		if m[1] != "0" {
			parts = append(parts, strings.Replace(m[1], ".", ",", 1)+" "+units[m[2]])
		}
	}
	if parts == nil {
		return text
	}
	return strings.Join(parts, " ")
}

var (
	// shownMembers hold texts, where an answer has them as strings.
	shownMembers = []string{"title", "detail", "message", "error", "reason"}
	// foreignMembers hold what others wrote, however it looks.
	foreignMembers = []string{"event_data", "test_data", "example", "schema", "filters", "want", "got"}
)

// Answer returns a JSON answer with its texts in the language. All else stays as it is, byte
// by byte.
func Answer(in language.Tag, body []byte) []byte {
	if in != language.Russian {
		return body
	}
	d := jsontext.NewDecoder(bytes.NewBuffer(body), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	var out []byte
	done := int64(0)
	for {
		token, err := d.ReadToken()
		if err != nil {
			return append(out, body[done:]...)
		}
		kind, n := d.StackIndex(d.StackDepth())
		if kind != '{' || n%2 == 0 || token.Kind() != '"' {
			continue
		}
		switch name := token.String(); {
		case slices.Contains(foreignMembers, name):
			err = d.SkipValue()
		case slices.Contains(shownMembers, name) && d.PeekKind() == '"':
			var value jsontext.Value
			if value, err = d.ReadValue(); err != nil {
				break
			}
			if translation, known := russianValue(value); known {
				out = append(append(out, body[done:int(d.InputOffset())-len(value)]...), translation...)
				done = d.InputOffset()
			}
		}
		if err != nil {
			return append(out, body[done:]...)
		}
	}
}

func russianValue(value jsontext.Value) ([]byte, bool) {
	text, err := jsontext.AppendUnquote(nil, value)
	if err != nil {
		return nil, false
	}
	translation, known := Russian(string(text))
	quoted, err := jsontext.AppendQuote(nil, translation)
	return quoted, known && err == nil
}
