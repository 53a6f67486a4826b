package http

import (
	"cmp"
	"encoding/json"
	"maps"
	"math"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/suggest"
)

// object declares the JSON object of a request that is read into a T. How a field is
// read and how it is described stand together; its rules are the domain's.
type object[T any] struct {
	name     string // in the API's description
	what     string // in messages; "": this request
	fields   []field[T]
	readOnly []string // names that answers have and requests leave out, or repeat from current
	current  answered // what an answer shows now; nil: there is nothing yet
	partial  bool     // no field is required
	optional bool     // the body may be left out
	checked  bool     // the rules are checked here, by no command
	limit    int      // bytes of the body
}

// answered are the fields of an answer.
type answered map[string]json.RawMessage

// has reports whether the field has that value, in any of the ways to write it. One that is not
// there is a time, or null.
func (a answered) has(key string, raw []byte) bool {
	shown, known := a[key]
	var is, sent any
	var since, until time.Time
	return !known && json.Unmarshal(raw, &until) == nil || json.Unmarshal(shown, &is) == nil && json.Unmarshal(raw, &sent) == nil && reflect.DeepEqual(is, sent) ||
		json.Unmarshal(shown, &since) == nil && json.Unmarshal(raw, &until) == nil && since.Equal(until)
}

// field declares a field of an object.
type field[T any] struct {
	name     string
	schema   schema
	required bool
	read     func(to *T, raw []byte) faults
}

// faults are what is wrong with a value; the field of each is relative to the value.
type faults []domain.FieldError

// fault is what is wrong with a whole value.
func fault(message string) faults { return faults{{Message: message}} }

// within returns the faults of a place of the value.
func (f faults) within(place string) faults {
	for i := range f {
		f[i].Within(place)
	}
	return f
}

// requestBody is an object of any type.
type requestBody interface {
	describe(d *describer) (name string, optional bool)
	most() int // bytes of it
}

// jsonType is a JSON type of values: its schema, and how it is read.
type jsonType[V any] struct {
	schema schema
	read   func(raw []byte) (V, faults)
}

// plain is a field of which null counts as absent.
func plain[T, V any](name string, t jsonType[V], of func(*T) *V, more schema) field[T] {
	return field[T]{name: name, schema: merged(nullable(t.schema), more), read: func(to *T, raw []byte) (wrong faults) {
		if isNull(raw) {
			return nil
		}
		*of(to), wrong = t.read(raw)
		return wrong
	}}
}

// asked is a field of which null clears the value, back to its default.
func asked[T, V any](name string, t jsonType[V], of func(*T) *domain.Asked[V], more schema) field[T] {
	return field[T]{name: name, schema: merged(nullable(t.schema), more), read: func(to *T, raw []byte) (wrong faults) {
		if isNull(raw) {
			*of(to) = domain.AskNull[V]()
			return nil
		}
		value, wrong := t.read(raw)
		*of(to) = domain.Ask(value)
		return wrong
	}}
}

// must returns the field as one that is required.
func (f field[T]) must() field[T] {
	f.required = true
	return f.notNull()
}

// notNull returns the field described as one that the rules refuse null of.
func (f field[T]) notNull() field[T] {
	f.schema = maps.Clone(f.schema)
	if types, ok := f.schema["type"].([]string); ok && len(types) == 2 {
		f.schema["type"] = types[0]
	}
	return f
}

func merged(s, more schema) schema {
	s = maps.Clone(s)
	maps.Copy(s, more)
	return s
}

// describe adds the object's schema to the components.
func (o object[T]) describe(d *describer) (name string, optional bool) {
	d.component(o.name, o.name, o.schema)
	return o.name, o.optional
}

func (o object[T]) most() int { return o.limit }

func (o object[T]) schema() schema {
	properties, required := schema{}, []string{}
	for _, f := range o.fields {
		properties[f.name] = f.schema
		if f.required && !o.partial {
			required = append(required, f.name)
		}
	}
	for _, name := range o.readOnly {
		if o.partial {
			properties[name] = schema{"readOnly": true, "description": "as in answers, or left out"}
		}
	}
	s := schema{"type": "object", "additionalProperties": false, "properties": properties}
	if len(required) > 0 {
		s["required"] = required
	}
	return s
}

// read reads the request's body. Fields that could not be read are refused together with
// what rules returns for the rest, so that a caller corrects all in one go; when all could
// be read, commands mostly check the rules.
func (o object[T]) read(x *request, r *http.Request, to *T, rules func() []domain.FieldError) error {
	data, err := x.readJSON(r, o.limit, o.optional)
	if err != nil {
		return err
	}
	refused, err := o.parse(data, to)
	switch {
	case err != nil:
		return err
	case len(refused) > 0, o.checked:
		return domain.CheckFields(withRules(refused, rules()))
	}
	return nil
}

// parse reads an object, and returns which of its fields are wrong. An unknown one is, so
// that a misspelt name never passes silently.
func (o object[T]) parse(data []byte, to *T) (refused []domain.FieldError, err error) {
	err = domain.ObjectFields(data, func(key string, raw []byte) error {
		refused = append(refused, o.parseField(to, key, raw)...)
		return nil
	})
	return refused, err
}

func (o object[T]) parseField(to *T, key string, raw []byte) faults {
	for i := range o.fields {
		if o.fields[i].name == key {
			return o.fields[i].read(to, raw).within(key)
		}
	}
	if slices.Contains(o.readOnly, key) {
		switch {
		case o.current == nil:
			return fault("is read-only; leave it out").within(key)
		case !o.current.has(key, raw):
			return fault("is read-only and has another value now; leave it out").within(key)
		}
		return nil
	}
	names := make([]string, len(o.fields))
	for i, f := range o.fields {
		names[i] = f.name
	}
	message := "is not a field of " + cmp.Or(o.what, "this request") + suggest.DidYouMean(suggest.Nearest(key, names))
	return faults{{Field: shown(key), Message: message, Public: "*"}}
}

