package http

import (
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
)

// Limits of bodies (contract section 2).
const (
	maxEventBody      = 10 << 20
	maxManagementBody = 1 << 20
)

// bodies keeps buffers between requests, but for the large ones.
var bodies = sync.Pool{New: func() any { return &body{data: make([]byte, 0, 4096)} }}

const maxKeptBody = 256 << 10

// body is a request's body. It is gone after release: nothing may keep its bytes.
type body struct {
	data  []byte
	taken int64 // of the budget
}

func (b *body) release() {
	largeBodies.giveBack(b.taken)
	b.taken = 0
	if cap(b.data) <= maxKeptBody {
		b.data = b.data[:0]
		bodies.Put(b)
	}
}

// readJSON reads a body of JSON that keeps the rules of domain.CheckJSON.
func readJSON(r *http.Request, limit int) (*body, error) {
	b, err := readBody(r, limit)
	if err != nil {
		return nil, err
	}
	if err := domain.CheckJSON(b.data); err != nil {
		b.release()
		return nil, err
	}
	return b, nil
}

// readOptionalJSON is readJSON, and an empty body is as good as {}.
func readOptionalJSON(r *http.Request, limit int) (*body, error) {
	b, err := readBody(r, limit)
	if err != nil {
		return nil, err
	}
	if len(b.data) == 0 {
		b.data = append(b.data, "{}"...)
	}
	if err := domain.CheckJSON(b.data); err != nil {
		b.release()
		return nil, err
	}
	return b, nil
}

func readBody(r *http.Request, limit int) (*body, error) {
	if err := checkMediaType(r); err != nil {
		return nil, err
	}
	if r.ContentLength > int64(limit) {
		return nil, tooLarge(limit)
	}
	b := bodies.Get().(*body)
	if n := int(r.ContentLength); n >= cap(b.data) {
		b.data = make([]byte, 0, min(n+1, maxKeptBody)) // a caller may promise more than it sends
	}
	for {
		if len(b.data) == cap(b.data) {
			if err := b.grow(); err != nil {
				b.release()
				return nil, err
			}
		}
		n, err := r.Body.Read(b.data[len(b.data):cap(b.data)])
		b.data = b.data[:len(b.data)+n]
		switch {
		case len(b.data) > limit:
			b.release()
			return nil, tooLarge(limit)
		case err == io.EOF: //nolint:errorlint // a Reader's own word
			return b, nil
		case err != nil:
			b.release()
			return nil, &domain.Error{Kind: domain.KindMalformed, Message: "the body ended too early", Err: err}
		}
	}
}

// drain reads on for a while after the answer, and keeps nothing: many callers
// look for an answer only when they have sent all, and would see a broken
// connection instead. One that asks first (Expect) needs no such help, and one
// that sends slowly gets none.
func drain(x *exchange, r *http.Request) {
	const most, patience = 4 * maxEventBody, 3 * time.Second
	if r.Header.Get("Expect") != "" {
		return
	}
	control := http.NewResponseController(x)
	if control.Flush() == nil && control.SetReadDeadline(time.Now().Add(patience)) == nil {
		_, _ = io.CopyN(io.Discard, r.Body, most) // whatever becomes of it, the answer is out
	}
}

func tooLarge(limit int) error {
	return domain.TooLarge(fmt.Sprintf("the body is over %d MB", limit>>20))
}

// checkMediaType lets JSON through, and what does not say what it is.
func checkMediaType(r *http.Request) error {
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return &unsupportedMedia{"send the body without a Content-Encoding"}
	}
	text := r.Header.Get("Content-Type")
	// curl's -d says that it sends a form, whatever it sends.
	if text == "" || text == "application/json" || text == "application/x-www-form-urlencoded" {
		return nil
	}
	media, params, err := mime.ParseMediaType(text)
	if err != nil || media != "application/json" && !strings.HasSuffix(media, "+json") {
		return &unsupportedMedia{"send Content-Type: application/json"}
	}
	if charset := params["charset"]; charset != "" && !strings.EqualFold(charset, "utf-8") && !strings.EqualFold(charset, "us-ascii") {
		return &unsupportedMedia{"send the body in UTF-8"}
	}
	return nil
}

