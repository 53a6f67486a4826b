package domain

import (
	"embed"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/medilab/webhooks/domain/eventschema"
	"github.com/medilab/webhooks/domain/suggest"
)

// EventType names what happened: a group, a dot and a past-tense name (`patient.created`).
type EventType string

// The service's own event types. They are made by the service alone, never triggered by
// a caller, and reach only webhooks that name them or `webhook.*`: `*` is the clinic's
// events (contract section 5).
const (
	AlertRaised   EventType = "webhook.alert_raised"
	AlertResolved EventType = "webhook.alert_resolved"

	DeliveryGivenUp EventType = "webhook.delivery_given_up"
)

const systemGroup = "webhook"

// Group is the part before the first dot; what `patient.*` subscribes to.
func (t EventType) Group() string {
	group, _, _ := strings.Cut(string(t), ".")
	return group
}

// IsSystem reports whether t is one of the service's own types.
func (t EventType) IsSystem() bool { return t.Group() == systemGroup }

// EventTypeInfo is one line of the catalogue.
type EventTypeInfo struct {
	Type    EventType
	Group   string
	RU      string          // description in Russian; the guide's words for the built-in types
	EN      string          // description in English
	Example json.RawMessage // of event_data; nil: none
	Schema  json.RawMessage // JSON Schema of event_data, which Example fits; nil: none
	Enforce bool            // event data that break the schema are refused
}

// eventTypeFiles have the form of a catalogue file (ParseCatalog).
//
//go:embed eventtypes/*.json
var eventTypeFiles embed.FS

// builtinTypes are the 25 types of the guide, in its order and with its words.
var builtinTypes = sync.OnceValue(func() []EventTypeInfo {
	return embeddedTypes("patient", "appointment", "visit", "queue", "payment", "user", "system")
})

var systemTypes = sync.OnceValue(func() []EventTypeInfo { return embeddedTypes(systemGroup) })

func embeddedTypes(groups ...string) (types []EventTypeInfo) {
	for _, group := range groups {
		file, err := eventTypeFiles.ReadFile("eventtypes/" + group + ".json")
		if err != nil {
			panic(err) // it is embedded
		}
		entries, err := readCatalog(file)
		if err != nil {
			panic("domain: eventtypes/" + group + ".json: " + err.Error())
		}
		for _, entry := range entries {
			types = append(types, entry.info())
		}
	}
	return types
}

// Catalog knows every event type: the guide's, those that a clinic added, and the
// service's own. It never changes once made and is safe for concurrent use. The zero
// value knows no type; BuiltinCatalog and ParseCatalog make useful ones.
type Catalog struct {
	clinic []EventTypeInfo
	byType map[EventType]EventTypeInfo
	groups []string // of every type, the service's own last

	enforced map[EventType]*eventschema.Schema
	subjects map[EventType]SubjectPaths // of types that have their own
}

// BuiltinCatalog has the guide's types and nothing added.
func BuiltinCatalog() Catalog { return newCatalog(builtinTypes()) }

func newCatalog(clinic []EventTypeInfo) Catalog {
	c := Catalog{clinic: clinic, byType: make(map[EventType]EventTypeInfo, len(clinic)+len(systemTypes()))}
	for _, info := range slices.Concat(c.clinic, systemTypes()) {
		c.byType[info.Type] = info
		if !slices.Contains(c.groups, info.Group) {
			c.groups = append(c.groups, info.Group)
		}
	}
	return c
}

// With returns the catalogue with the types added that it does not know.
func (c Catalog) With(types []EventType) Catalog {
	all := slices.Clone(c.clinic)
	for _, t := range types {
		if _, known := c.byType[t]; !known {
			all = append(all, EventTypeInfo{Type: t, Group: t.Group(), RU: string(t), EN: string(t)})
		}
	}
	with := newCatalog(all)
	with.enforced = c.enforced
	with.subjects = c.subjects
	return with
}

