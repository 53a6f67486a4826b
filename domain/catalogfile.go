package domain

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/medilab/webhooks/domain/eventschema"
)

// maxExtraTypes and maxTypeLength bound a catalogue file.
const (
	maxExtraTypes = 1000
	maxTypeLength = 100
)

var typeShape = regexp.MustCompile(`^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$`)

// catalogEntry is a type of a catalogue file.
type catalogEntry struct {
	Type        string       `json:"type"`
	Group       string       `json:"group"`
	RU          string       `json:"ru"`
	EN          string       `json:"en"`
	Description descriptions `json:"description"`

	Subject string          `json:"subject"`
	Example json.RawMessage `json:"example"`
	Schema  json.RawMessage `json:"schema"`
	Enforce bool            `json:"enforce"`

	line int // of the file
}

// info returns the entry as a type of its own.
func (e catalogEntry) info() EventTypeInfo {
	t := EventType(e.Type)
	return EventTypeInfo{
		Type: t, Group: cmp.Or(e.Group, t.Group()),
		RU:      cmp.Or(e.RU, e.Description.RU, e.EN, e.Description.EN, e.Type),
		EN:      cmp.Or(e.EN, e.Description.EN, e.RU, e.Description.RU, e.Type),
		Example: compact(e.Example), Schema: compact(e.Schema), Enforce: e.Enforce,
	}
}

// compact returns JSON without white space; null counts as absent.
func compact(raw json.RawMessage) json.RawMessage {
	var out bytes.Buffer
	if err := json.Compact(&out, raw); err != nil || out.String() == "null" {
		return nil
	}
	return out.Bytes()
}

// extends reports whether the entry only adds to a built-in type.
func (e catalogEntry) extends() bool {
	adds := e.Enforce || e.Subject != "" || compact(e.Example) != nil || compact(e.Schema) != nil
	return adds && e.RU == "" && e.EN == "" && e.Description == descriptions{}
}

// descriptions are written as one text, or as one in each language.
type descriptions struct {
	RU string `json:"ru"`
	EN string `json:"en"`
}

// UnmarshalJSON reads either.
func (d *descriptions) UnmarshalJSON(data []byte) error {
	if text, ok := JSONText(data); ok {
		d.RU, d.EN = text, text
		return nil
	}
	type both descriptions
	return decodeStrictly(data, (*both)(d), `description must be text, or {"ru": "...", "en": "..."}`)
}

func decodeStrictly(data []byte, to any, otherwise string) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(to)
	if err == nil {
		return nil
	}
	if _, name, unknown := strings.Cut(err.Error(), "unknown field "); unknown {
		return fmt.Errorf("it has no field %s", name)
	}
	return errors.New(otherwise)
}

// readCatalog takes the file apart.
func readCatalog(data []byte) (entries []catalogEntry, err error) {
	if err := CheckJSON(data); err != nil {
		return nil, err
	}
	const list = `it must be a list such as ["lab.sample_taken", {"type": "lab.result_ready", "ru": "Готов анализ", "en": "A result is ready"}]`
	if bytes.TrimSpace(data)[0] != '[' {
		return nil, errors.New(list)
	}
	read := 0 // bytes of data
	err = ArrayElements(data, func(i int, raw []byte) error {
		begin := read + bytes.Index(data[read:], raw) // only white space and a comma stand before it
		entry := catalogEntry{line: 1 + bytes.Count(data[:begin], []byte("\n"))}
		read = begin + len(raw)
		if name, ok := JSONText(raw); ok {
			entry.Type = name
		} else if err := decodeStrictly(raw, &entry, list); err != nil {
			return fmt.Errorf("[%d] (line %d): %w", i, entry.line, err)
		}
		entries = append(entries, entry)
		return nil
	})
	return entries, err
}

