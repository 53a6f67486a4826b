package domain

import (
	"slices"
	"strings"

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
	Type  EventType
	Group string
	RU    string // description in Russian; the guide's words for the built-in types
	EN    string // description in English
}

// builtinTypes are the 25 types of the guide, in its order and with its words.
var builtinTypes = []EventTypeInfo{
	{"patient.created", "patient", "Создан новый пациент", "A new patient was created"},
	{"patient.updated", "patient", "Обновлена информация о пациенте", "A patient's information was updated"},
	{"patient.deleted", "patient", "Пациент удален", "A patient was deleted"},

	{"appointment.created", "appointment", "Создана новая запись", "A new appointment was created"},
	{"appointment.updated", "appointment", "Запись изменена", "An appointment was changed"},
	{"appointment.cancelled", "appointment", "Запись отменена", "An appointment was cancelled"},
	{"appointment.completed", "appointment", "Запись завершена", "An appointment was completed"},
	{"visit.created", "visit", "Создан новый визит", "A new visit was created"},
	{"visit.updated", "visit", "Визит обновлен", "A visit was updated"},
	{"visit.completed", "visit", "Визит завершен", "A visit was completed"},

	{"queue.entry_created", "queue", "Пациент встал в очередь", "A patient joined the queue"},
	{"queue.entry_updated", "queue", "Статус в очереди изменен", "The status of a queue entry changed"},
	{"queue.entry_called", "queue", "Пациент вызван", "A patient was called"},
	{"queue.entry_completed", "queue", "Прием завершен", "The patient was seen"},

	{"payment.created", "payment", "Создан платеж", "A payment was created"},
	{"payment.completed", "payment", "Платеж завершен", "A payment was completed"},
	{"payment.failed", "payment", "Платеж не прошел", "A payment failed"},
	{"payment.refunded", "payment", "Платеж возвращен", "A payment was refunded"},

	{"user.created", "user", "Создан новый пользователь", "A new user was created"},
	{"user.updated", "user", "Пользователь обновлен", "A user was updated"},
	{"user.deleted", "user", "Пользователь удален", "A user was deleted"},

	{"system.backup_completed", "system", "Резервное копирование завершено", "A backup was completed"},
	{"system.backup_failed", "system", "Ошибка резервного копирования", "A backup failed"},
	{"system.maintenance_start", "system", "Начало технического обслуживания", "Maintenance started"},
	{"system.maintenance_end", "system", "Конец технического обслуживания", "Maintenance ended"},
}

var systemTypes = []EventTypeInfo{
	{AlertRaised, systemGroup, "Сработало оповещение о webhook'е", "An alert about a webhook was raised"},
	{AlertResolved, systemGroup, "Оповещение о webhook'е снято", "An alert about a webhook was resolved"},
	{DeliveryGivenUp, systemGroup, "Доставка не удалась: повторов больше не будет", "A delivery failed for good"},
}

// Catalog knows every event type: the guide's, those that a clinic added, and the
// service's own. It never changes once made and is safe for concurrent use. The zero
// value knows no type; BuiltinCatalog and ParseCatalog make useful ones.
type Catalog struct {
	clinic []EventTypeInfo
	byType map[EventType]EventTypeInfo
	groups []string // of every type, the service's own last
}

// BuiltinCatalog has the guide's types and nothing added.
func BuiltinCatalog() Catalog { return newCatalog(nil) }

func newCatalog(extra []EventTypeInfo) Catalog {
	c := Catalog{
		clinic: slices.Concat(builtinTypes, extra),
		byType: make(map[EventType]EventTypeInfo, len(builtinTypes)+len(extra)+len(systemTypes)),
	}
	for _, info := range slices.Concat(c.clinic, systemTypes) {
		c.byType[info.Type] = info
		if !slices.Contains(c.groups, info.Group) {
			c.groups = append(c.groups, info.Group)
		}
	}
	return c
}

// With returns the catalogue with the types added that it does not know.
func (c Catalog) With(types []EventType) Catalog {
	extra := slices.Clone(c.clinic[len(builtinTypes):])
	for _, t := range types {
		if _, known := c.byType[t]; !known {
			extra = append(extra, EventTypeInfo{Type: t, Group: t.Group(), RU: string(t), EN: string(t)})
		}
	}
	return newCatalog(extra)
}

// Clinic lists the types that callers trigger: the guide's in its order, then the added
// ones. The list is the caller's to keep.
func (c Catalog) Clinic() []EventTypeInfo { return slices.Clone(c.clinic) }

// System lists the service's own types, which can be subscribed to and not triggered.
func (c Catalog) System() []EventTypeInfo { return slices.Clone(systemTypes) }

// Find looks a type up, the service's own included.
func (c Catalog) Find(t EventType) (EventTypeInfo, bool) {
	info, ok := c.byType[t]
	return info, ok
}

// Known reports whether a caller may trigger events of type t.
func (c Catalog) Known(t EventType) bool {
	info, ok := c.byType[t]
	return ok && info.Group != systemGroup
}

// CheckEventType returns the reason, under the name field, why a caller cannot trigger
// events of this type, if any.
func (c Catalog) CheckEventType(field string, t EventType) []FieldError {
	switch {
	case c.Known(t):
		return nil
	case t == "":
		return []FieldError{{field, "is required"}}
	case t.IsSystem():
		return []FieldError{{field, "names an event of the service itself, which cannot be triggered"}}
	}
	return []FieldError{{field, "is not a known event type" + suggest.DidYouMean(c.Suggest(string(t)))}}
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
