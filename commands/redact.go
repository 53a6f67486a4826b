package commands

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
	"strings"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/strictjson"
)

// redactor takes a webhook's secrets out of what its receiver answers: a receiver
// that echoes its request would else put header values into the log in clear.
type redactor struct{ secrets [][]byte }

// leastRedacted is how long a text must be to be taken for a secret: shorter ones
// stand in answers by chance.
const leastRedacted = 8

// add makes the text a secret, as it is and as JSON writes it. Longer secrets go first:
// one that holds another would else be masked in part.
func (r *redactor) add(text string) {
	if len(text) < leastRedacted {
		return
	}
	for _, form := range append(jsonForms(text), text) {
		if !slices.ContainsFunc(r.secrets, func(s []byte) bool { return string(s) == form }) {
			r.secrets = append(r.secrets, []byte(form))
		}
	}
	slices.SortStableFunc(r.secrets, func(a, b []byte) int { return cmp.Compare(len(b), len(a)) })
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
// scheme in one like "Bearer abc". What asks for a kind of answer is none.
func (r *redactor) addHeader(name, value string) {
	if strings.HasPrefix(strings.ToLower(name), "accept") {
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
		if bytes.Contains(body, secret) {
			body = bytes.ReplaceAll(body, secret, []byte(domain.Masked))
		}
		if cut {
			body = withoutBeginning(body, secret)
		}
	}
	return body
}

func withoutBeginning(body, secret []byte) []byte {
	for n := min(len(body), len(secret)-1); n >= leastRedacted/2; n-- {
		if bytes.HasSuffix(body, secret[:n]) {
			return append(bytes.Clone(body[:len(body)-n]), domain.Masked...)
		}
	}
	return body
}

// header masks the secrets in the answer's headers, in place.
func (r *redactor) header(fields []domain.HeaderField) []domain.HeaderField {
	for i := range fields {
		for _, secret := range r.secrets {
			fields[i].Value = strings.ReplaceAll(fields[i].Value, string(secret), domain.Masked)
		}
	}
	return fields
}