// ParseCatalog adds the event types of a file to the guide's. The file is a JSON list of
//
//	{"type": "lab.result_ready", "group": "lab", "ru": "Готов анализ", "en": "A result is ready",
//	 "example": {"result_id": 1}, "schema": {"required": ["result_id"]}, "enforce": true}
//
// where only the type is required: the group is the part before the first dot, and a
// description that is missing is that in the other language, else the type. The API's
// {"description": {"ru", "en"}} is understood too, and a type alone may stand as a string.
// Subject is where event_data names its patient, as MEDILAB_SUBJECT has it.
// An entry of one of the guide's types replaces its example, its schema or its subject; the guide's
// example goes if it does not fit the new schema.
// A type that exists already, of a shape that is not `group.name`, or in the service's
// own group `webhook` is refused, and so is any field not named here: a file with a slip
// stops the start instead of losing events later.
func ParseCatalog(data []byte) (Catalog, error) {
	entries, err := readCatalog(data)
	if err != nil {
		return Catalog{}, &Error{Kind: KindMalformed, Message: "the list of event types cannot be read", Err: err}
	}
	if len(entries) > maxExtraTypes {
		return Catalog{}, Invalid("types", fmt.Sprintf("must have at most %d entries", maxExtraTypes))
	}

	file := catalogFile{clinic: slices.Clone(builtinTypes()), seen: map[EventType]bool{}, enforced: map[EventType]*eventschema.Schema{},
		subjects: map[EventType]SubjectPaths{}}
	var refused []FieldError
	for i, entry := range entries {
		for _, wrong := range file.add(entry) {
			refused = append(refused, FieldError{Field: fmt.Sprintf("[%d].%s", i, wrong.Field), Message: fmt.Sprintf("%s (line %d)", wrong.Message, entry.line)})
		}
	}
	if err := CheckFields(refused); err != nil {
		return Catalog{}, err
	}
	catalog := newCatalog(file.clinic)
	catalog.enforced, catalog.subjects = file.enforced, file.subjects
	return catalog, nil
}

// catalogFile is what has been read of a file.
type catalogFile struct {
	clinic   []EventTypeInfo // with the guide's
	seen     map[EventType]bool
	enforced map[EventType]*eventschema.Schema
	subjects map[EventType]SubjectPaths
}

// add adds the type of an entry, or what the entry says of one of the guide's.
func (f *catalogFile) add(entry catalogEntry) []FieldError {
	info := entry.info()
	at := slices.IndexFunc(f.clinic, func(known EventTypeInfo) bool { return known.Type == info.Type })
	switch {
	case len(info.Type) > maxTypeLength || !typeShape.MatchString(string(info.Type)):
		return []FieldError{{Field: "type", Message: "must be lower-case words joined by dots, as in lab.result_ready"}}
	case info.Type.IsSystem():
		return []FieldError{{Field: "type", Message: "must not be in the group webhook, which is the service's own"}}
	case f.seen[info.Type], at >= 0 && !entry.extends():
		return []FieldError{{Field: "type", Message: "exists already"}}
	case entry.Subject != "" && CheckSubjectPaths(entry.Subject) != "":
		return []FieldError{{Field: "subject", Message: CheckSubjectPaths(entry.Subject)}}
	case info.Group != info.Type.Group():
		return []FieldError{{Field: "group", Message: "must be " + info.Type.Group() + ", the part of the type before the dot"}}
	}
	f.seen[info.Type] = true
	if entry.Subject != "" {
		f.subjects[info.Type] = ParseSubjectPaths(entry.Subject)
	}
	if at < 0 {
		f.clinic = append(f.clinic, info)
		return f.compile(&f.clinic[len(f.clinic)-1], true)
	}
	known := &f.clinic[at]
	known.Enforce = info.Enforce
	if info.Schema != nil {
		known.Schema = info.Schema
	}
	if info.Example != nil {
		known.Example = info.Example
	}
	return f.compile(known, info.Example != nil)
}

// compile checks the schema and the example of a type. If the file does not have the example
// itself, one that does not fit is dropped.
func (f *catalogFile) compile(info *EventTypeInfo, own bool) []FieldError {
	switch {
	case info.Example != nil && info.Example[0] != '{':
		return []FieldError{{Field: "example", Message: "must be a JSON object"}}
	case info.Schema == nil && info.Enforce:
		return []FieldError{{Field: "enforce", Message: "needs a schema"}}
	case info.Schema == nil:
		return nil
	}
	if info.Schema[0] != '{' {
		return []FieldError{{Field: "schema", Message: "must be a JSON object"}}
	}
	schema, err := eventschema.Compile(info.Schema)
	if err != nil {
		return []FieldError{{Field: "schema", Message: "is not a JSON Schema that can be used: " + err.Error()}}
	}
	if info.Enforce {
		f.enforced[info.Type] = schema
	}
	if info.Example == nil {
		return nil
	}
	found, err := schema.Check(info.Example, func(int) error { return nil })
	switch {
	case err == nil && found == nil:
		return nil
	case !own:
		info.Example = nil
		return nil
	case err != nil:
		return []FieldError{{Field: "example", Message: err.Error()}}
	}
	return fieldsAt("example", found)
}
