package http

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/text/language"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/strictjson"
	"github.com/medilab/webhooks/http/texts"
	"github.com/medilab/webhooks/projections"
)

var (
	jsonMedia   = []string{"application/json"}
	problemType = []string{"application/problem+json"}
	varies      = []string{"Accept-Language"}
)

// respond answers with the status of the operation and v as JSON, or nothing if v is nil;
// with err, it returns that instead.
func (x *request) respond(v any, err error) error {
	switch {
	case err != nil:
		return err
	case v == nil:
		x.keepAnswer(nil)
		x.WriteHeader(x.operation.status)
		return nil
	}
	return x.respondJSON(encode(v))
}

// respondJSON is respond for JSON that is encoded already.
func (x *request) respondJSON(body []byte) error {
	made := madeAnswer{body: body}
	if x.payloads != nil {
		made.payloads = domain.FindPayloads(body)
	}
	return x.respondMade(made)
}

// respondMade is respondJSON when its payloads are found already.
func (x *request) respondMade(made madeAnswer) error {
	x.keepAnswer(made.body)
	body, err := x.payloads.answer(made)
	if err != nil {
		return err
	}
	if x.operation.status != http.StatusAccepted && !x.operation.verbatim {
		body = x.inLanguage(body)
	}
	x.write(x.operation.status, jsonMedia, body)
	return nil
}

// inLanguage returns a JSON answer with its texts in the language that the caller prefers.
func (x *request) inLanguage(body []byte) []byte { return texts.Answer(x.language(), body) }

// language returns the language of the answer, and says so in its headers.
func (x *request) language() language.Tag {
	tag := texts.Preferred(x.sent.Get("Accept-Language"))
	if x.status == 0 {
		x.Header()["Vary"] = varies
		x.Header()["Content-Language"] = []string{tag.String()}
	}
	return tag
}

// write writes a whole answer. A client that is gone is no error.
func (x *request) write(status int, contentType []string, body []byte) {
	x.Header()["Content-Type"] = contentType
	x.Header()["Content-Length"] = []string{strconv.Itoa(len(body))}
	x.held.shrink(int64(len(body)))
	x.cut = time.Now().Add(answerTime)
	x.WriteHeader(status)
	_, _ = x.Write(body)
}

// encode returns the JSON of one of our own answers, which always encode, without
// escaping for HTML.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// moment is a time in an answer; zero is null.
type moment time.Time

// MarshalJSON writes RFC 3339 in UTC, or null.
func (m moment) MarshalJSON() ([]byte, error) {
	if time.Time(m).IsZero() {
		return []byte("null"), nil
	}
	return appendMoment(nil, time.Time(m)), nil
}

// appendMoment appends RFC 3339 in UTC with the microseconds that the log keeps.
func appendMoment(dst []byte, at time.Time) []byte {
	const micros = 6
	return append(strictjson.AppendTime(append(dst, '"'), at, micros), '"')
}

// pageOf returns a page of a list that is whole at hand, by the params cursor and atMost.
func pageOf[T any](list []T, x *request) projections.Page[T] {
	skipped, limit := min(int(cursor.of(x)), len(list)), atMost.of(x)
	rest := list[skipped:]
	if len(rest) <= limit {
		return projections.Page[T]{Items: rest}
	}
	return projections.Page[T]{Items: rest[:limit], NextCursor: projections.Cursor(skipped + limit)}
}