// fields reads the fields of a body's object, each by its function, which gives
// what is wrong with the value: "" when nothing is.
type fields map[string]func(raw []byte) string

// read gives what is wrong with all of them. A field that is not among them is
// refused, so that a misspelt one never passes silently.
func (f fields) read(data []byte) ([]domain.FieldError, error) {
	var refused []domain.FieldError
	err := domain.ObjectFields(data, func(key string, raw []byte) error {
		message := "is not a field of this request"
		if set := f[key]; set != nil {
			message = set(raw)
		}
		if message != "" {
			refused = append(refused, domain.FieldError{Field: shown(key), Message: message})
		}
		return nil
	})
	return refused, err
}

// withRules adds to the fields that could not be read those that break a rule, so
// that a caller mends all in one go. What could not be read is named once.
func withRules(unread, rules []domain.FieldError) []domain.FieldError {
	named := make(map[string]bool, len(unread))
	for _, f := range unread {
		named[f.Field] = true
	}
	for _, f := range rules {
		whole, _, _ := strings.Cut(f.Field, ".") // batch, of batch.max_wait
		if !named[f.Field] && !named[whole] {
			unread = append(unread, f)
		}
	}
	return unread
}

// shown cuts what a caller sent to what can be shown.
func shown(text string) string {
	const most = 100
	if len(text) > most {
		text = text[:most] + "…"
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}

func isNull(raw []byte) bool { return string(raw) == "null" }

const (
	mustBeString = "must be a string"
	mustBeWhole  = "must be a whole number"
	mustBeBool   = "must be true or false"
	mustBeObject = "must be an object"
	mustBeUUID   = "must be a UUID"
)

// text reads a string; null is as good as leaving it out.
func text[T ~string](to *T) func([]byte) string {
	return func(raw []byte) string {
		if isNull(raw) {
			return ""
		}
		s, ok := domain.JSONText(raw)
		if !ok {
			return mustBeString
		}
		*to = T(s)
		return ""
	}
}

// asked reads a field that may be null by what reads a value.
func asked[T any](to *domain.Asked[T], read func(raw []byte) (T, string)) func([]byte) string {
	return func(raw []byte) string {
		if isNull(raw) {
			*to = domain.AskNull[T]()
			return ""
		}
		value, message := read(raw)
		*to = domain.Ask(value)
		return message
	}
}

func readText(raw []byte) (string, string) {
	s, ok := domain.JSONText(raw)
	if !ok {
		return "", mustBeString
	}
	return s, ""
}

func readBool(raw []byte) (bool, string) {
	switch string(raw) {
	case "true":
		return true, ""
	case "false":
		return false, ""
	}
	return false, mustBeBool
}

// readWhole reads a whole number, 3.0 and 3e2 included. One that no int holds is
// the nearest, which no range has in it.
func readWhole(raw []byte) (int, string) {
	if n, err := strconv.Atoi(string(raw)); err == nil {
		return n, ""
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	switch {
	case len(raw) == 0 || raw[0] != '-' && (raw[0] < '0' || raw[0] > '9'):
		return 0, mustBeWhole
	case err != nil && math.IsInf(f, 0), f > math.MaxInt32, f < math.MinInt32:
		return int(math.Copysign(math.MaxInt32, f)), ""
	case err != nil, f != math.Trunc(f):
		return 0, mustBeWhole
	}
	return int(f), ""
}

func readTexts(raw []byte) ([]string, string) {
	const message = "must be a list of strings"
	list := []string{}
	strings := true
	err := domain.ArrayElements(raw, func(_ int, raw []byte) error {
		s, ok := domain.JSONText(raw)
		strings = strings && ok
		list = append(list, s)
		return nil
	})
	if err != nil || !strings {
		return nil, message
	}
	return list, ""
}

// parseUUID takes the usual text form alone, of the forms that uuid.Parse knows.
func parseUUID(text string) (uuid.UUID, bool) {
	id, err := uuid.Parse(text)
	const usual = 36
	return id, err == nil && len(text) == usual && id != uuid.Nil
}
