package http

import (
	"encoding/json"
	"maps"
	"reflect"
	"strings"
	"time"
	"unicode"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

// schema is a JSON Schema (2020-12), as in OpenAPI 3.1. Those of requests are declared
// with their fields; those of answers are derived from the structs that are encoded.
type schema = map[string]any

// answer returns the schema of an operation's answer.
type answer func(d *describer) schema

// answerOf is the answer of T's JSON.
func answerOf[T any](d *describer) schema { return d.of(reflect.TypeFor[T]()) }

// listOf is the answer of a page of T.
func listOf[T any](d *describer) schema {
	return schema{
		"type": "object", "required": []string{"items", "next_cursor"},
		"properties": schema{
			"items":       schema{"type": "array", "items": d.of(reflect.TypeFor[T]())},
			"next_cursor": schema{"type": []string{"string", "null"}, "description": "what to send as cursor for the next page; null: this is the last"},
		},
	}
}

// text is the answer of text that is not JSON.
func text(*describer) schema { return schema{"type": "string"} }

// anObject is the answer of an object that is described elsewhere.
func anObject(*describer) schema { return schema{"type": "object"} }

// special are the types whose JSON is not that of their kind.
var special = map[reflect.Type]schema{
	reflect.TypeFor[projections.Acknowledgement](): {"anyOf": []schema{{"type": "boolean"}, {"type": "string", "enum": []string{"unknown"}}}},
	reflect.TypeFor[moment]():                      {"type": []string{"string", "null"}, "format": "date-time"},
	reflect.TypeFor[time.Time]():                   {"type": "string", "format": "date-time"},
	reflect.TypeFor[json.RawMessage]():             {}, // any value
	reflect.TypeFor[[]byte]():                      {"type": "string", "contentEncoding": "base64"},
	reflect.TypeFor[projections.Cursor]():          {"type": []string{"string", "null"}},

	reflect.TypeFor[domain.Auth](): auth.schema(),

	reflect.TypeFor[domain.PayloadVersion]():  enum(domain.PayloadV1, domain.PayloadV2, domain.PayloadCloudEvents),
	reflect.TypeFor[domain.OrderOnFailure]():  enum(domain.OrderSkip, domain.OrderBlock),
	reflect.TypeFor[domain.DeliveryState]():   enum(domain.DeliveryPending, domain.DeliveryDelivered, domain.DeliveryFailed, domain.DeliveryWithdrawn),
	reflect.TypeFor[projections.CallStatus](): enum(projections.CallSuccess, projections.CallFailed),
	reflect.TypeFor[projections.AlertState](): enum(projections.AlertOpen, projections.AlertResolved),
	reflect.TypeFor[domain.ReplayKind]():      enum(domain.KindReplay, domain.KindRetry),
	reflect.TypeFor[domain.ReplayState](): enum(domain.ReplayStateCounting, domain.ReplayStateRunning, domain.ReplayStatePaused,
		domain.ReplayStateCancelled, domain.ReplayStateCompleted),
	reflect.TypeFor[projections.BacktestChange](): enum(projections.BacktestGained, projections.BacktestLost, projections.BacktestUnchanged),
	reflect.TypeFor[projections.Verdict]():        enum(projections.Verdicts...),
	reflect.TypeFor[projections.SentKind]():       enum(projections.SentByDispatch, projections.SentByReplay, projections.SentByTest),
}

func enum[T ~string](values ...T) schema { return schema{"type": "string", "enum": values} }

// describer collects the schemas of structs and of requests as named components.
type describer struct {
	components map[string]schema
	sources    map[string]any // what each is made of
}

// component returns a reference to the component, and makes it if it is the first.
func (d *describer) component(name string, source any, make func() schema) schema {
	if d.components[name] == nil {
		d.sources[name] = source
		d.components[name] = schema{} // ends the recursion of a struct that holds itself
		d.components[name] = make()
	}
	if d.sources[name] != source {
		panic("http: two schemas are named " + name)
	}
	return reference(name)
}

func reference(name string) schema { return schema{"$ref": "#/components/schemas/" + name} }

func (d *describer) of(t reflect.Type) schema {
	if s, ok := special[t]; ok {
		return s
	}
	switch t.Kind() {
	case reflect.Pointer:
		return nullable(d.of(t.Elem()))
	case reflect.Bool:
		return schema{"type": "boolean"}
	case reflect.String:
		return schema{"type": "string"}
	case reflect.Float64:
		return schema{"type": "number"}
	case reflect.Int, reflect.Int64, reflect.Uint32:
		return schema{"type": "integer"}
	case reflect.Array: // of bytes, an id
		return schema{"type": "string", "format": "uuid"}
	case reflect.Slice:
		return schema{"type": "array", "items": d.of(t.Elem())}
	case reflect.Map:
		return schema{"type": "object", "additionalProperties": d.of(t.Elem())}
	case reflect.Struct:
		return d.component(componentName(t), t, func() schema { return d.properties(t) })
	}
	panic("http: no schema for " + t.String())
}

// componentName is the type's name, without the View that those of this package end in.
func componentName(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[projections.Backtest]():
		return "BacktestResult" // Backtest and Replay are requests
	case reflect.TypeFor[projections.Replay]():
		return "ReplayProgress"
	case reflect.TypeFor[projections.Status]():
		return "ReadModel"
	}
	name := []rune(strings.TrimSuffix(t.Name(), "View"))
	name[0] = unicode.ToUpper(name[0])
	return string(name)
}

// nullable returns a schema that null fits too.
func nullable(s schema) schema {
	name, ok := s["type"].(string)
	switch {
	case s["oneOf"] != nil, len(s) == 0: // null is one of them
		return s
	case !ok:
		return schema{"anyOf": []schema{s, {"type": "null"}}}
	}
	s = maps.Clone(s)
	s["type"] = []string{name, "null"}
	return s
}

// properties follows encoding/json: tags name the fields, an embedded struct's fields are
// its holder's, and what may be left out is not required. The tag schema says what the
// type does not: that JSON is an object, or that the value may be null.
func (d *describer) properties(t reflect.Type) schema {
	properties, required := schema{}, []string{}
	for _, field := range reflect.VisibleFields(t) {
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		properties[name] = d.of(field.Type)
		if domain.IsPayload(name) {
			properties[domain.Redacted] = schema{"type": "boolean", "description": "true: the token lacks payloads:read, and what the object holds of payloads is null"}
		}
		says := field.Tag.Get("schema")
		if strings.Contains(says, "object") {
			properties[name] = jsonObject
		}
		if strings.Contains(says, "null") || domain.IsPayload(name) {
			properties[name] = nullable(properties[name].(schema))
		}
		if !strings.Contains(options, "omit") {
			required = append(required, name)
		}
	}
	return schema{"type": "object", "properties": properties, "required": required}
}
