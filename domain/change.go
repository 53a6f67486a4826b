package domain

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sort"
)

// Change is one thing that happened, as the log keeps it: a domain event. (The
// word event alone means what the clinic emits; see EventTriggered.)
//
// A stored name never changes and is never used again for another shape; a
// field is only ever added. The golden files hold every one of them.
type Change interface {
	// ChangeType is the stored name, in the past tense: "webhook.registered".
	ChangeType() string
	// AppendJSON appends the stored form.
	AppendJSON(dst []byte) []byte
}

// codecs says how each stored name is read back. Each entry is registered
// beside the struct it reads.
var codecs = map[string]func(data []byte) (Change, error){}

func register[C Change](zero C) C {
	name := zero.ChangeType()
	if codecs[name] != nil {
		panic("domain: " + name + " is defined twice")
	}
	codecs[name] = func(data []byte) (Change, error) {
		var c C
		if err := json.Unmarshal(data, &c); err != nil {
			return nil, fmt.Errorf("decode %s: %w", name, err)
		}
		return c, nil
	}
	return zero
}

// Decode reads a stored event back. An unknown name or data that does not
// decode is an error, never a zero value.
func Decode(changeType string, data []byte) (Change, error) {
	decode := codecs[changeType]
	if decode == nil {
		return nil, fmt.Errorf("decode %q: no such event type", changeType)
	}
	return decode(data)
}

// ChangeTypes lists every stored name, sorted.
func ChangeTypes() []string {
	names := make([]string, 0, len(codecs))
	for name := range codecs {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// appendJSON is the plain way to a stored form, for what happens seldom.
// Nothing is HTML-escaped. The values are our own structs, which always encode.
func appendJSON(dst []byte, v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(fmt.Sprintf("domain: encode %T: %v", v, err))
	}
	return append(dst, bytes.TrimSuffix(b.Bytes(), []byte("\n"))...)
}