// Clinic lists the types that callers trigger: the guide's in its order, then the added
// ones. The list is the caller's to keep.
func (c Catalog) Clinic() []EventTypeInfo { return slices.Clone(c.clinic) }

// System lists the service's own types, which can be subscribed to and not triggered.
func (c Catalog) System() []EventTypeInfo { return slices.Clone(systemTypes()) }

// Find looks a type up, the service's own included.
func (c Catalog) Find(t EventType) (EventTypeInfo, bool) {
	info, ok := c.byType[t]
	return info, ok
}

// SubjectPaths returns where events of type t name their subjects, by usual unless the
// type says it. One that is not known, as of what is parked, may be any type.
func (c Catalog) SubjectPaths(t EventType, usual SubjectPaths) SubjectPaths {
	if own, ok := c.subjects[t]; ok {
		return own
	}
	if _, known := c.byType[t]; known {
		return usual
	}
	paths := slices.Clone(usual)
	for _, t := range slices.Sorted(maps.Keys(c.subjects)) {
		paths = append(paths, c.subjects[t]...)
	}
	return paths
}

// Known reports whether a caller may trigger events of type t.
func (c Catalog) Known(t EventType) bool {
	info, ok := c.byType[t]
	return ok && info.Group != systemGroup
}

// Enforces reports whether event data of type t must fit a schema.
func (c Catalog) Enforces(t EventType) bool { return c.enforced[t] != nil }

// DataFields returns what of the event's data breaks the schema of its type, if that is
// enforced. It calls spend before each part of its work, whose error it returns
// (eventschema.Schema.Check). The data has passed CheckJSON.
func (c Catalog) DataFields(e EventTriggered, spend func(work int) error) ([]FieldError, error) {
	const field = "event_data"
	schema := c.enforced[EventType(e.EventType)]
	if schema == nil {
		return nil, nil
	}
	found, err := schema.Check(e.EventData, spend)
	if errors.Is(err, eventschema.ErrTooCostly) {
		return []FieldError{{Field: field, Message: err.Error()}}, nil
	}
	return fieldsAt(field, found), err
}

func fieldsAt(field string, found []eventschema.Violation) (refused []FieldError) {
	for _, v := range found {
		refused = append(refused, FieldError{Field: field + v.Path, Message: v.Message, Public: field + v.Public})
	}
	return refused
}

// CheckEventType returns the reason, under the name event_type, why a caller cannot trigger
// events of this type, if any.
func (c Catalog) CheckEventType(t EventType) []FieldError {
	const field = "event_type"
	switch {
	case c.Known(t):
		return nil
	case t == "":
		return []FieldError{{Field: field, Message: "is required"}}
	case t.IsSystem():
		return []FieldError{{Field: field, Message: "names an event of the service itself, which cannot be triggered"}}
	}
	return []FieldError{{Field: field, Message: "is not a known event type" + suggest.DidYouMean(c.Suggest(string(t)))}}
}

// Suggest returns the known type nearest to a misspelt one, or "" if none is near.
func (c Catalog) Suggest(unknown string) string {
	candidates := make([]string, len(c.clinic))
	for i, info := range c.clinic {
		candidates[i] = string(info.Type)
	}
	return nearestType(unknown, candidates)
}

// nearestType is suggest.Nearest for event types: where the group is right, any of it is near.
func nearestType(typed string, candidates []string) string {
	if best := suggest.Nearest(typed, candidates); best != "" || len(typed) > suggest.MaxLength {
		return best
	}
	group, name, _ := strings.Cut(strings.ToLower(strings.TrimSpace(typed)), ".")
	best, bestDistance := "", 0
	for _, candidate := range candidates {
		of, known, _ := strings.Cut(candidate, ".")
		if of != group {
			continue
		}
		if d := suggest.Distance(name, known); best == "" || d < bestDistance {
			best, bestDistance = candidate, d
		}
	}
	return best
}
