package http

import (
	"fmt"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
)

// requests gives the schemas of what callers send. Their rules are the domain's:
// this page only tells them.
func requests(catalog domain.Catalog) map[string]schema {
	types := []string{}
	for _, info := range catalog.Clinic() {
		types = append(types, string(info.Type))
	}
	object := func(required []string, properties schema) schema {
		s := schema{"type": "object", "additionalProperties": false, "properties": properties}
		if len(required) > 0 {
			s["required"] = required
		}
		return s
	}
	webhook := func() schema { return webhookFields() }
	event := schema{
		"event_type":     schema{"type": "string", "enum": types},
		"event_data":     schema{"type": "object", "description": "what happened; delivered byte for byte as it came"},
		"source":         schema{"type": []string{"string", "null"}, "maxLength": 500, "description": "who says so"},
		"correlation_id": schema{"type": []string{"string", "null"}, "maxLength": 500, "description": "your own id of the matter, to look events up by"},
		"event_id": schema{
			"type": []string{"string", "null"}, "format": "uuid",
			"description": "makes the event accepted once: the same id with the same content answers as the first time, with another content it is 409",
		},
	}
	when := func(text string) schema {
		return schema{"type": []string{"string", "null"}, "format": "date-time", "description": text}
	}
	return map[string]schema{
		"NewWebhook":    object([]string{"name", "url", "events"}, webhook()),
		"WebhookChange": object(nil, webhook()),
		"NewEvent":      object([]string{"event_type", "event_data"}, event),
		"NewEvents": object([]string{"events"}, schema{
			"events": schema{"type": "array", "minItems": 1, "maxItems": commands.MaxBatch, "items": reference("NewEvent")},
		}),
		"Test": object([]string{"event_type"}, schema{
			"webhook_id": schema{"type": []string{"integer", "string", "null"}, "description": "the webhook of the path again, by number or UUID; may be left out"},
			"event_type": schema{"type": "string", "description": "a type of the catalogue"},
			"test_data":  schema{"type": []string{"object", "null"}, "default": schema{}},
		}),
		"SecretRotation": object(nil, schema{
			"secret":          schema{"type": []string{"string", "null"}, "description": "left out: a random one is made"},
			"overlap_seconds": schema{"type": []string{"integer", "null"}, "minimum": 0, "maximum": int(domain.MaxOverlap.Seconds()), "default": int(domain.DefaultOverlap.Seconds()), "description": "how long the secret before signs too"},
		}),
		"Backtest": object(nil, schema{
			"events": webhookFields()["events"], "filters": webhookFields()["filters"],
			"from": when("of the history to look through; left out: from its beginning"), "to": when("left out: to its end"),
		}),
		"Replay": object([]string{"from", "to"}, schema{
			"from":        schema{"type": "string", "format": "date-time", "description": "accepted at or after"},
			"to":          schema{"type": "string", "format": "date-time", "description": "accepted before"},
			"event_types": schema{"type": []string{"array", "null"}, "items": schema{"type": "string"}, "description": "types, groups or *; left out: all that the webhook asks for"},
			"only_failed": schema{"type": []string{"boolean", "null"}, "default": false, "description": "only deliveries that failed for good"},
			"dry_run":     schema{"type": []string{"boolean", "null"}, "default": false, "description": "only count"},
		}),
	}
}

func webhookFields() schema {
	number := func(least, most, otherwise int, text string) schema {
		return schema{"type": []string{"integer", "null"}, "minimum": least, "maximum": most, "default": otherwise, "description": text}
	}
	return schema{
		"name":        schema{"type": "string", "minLength": 1, "maxLength": 200},
		"description": schema{"type": []string{"string", "null"}, "default": ""},
		"url":         schema{"type": "string", "format": "uri", "description": "http or https, without user info or fragment"},
		"events": schema{
			"type": "array", "minItems": 1, "items": schema{"type": "string"}, "examples": [][]string{{"patient.created", "visit.*"}},
			"description": "event types, groups (`patient.*`), or `*` for every event of the clinic",
		},
		"headers": schema{
			"type": []string{"object", "null"}, "maxProperties": 50, "additionalProperties": schema{"type": "string", "maxLength": 4096}, "default": schema{},
			"description": fmt.Sprintf("sent with every call; answers show %q for every value, and sending that keeps what is stored", domain.Masked),
		},
		"secret":          schema{"type": []string{"string", "null"}, "maxLength": 256, "writeOnly": true, "description": "signs every call; none: calls are unsigned"},
		"max_retries":     number(0, 10, 3, "retries after the first attempt"),
		"retry_delay":     number(1, 86400, 60, "seconds before the second attempt; doubled before each that follows"),
		"timeout":         number(1, 300, 30, "seconds, for the whole call"),
		"filters":         schema{"type": []string{"object", "null"}, "description": "conditions on event_data that must all hold: paths with plain values, lists, `x_min`, `x_max`, or operators ($eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, $exists, $prefix, $regex, $or)", "examples": []schema{{"department": "cardiology", "amount_min": 1000}}},
		"batch":           schema{"type": []string{"object", "null"}, "required": []string{"max_events", "max_wait"}, "additionalProperties": false, "properties": schema{"max_events": schema{"type": "integer", "minimum": 1, "maximum": 1000}, "max_wait": schema{"type": "integer", "minimum": 1, "maximum": 300, "description": "seconds"}}, "description": "several events in one call; null: each has its own"},
		"payload_version": schema{"type": []string{"string", "null"}, "enum": []any{"1", "2", "cloudevents", nil}, "default": "1"},
		"is_active":       schema{"type": "boolean", "default": true},
	}
}
