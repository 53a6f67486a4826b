package http

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/medilab/webhooks/domain"
)

// describeMessages returns the AsyncAPI 3 document: a channel for each form of bodies, and
// in it a message for each type of the catalogue.
func (s *Server) describeMessages() schema {
	catalog := s.commands.Catalog
	types := append(catalog.Clinic(), catalog.System()...)
	schemas, channels, operations, messages := schema{"headers": headersSchema()}, schema{}, schema{}, schema{}
	for _, info := range types {
		schemas[string(info.Type)] = dataSchema(info)
	}
	for _, f := range forms {
		schemas[f.name] = f.body
		in := schema{}
		for name, m := range f.messages(types, f.examples(types)) {
			messages[name+"."+f.name] = m
			in[name] = schema{"$ref": "#/components/messages/" + name + "." + f.name}
		}
		channels[f.name] = schema{"address": nil, "title": f.summary, "description": "The url of each webhook is an address of it.", "messages": in}
		operations["send"+f.operation] = schema{
			"action": "send", "channel": schema{"$ref": "#/channels/" + f.name}, "summary": f.summary,
			"description": "A POST. A status from 200 to 299 ends the delivery; after any other it is tried again.",
			"bindings":    schema{"http": schema{"method": "POST", "bindingVersion": "0.3.0"}},
		}
	}
	return schema{
		"asyncapi": "3.0.0",
		"info": schema{
			"title": "MediLab Webhooks", "version": "1", "description": "What the URL of a webhook gets.",
			"contact": schema{"name": "The administrators of this installation"},
			"license": schema{"name": "Proprietary"},
			"tags":    []schema{{"name": tagReceivers, "description": "Services that take webhooks."}},
		},
		"defaultContentType": "application/json",
		"servers":            schema{"receiver": schema{"host": "{host}", "protocol": "https", "description": "The receiver of a webhook.", "variables": schema{"host": schema{"default": "crm.example.com"}}}},
		"channels":           channels,
		"operations":         operations,
		"components":         schema{"schemas": schemas, "messages": messages},
	}
}

// messages returns the form's message for each type, or that of several events.
func (f form) messages(types []domain.EventTypeInfo, examples map[string]json.RawMessage) map[string]schema {
	of := func(name, title string, payload schema) schema {
		m := schema{"name": name, "title": title, "summary": f.summary, "contentType": f.media, "headers": reference("headers"), "payload": payload}
		if body := examples[name]; body != nil {
			m["examples"] = []schema{{"name": "example", "payload": body}}
		}
		return m
	}
	if f.batch {
		batch := string(domain.BatchEventType)
		return map[string]schema{batch: of(batch, "Several events", reference(f.name))}
	}
	typeField, dataField := "event_type", "event_data"
	if f.version == domain.PayloadCloudEvents {
		typeField, dataField = "type", "data"
	}
	messages := map[string]schema{}
	for _, info := range types {
		own := schema{"type": "object", "properties": schema{typeField: schema{"const": info.Type}, dataField: reference(string(info.Type))}}
		messages[string(info.Type)] = of(string(info.Type), info.EN, schema{"allOf": []schema{reference(f.name), own}})
	}
	return messages
}

func headersSchema() schema {
	required, properties := []string{}, schema{}
	for _, h := range outgoingHeaders {
		properties[h.name] = schema{"type": "string", "description": h.text}
		if h.always {
			required = append(required, h.name)
		}
	}
	return schema{"type": "object", "required": required, "properties": properties}
}

// dataSchema returns the type's schema with its references led to where it stands in the document.
func dataSchema(info domain.EventTypeInfo) any {
	if info.Schema == nil {
		return schema{"type": "object", "description": info.EN}
	}
	var s any
	if err := json.Unmarshal(info.Schema, &s); err != nil {
		panic(err) // it compiled
	}
	return moved(s, "#/components/schemas/"+string(info.Type))
}

func moved(v any, to string) any {
	switch v := v.(type) {
	case map[string]any:
		delete(v, "$schema")
		delete(v, "$id")
		for _, key := range slices.Collect(maps.Keys(v)) {
			v[key] = moved(v[key], to)
		}
		if ref, ok := v["$ref"].(string); ok && strings.HasPrefix(ref, "#") {
			v["$ref"] = to + ref[1:]
		}
	case []any:
		for i := range v {
			v[i] = moved(v[i], to)
		}
	}
	return v
}
