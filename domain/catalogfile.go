package domain

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
)

// maxExtraTypes and maxTypeLength bound a catalogue file.
const (
	maxExtraTypes = 1000
	maxTypeLength = 100
)

var typeShape = regexp.MustCompile(`^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$`)

// ParseCatalog adds the event types of a file to the guide's. The file is a JSON list of
//
//	{"type": "lab.result_ready", "group": "lab", "ru": "Готов анализ", "en": "A result is ready"}
//
// where group may be left out (it is the part before the first dot), and one of ru and
// en. A type that exists already, of a shape that is not `group.name`, or in the service's
// own group `webhook` is refused, and so is any field not named here: a file with a slip
// stops the start instead of losing events later.
func ParseCatalog(data []byte) (Catalog, error) {
	var entries []struct {
		Type  string `json:"type"`
		Group string `json:"group"`
		RU    string `json:"ru"`
		EN    string `json:"en"`
	}
	if err := CheckJSON(data); err != nil {
		return Catalog{}, &Error{Kind: KindMalformed, Message: "the list of event types cannot be read", Err: err}
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&entries); err != nil {
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
		info := EventTypeInfo{Type: EventType(entry.Type), Group: entry.Group, RU: entry.RU, EN: entry.EN}
		if info.Group == "" {
			info.Group = info.Type.Group()
		}
		if info.RU == "" {
			info.RU = info.EN
		}
		if info.EN == "" {
			info.EN = info.RU
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
		case info.RU == "":
			field, message = "ru", "or en must describe the type"
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
