package domain

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
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
	if err := decoder.Decode(to); err != nil {
		return errors.New(otherwise)
	}
	return nil
}

// readCatalog takes the file apart.
func readCatalog(data []byte) (entries []catalogEntry, err error) {
	if err := CheckJSON(data); err != nil {
		return nil, err
	}
	const list = `it must be a list such as ["lab.sample_taken", {"type": "lab.result_ready", "ru": "Готов анализ", "en": "A result is ready"}]`
	if data = bytes.TrimSpace(data); data[0] != '[' {
		return nil, errors.New(list)
	}
	err = ArrayElements(data, func(i int, raw []byte) error {
		var entry catalogEntry
		if name, ok := JSONText(raw); ok {
			entry.Type = name
		} else if err := decodeStrictly(raw, &entry, list); err != nil {
			return fmt.Errorf("[%d]: %w", i, err)
		}
		entries = append(entries, entry)
		return nil
	})
	return entries, err
}

// ParseCatalog adds the event types of a file to the guide's. The file is a JSON list of
//
//	{"type": "lab.result_ready", "group": "lab", "ru": "Готов анализ", "en": "A result is ready"}
//
// where only the type is required: the group is the part before the first dot, and a
// description that is missing is that in the other language, else the type. The API's
// {"description": {"ru", "en"}} is understood too, and a type alone may stand as a string.
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

	seen := make(map[EventType]bool, len(entries))
	for _, info := range builtinTypes {
		seen[info.Type] = true
	}
	var refused []FieldError
	extra := make([]EventTypeInfo, 0, len(entries))
	for i, entry := range entries {
		info := EventTypeInfo{
			Type: EventType(entry.Type), Group: entry.Group,
			RU: cmp.Or(entry.RU, entry.Description.RU, entry.EN, entry.Description.EN, entry.Type),
			EN: cmp.Or(entry.EN, entry.Description.EN, entry.RU, entry.Description.RU, entry.Type),
		}
		if info.Group == "" {
			info.Group = info.Type.Group()
		}
		field, message := "", ""
		switch {
		case len(info.Type) > maxTypeLength || !typeShape.MatchString(string(info.Type)):
			field, message = "type", "must be lower-case words joined by dots, as in lab.result_ready"
		case info.Type.IsSystem():
			field, message = "type", "must not be in the group webhook, which is the service's own"
		case seen[info.Type]:
			field, message = "type", "exists already"
		case info.Group != info.Type.Group():
			field, message = "group", "must be "+info.Type.Group()+", the part of the type before the dot"
		}
		if message != "" {
			refused = append(refused, FieldError{fmt.Sprintf("[%d].%s", i, field), message})
			continue
		}
		seen[info.Type] = true
		extra = append(extra, info)
	}
	if err := CheckFields(refused); err != nil {
		return Catalog{}, err
	}
	return newCatalog(extra), nil
}
