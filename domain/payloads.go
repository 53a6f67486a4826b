package domain

import (
	"reflect"
	"slices"
	"strings"

	"github.com/medilab/webhooks/domain/strictjson"
)

// Payloads are what events hold and receivers answered, in the JSON of an answer: those who
// lack ScopePayloadsRead do not see it, and reading it is on record (DataRead).
type Payloads struct {
	// IDs are those of the events and calls whose payloads are there.
	IDs   []string
	edits []edit
}

// edit replaces a part of the JSON.
type edit struct {
	off, end int
	text     string
}

// payloadMembers name the members of objects that are payloads, in answers and in the log.
var payloadMembers = []string{
	"event_data", "payload", "request_headers", "response_headers", "response_body", "response_body_base64", "want", "got",
}

// IsPayload reports whether members of the name are payloads.
func IsPayload(member string) bool { return slices.Contains(payloadMembers, member) }

// holdsPayloads says of each stored name whether its events have members that are payloads.
var holdsPayloads = map[string]bool{}

// MayHoldPayloads reports whether events of the log with the stored name, or of the group (event.*),
// may hold payloads. A name that is unknown may. A webhook's filters, which may have members of these
// names, are its configuration.
func MayHoldPayloads(changeType string) bool {
	if holds, ok := holdsPayloads[changeType]; ok {
		return holds
	}
	known := false
	if group, ok := strings.CutSuffix(changeType, "*"); ok && group != "" {
		for name, holds := range holdsPayloads {
			if strings.HasPrefix(name, group) {
				if holds {
					return true
				}
				known = true
			}
		}
	}
	return !known
}

// hasPayload reports whether values of the type have a member that is a payload.
func hasPayload(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		return hasPayload(t.Elem())
	case reflect.Struct:
		for f := range t.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if IsPayload(name) || (f.IsExported() || f.Anonymous) && hasPayload(f.Type) {
				return true
			}
		}
	}
	return false
}

// Redacted is the member that marks an object in which payloads were withheld.
const Redacted = "redacted"

// FindPayloads finds the payloads in the JSON of an answer that may hold some.
func FindPayloads(data []byte) Payloads {
	var p Payloads
	if off := strictjson.SkipSpace(data, 0); off < len(data) {
		p.find(data, off, nil)
	}
	return p
}

// None reports whether there are no payloads.
func (p *Payloads) None() bool { return len(p.edits) == 0 }

// Withheld returns data, in which the payloads were found, with null instead of them; the
// objects that held them are marked.
func (p *Payloads) Withheld(data []byte) []byte {
	if p.None() {
		return data
	}
	const mark = 20
	out, done := make([]byte, 0, len(data)+mark*len(p.edits)), 0
	for _, e := range p.edits {
		out = append(append(out, data[done:e.off]...), e.text...)
		done = e.end
	}
	return append(out, data[done:]...)
}

// find looks through the value at off, and returns its end; off where it has none, as in a damaged
// log. ids are those of the objects that it is in.
func (p *Payloads) find(data []byte, off int, ids []string) int {
	var end int
	whole := true
	switch data[off] {
	case '[':
		end, whole = strictjson.Visit(data, off, func(m strictjson.Member) int { return p.find(data, m.Off, ids) })
	case '{':
		end, whole = p.findIn(data, off, slices.Clip(ids))
	default:
		whole = false
	}
	if !whole {
		return strictjson.SkipValue(data, off)
	}
	return end
}

// findIn is find for the members of the object at off.
func (p *Payloads) findIn(data []byte, off int, ids []string) (end int, whole bool) {
	found, last := false, 0 // the end of the last member
	end, whole = strictjson.Visit(data, off, func(m strictjson.Member) int {
		name := string(m.Key())
		isID, isList := name == "event_id" || name == "call_id", name == "event_ids" && data[m.Off] == '['
		payload := IsPayload(name)
		if isList {
			for one := range strictjson.Members(data, m.Off) {
				ids = appendText(ids, data[one.Off:one.End])
			}
		}
		if !isID && !payload {
			end := p.find(data, m.Off, ids)
			last = max(last, end)
			return end
		}
		end := strictjson.SkipValue(data, m.Off)
		if end == m.Off {
			return end
		}
		switch last = end; {
		case payload && data[m.Off] != 'n':
			found = true
			p.edits = append(p.edits, edit{m.Off, end, "null"})
		case isID:
			ids = appendText(ids, data[m.Off:end])
		}
		return end
	})
	if found {
		last = max(last, p.edits[len(p.edits)-1].end)
		p.edits = append(p.edits, edit{last, last, `,"` + Redacted + `":true`})
		p.add(ids)
	}
	return end, whole
}

func appendText(texts []string, data []byte) []string {
	if text, ok := JSONText(data); ok {
		return append(texts, text)
	}
	return texts
}

// add adds ids, each once: those of one object follow each other.
func (p *Payloads) add(ids []string) {
	for _, id := range ids {
		if from := max(0, len(p.IDs)-len(ids)); !slices.Contains(p.IDs[from:], id) {
			p.IDs = append(p.IDs, id)
		}
	}
}
