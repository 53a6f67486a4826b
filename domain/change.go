package domain

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
)

// Change is one thing that happened, as the log keeps it: a domain event. (The
// word event alone means what the clinic emits; see EventTriggered.)
//
// A stored name never changes and is never used again for another shape; a
// field is only ever added. The golden files hold every one of them.
type Change interface {
	// ChangeType is the stored name, in the past tense: "webhook.registered".
	ChangeType() string
}

// decoders read each stored name back.
var decoders = map[string]func(data []byte) (Change, error){}

// register makes events readable by their stored names.
func register(zeros ...Change) struct{} {
	for _, zero := range zeros {
		name := zero.ChangeType()
		if decoders[name] != nil {
			panic("domain: " + name + " is defined twice")
		}
		decoders[name] = decoder(zero)
		holdsPayloads[name] = hasPayload(reflect.TypeOf(zero))
	}
	return struct{}{}
}

func decoder(zero Change) func(data []byte) (Change, error) {
	kind := reflect.TypeOf(zero)
	anyForm := func(data []byte) (Change, error) {
		p := reflect.New(kind)
		if err := json.Unmarshal(data, p.Interface()); err != nil {
			return nil, fmt.Errorf("decode %s: %w", zero.ChangeType(), err)
		}
		return p.Elem().Interface().(Change), nil
	}
	usual, ok := zero.(formed)
	if !ok {
		return anyForm
	}
	return func(data []byte) (Change, error) {
		if c, ok := readFormed(usual, data); ok {
			return c, nil
		}
		return anyForm(data)
	}
}

// Decode reads a stored event back. An unknown name or data that does not
// decode is an error, never a zero value.
func Decode(changeType string, data []byte) (Change, error) {
	decode := decoders[changeType]
	if decode == nil {
		return nil, fmt.Errorf("decode %q: no such event type", changeType)
	}
	return decode(data)
}

// AppendJSON appends the stored form of an event.
func AppendJSON(dst []byte, c Change) []byte {
	if c, ok := c.(formed); ok {
		return c.AppendJSON(dst)
	}
	return append(dst, EncodeJSON(c)...)
}

// EncodeJSON returns the JSON of v, one of our own structs, which always encode, without escaping HTML.
func EncodeJSON(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(fmt.Sprintf("domain: encode %T: %v", v, err))
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
