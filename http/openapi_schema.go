package http

import (
	"encoding/json"
	"reflect"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

// schema is a JSON Schema (2020-12), which OpenAPI 3.1 is made of.
type schema = map[string]any

// The schemas of answers are made from the very structs that are answered, so
// that they cannot say anything else. Those of requests are written out.

// formats are the types whose JSON is a text of some form.
var formats = map[reflect.Type]schema{
	reflect.TypeFor[moment]():            {"type": []string{"string", "null"}, "format": "date-time"},
	reflect.TypeFor[time.Time]():         {"type": "string", "format": "date-time"},
	reflect.TypeFor[uuid.UUID]():         {"type": "string", "format": "uuid"},
	reflect.TypeFor[domain.WebhookID]():  {"type": "string", "format": "uuid"},
	reflect.TypeFor[domain.EventID]():    {"type": "string", "format": "uuid"},
	reflect.TypeFor[domain.DeliveryID](): {"type": "string", "format": "uuid"},
	reflect.TypeFor[domain.CallID]():     {"type": "string", "format": "uuid"},
	reflect.TypeFor[domain.ReplayID]():   {"type": "string", "format": "uuid"},
	reflect.TypeFor[json.RawMessage]():   {"type": []string{"object", "array", "string", "number", "boolean", "null"}},
	reflect.TypeFor[[]byte]():            {"type": "string", "contentEncoding": "base64"},
}

// closedSets are the types of few values.
var closedSets = map[reflect.Type][]string{
	reflect.TypeFor[domain.PayloadVersion]():      {string(domain.PayloadV1), string(domain.PayloadV2), string(domain.PayloadCloudEvents)},
	reflect.TypeFor[domain.DeliveryState]():       {string(domain.DeliveryPending), string(domain.DeliveryDelivered), string(domain.DeliveryFailed), string(domain.DeliveryWithdrawn)},
	reflect.TypeFor[projections.CallStatus]():     {string(projections.CallSuccess), string(projections.CallFailed)},
	reflect.TypeFor[projections.AlertState]():     {string(projections.AlertOpen), string(projections.AlertResolved)},
	reflect.TypeFor[projections.ReplayState]():    {string(projections.ReplayRunning), string(projections.ReplayDone)},
	reflect.TypeFor[projections.BacktestChange](): {string(projections.BacktestGained), string(projections.BacktestLost), string(projections.BacktestUnchanged)},
	reflect.TypeFor[projections.Verdict](): {
		string(projections.VerdictDelivered), string(projections.VerdictPending), string(projections.VerdictFailed), string(projections.VerdictCancelled),
		string(projections.VerdictNotSubscribed), string(projections.VerdictInactive), string(projections.VerdictFiltered),
	},
}

// describing makes schemas of structs, each named one once, in components.
type describing struct {
	names      map[reflect.Type]string
	components map[string]schema
}

// answerOf gives the schema of T's JSON.
func answerOf[T any](d *describing) schema { return d.of(reflect.TypeFor[T]()) }

// listOf gives the schema of a page of T.
func listOf[T any](d *describing) schema {
	return schema{
		"type": "object", "required": []string{"items", "next_cursor"},
		"properties": schema{
			"items":       schema{"type": "array", "items": d.of(reflect.TypeFor[T]())},
			"next_cursor": schema{"type": []string{"string", "null"}, "description": "what to send as cursor for the next page; null: this is the last"},
		},
	}
}

func (d *describing) of(t reflect.Type) schema {
	if format, ok := formats[t]; ok {
		return format
	}
	if values, ok := closedSets[t]; ok {
		return schema{"type": "string", "enum": values}
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
	case reflect.Int, reflect.Int64:
		return schema{"type": "integer"}
	case reflect.Slice:
		return schema{"type": []string{"array", "null"}, "items": d.of(t.Elem())}
	case reflect.Map:
		return schema{"type": "object", "additionalProperties": d.of(t.Elem())}
	case reflect.Struct:
		return d.object(t)
	}
	panic("http: no schema for " + t.String())
}

func (d *describing) object(t reflect.Type) schema {
	name := d.names[t]
	if name == "" {
		return d.properties(t)
	}
	if d.components[name] == nil {
		d.components[name] = schema{} // so that a struct may hold itself
		d.components[name] = d.properties(t)
	}
	return reference(name)
}

func reference(name string) schema { return schema{"$ref": "#/components/schemas/" + name} }

func nullable(s schema) schema {
	if name, ok := s["type"].(string); ok {
		with := schema{}
		for key, value := range s {
			with[key] = value
		}
		with["type"] = []string{name, "null"}
		return with
	}
	return schema{"anyOf": []schema{s, {"type": "null"}}}
}

// properties follows encoding/json: tags name the fields, an embedded struct's
// are its holder's, and what may be left out is not required.
func (d *describing) properties(t reflect.Type) schema {
	properties, required := schema{}, []string{}
	d.collect(t, properties, &required)
	return schema{"type": "object", "properties": properties, "required": required}
}

func (d *describing) collect(t reflect.Type, properties schema, required *[]string) {
	for i := range t.NumField() {
		field := t.Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch {
		case field.Anonymous && name == "":
			d.collect(field.Type, properties, required)
		case name != "-" && name != "":
			properties[name] = d.of(field.Type)
			if !strings.Contains(options, "omit") {
				*required = append(*required, name)
			}
		}
	}
}