// jsonType is the type of a field that holds such an object.
func (o object[T]) jsonType() jsonType[T] {
	return jsonType[T]{o.schema(), func(raw []byte) (v T, wrong faults) {
		refused, err := o.parse(raw, &v)
		if err != nil {
			return v, fault(mustBeObject)
		}
		return v, faults(refused).within(".")
	}}
}

// withRules adds to the fields that could not be read those that break a rule. A field is
// named once.
func withRules(unread, rules []domain.FieldError) []domain.FieldError {
	named := make(map[string]bool, len(unread))
	for _, f := range unread {
		named[f.Field] = true
	}
	for _, f := range rules {
		covered := named[f.Field]
		for i := range f.Field { // batch, of batch.max_wait
			covered = covered || f.Field[i] == '.' && named[f.Field[:i]]
		}
		if !covered {
			unread = append(unread, f)
		}
	}
	return unread
}

// noRules is for objects whose rules are checked when all of them could be read.
func noRules() []domain.FieldError { return nil }

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
	mustBeObject = "must be an object"
	mustBeUUID   = "must be a UUID"
)

// The JSON types of fields.
var (
	jsonText    = textType[string]()
	jsonTexts   = textsType[string]()
	jsonWhole   = jsonType[int]{schema{"type": "integer"}, readWhole}
	jsonSeconds = jsonType[time.Duration]{jsonWhole.schema, readSeconds}
	jsonNumber  = jsonType[float64]{schema{"type": "number"}, readNumber}
	jsonBool    = jsonType[bool]{schema{"type": "boolean"}, readBool}
	jsonNot     = jsonType[bool]{schema{"type": "boolean"}, func(raw []byte) (bool, faults) { v, wrong := readBool(raw); return !v, wrong }}
	jsonTime    = jsonType[time.Time]{schema{"type": "string", "format": "date-time"}, readTime}
	jsonEventID = jsonType[domain.EventID]{schema{"type": "string", "format": "uuid"}, readEventID}
	jsonFilters = jsonType[json.RawMessage]{jsonObject, readFilters}
	// jsonRaw are the body's own bytes, which are gone when the request ends.
	jsonRaw = jsonType[json.RawMessage]{jsonObject, func(raw []byte) (json.RawMessage, faults) { return raw, nil }}
)

func textType[V ~string]() jsonType[V] {
	return jsonType[V]{schema{"type": "string"}, func(raw []byte) (V, faults) {
		s, ok := domain.JSONText(raw)
		if !ok {
			return "", fault("must be text")
		}
		return V(s), nil
	}}
}

func readBool(raw []byte) (bool, faults) {
	switch string(raw) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, fault("must be true or false")
}

// readWhole reads a whole number, 3.0 and 3e2 included. One of more than 32 bits is read as the
// nearest that has no more, which every range excludes, and seconds of which are a Duration.
func readWhole(raw []byte) (int, faults) {
	f, wrong := readNumber(raw)
	switch {
	case f > math.MaxInt32, f < math.MinInt32:
		return int(math.Copysign(math.MaxInt32, f)), nil
	case wrong == nil && f == math.Trunc(f):
		return int(f), nil
	}
	return 0, fault("must be a whole number")
}

func readSeconds(raw []byte) (time.Duration, faults) {
	n, wrong := readWhole(raw)
	return time.Duration(n) * time.Second, wrong
}

// readNumber reads any number; one beyond a float64 is infinite, which every range excludes.
func readNumber(raw []byte) (float64, faults) {
	f, err := strconv.ParseFloat(string(raw), 64)
	if len(raw) == 0 || raw[0] != '-' && (raw[0] < '0' || raw[0] > '9') || err != nil && !math.IsInf(f, 0) {
		return 0, fault("must be a number")
	}
	return f, nil
}

func textsType[V ~string]() jsonType[[]V] {
	return jsonType[[]V]{schema{"type": "array", "items": schema{"type": "string"}}, func(raw []byte) ([]V, faults) {
		list, strings := []V{}, true
		err := domain.ArrayElements(raw, func(_ int, raw []byte) error {
			s, ok := domain.JSONText(raw)
			list, strings = append(list, V(s)), strings && ok
			return nil
		})
		if err != nil || !strings {
			return nil, fault("must be a list of strings")
		}
		return list, nil
	}}
}

func readTime(raw []byte) (time.Time, faults) {
	text, _ := domain.JSONText(raw)
	at, ok := domain.ParseTime(text)
	if !ok {
		return at, fault(mustBeTime)
	}
	return at, nil
}

func readEventID(raw []byte) (domain.EventID, faults) {
	text, ok := domain.JSONText(raw)
	id, isUUID := parseUUID(text)
	switch {
	case text == uuid.Nil.String():
		return domain.EventID{}, fault(domain.NilUUID)
	case !ok || !isUUID:
		return domain.EventID{}, fault(mustBeUUID)
	}
	return domain.EventID(id), nil
}

func readFilters(raw []byte) (json.RawMessage, faults) {
	if raw[0] != '{' {
		return nil, fault(mustBeObject)
	}
	return slices.Clone(raw), nil
}

// parseUUID accepts the usual text form only, of those that uuid.Parse does.
func parseUUID(text string) (uuid.UUID, bool) {
	id, err := uuid.Parse(text)
	const usual = 36
	return id, err == nil && len(text) == usual && id != uuid.Nil
}
