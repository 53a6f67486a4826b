package commands

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/strictjson"
)

// redactor takes a webhook's secrets out of what its receiver answers: a receiver
// that echoes its request would else put header values into the log in clear.
type redactor struct {
	secrets [][]byte
	lower   [][]byte // the same in lower case
}

// with returns a redactor that masks the text too.
func (r *redactor) with(text string) *redactor {
	more := redactor{secrets: slices.Clone(r.secrets)}
	more.add(text)
	return &more
}

// leastUnmistakable is how long a text must be to be masked within a word too: shorter ones
// stand there by chance.
const leastUnmistakable = 8

// add makes the text a secret, as it is and as JSON writes it. Longer secrets go first:
// one that holds another would else be masked in part.
func (r *redactor) add(text string) {
	if text == "" {
		return
	}
	for _, form := range append(jsonForms(text), text) {
		if !slices.ContainsFunc(r.secrets, func(s []byte) bool { return string(s) == form }) {
			r.secrets = append(r.secrets, []byte(form))
		}
	}
	slices.SortStableFunc(r.secrets, func(a, b []byte) int { return cmp.Compare(len(b), len(a)) })
	r.lower = r.lower[:0]
	for _, secret := range r.secrets {
		r.lower = append(r.lower, bytes.ToLower(secret))
	}
}

// jsonForms are what libraries make of a text in JSON: with what is special in HTML
// escaped as Go does, or the slash as PHP does, or neither.
func jsonForms(text string) []string {
	html, err := json.Marshal(text)
	if err != nil {
		return nil
	}
	least := strictjson.AppendString(nil, text)
	return []string{
		string(html[1 : len(html)-1]), string(least[1 : len(least)-1]), strings.ReplaceAll(string(least[1:len(least)-1]), "/", `\/`),
	}
}

// addHeader makes the value of a webhook's header a secret, and what follows the
// scheme in one like "Bearer abc". The media types of Accept are none.
func (r *redactor) addHeader(name, value string) {
	if strings.EqualFold(name, "Accept") && strings.Contains(value, "/") {
		return
	}
	r.add(value)
	if _, rest, found := strings.Cut(value, " "); found {
		r.add(rest)
	}
}

// body returns the answer's body with the secrets masked. One that was cut may end
// in the beginning of a secret: that goes too.
func (r *redactor) body(body []byte, cut bool) []byte {
	for _, secret := range r.secrets {
		body = masked(body, secret)
		if cut {
			body = withoutBeginning(body, secret)
		}
	}
	return body
}

// answer returns an answer's body with the secrets masked. If what it says once it is
// decoded holds one, it is replaced by that text.
func (r *redactor) answer(header []domain.HeaderField, body []byte, cut bool) []byte {
	if len(r.secrets) == 0 || len(body) == 0 {
		return body
	}
	body = r.body(body, cut)
	text, more := AnswerText(header, body)
	if text == string(body) {
		return body
	}
	if masked := r.body([]byte(text), cut || more); string(masked) != text {
		return masked
	}
	return body
}

// masked returns the text without the secret; a short one stays where it is part of a word.
func masked(text, secret []byte) []byte {
	if !bytes.Contains(text, secret) {
		return text
	}
	var out []byte
	for from := 0; ; {
		at := bytes.Index(text[from:], secret)
		if at < 0 {
			return append(out, text[from:]...)
		}
		at += from
		out = append(out, text[from:at]...)
		if from = at + len(secret); len(secret) >= leastUnmistakable || !withinWord(text, at) && !withinWord(text, from) {
			out = append(out, domain.Masked...)
			continue
		}
		out, from = append(out, text[at]), at+1
	}
}

// withinWord reports whether letters or digits stand on both sides of the place.
func withinWord(text []byte, at int) bool {
	return at > 0 && at < len(text) && isWord(text[at-1]) && isWord(text[at])
}

func isWord(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z' || c >= utf8.RuneSelf
}

func withoutBeginning(body, secret []byte) []byte {
	for n := min(len(body), len(secret)-1); n >= leastUnmistakable/2; n-- {
		if bytes.HasSuffix(body, secret[:n]) {
			return append(bytes.Clone(body[:len(body)-n]), domain.Masked...)
		}
	}
	return body
}

// header masks the secrets in the answer's headers, in place. Names come in any letter case.
func (r *redactor) header(fields []domain.HeaderField) []domain.HeaderField {
	for i := range fields {
		value, name := []byte(fields[i].Value), bytes.ToLower([]byte(fields[i].Name))
		for j, secret := range r.secrets {
			if bytes.Contains(value, secret) {
				value = masked(value, secret)
				fields[i].Value = string(value)
			}
			if bytes.Contains(name, r.lower[j]) && !bytes.Equal(masked(name, r.lower[j]), name) {
				fields[i].Name = domain.Masked
			}
		}
	}
	return fields
}
