package domain

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// EventType names what happened: a group, a dot and a past-tense name (`patient.created`).
type EventType string

// The service's own event types. They are made by the service alone, never triggered by
// a caller, and reach only webhooks that name them or `webhook.*`: `*` is the clinic's
// events (contract section 5).
const (
	AlertRaised   EventType = "webhook.alert_raised"
	AlertResolved EventType = "webhook.alert_resolved"
)

const systemGroup = "webhook"

// Group is the part before the first dot; what `patient.*` subscribes to.
func (t EventType) Group() string {
	group, _, _ := strings.Cut(string(t), ".")
	return group
}

// IsSystem tells the service's own types from the clinic's.
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

// CheckEventType gives the reason, under the name field, why a caller cannot trigger
// events of this type; nothing when it can.
func (c Catalog) CheckEventType(field string, t EventType) []FieldError {
	switch {
	case c.Known(t):
		return nil
	case t == "":
		return []FieldError{{field, "is required"}}
	case t.IsSystem():
		return []FieldError{{field, "names an event of the service itself, which cannot be triggered"}}
	}
	return []FieldError{{field, "is not a known event type" + didYouMean(c.Suggest(string(t)))}}
}

// Suggest gives the known type nearest to what somebody typed, or "" when none is near.
func (c Catalog) Suggest(unknown string) string {
	candidates := make([]string, len(c.clinic))
	for i, info := range c.clinic {
		candidates[i] = string(info.Type)
	}
	return nearestType(unknown, candidates)
}

func didYouMean(suggestion string) string {
	if suggestion == "" {
		return ""
	}
	return "; did you mean " + suggestion + "?"
}

// longestTyped bounds the work of a suggestion: nothing longer is a slip of the finger.
const longestTyped = 100

// nearestType is nearest for event types: where the group is right, any of it is near.
func nearestType(typed string, candidates []string) string {
	if best := nearest(typed, candidates); best != "" || len(typed) > longestTyped {
		return best
	}
	group, name, _ := strings.Cut(strings.ToLower(strings.TrimSpace(typed)), ".")
	best, bestDistance := "", 0
	for _, candidate := range candidates {
		of, known, _ := strings.Cut(candidate, ".")
		if of != group {
			continue
		}
		if d := editDistance([]rune(name), []rune(known)); best == "" || d < bestDistance {
			best, bestDistance = candidate, d
		}
	}
	return best
}

// nearest picks the candidate with the fewest edits, at most a third of the letters. What
// was typed with the Russian layout on is read as the keys that were meant, or as what the
// letters look like.
func nearest(typed string, candidates []string) string {
	if len(typed) > longestTyped || !utf8.ValidString(typed) {
		return ""
	}
	typed = strings.ToLower(strings.TrimSpace(typed))
	letters, best, bestDistance := []rune(typed), "", utf8.RuneCountInString(typed)/3+1
	for _, read := range [][]rune{letters, []rune(latinKeys.Replace(typed)), []rune(latinLooks.Replace(typed))} {
		for _, candidate := range candidates {
			if d := editDistance(read, []rune(candidate)); d < bestDistance {
				best, bestDistance = candidate, d
			}
		}
	}
	return best
}

// latinKeys gives what the keys of the Russian layout write with the Latin one.
var latinKeys = strings.NewReplacer(
	"й", "q", "ц", "w", "у", "e", "к", "r", "е", "t", "н", "y", "г", "u", "ш", "i", "щ", "o", "з", "p",
	"ф", "a", "ы", "s", "в", "d", "а", "f", "п", "g", "р", "h", "о", "j", "л", "k", "д", "l",
	"я", "z", "ч", "x", "с", "c", "м", "v", "и", "b", "т", "n", "ь", "m", "ю", ".",
)

// latinLooks gives the Latin letters that Russian ones look like.
var latinLooks = strings.NewReplacer(
	"а", "a", "в", "b", "е", "e", "к", "k", "м", "m", "н", "h", "о", "o", "р", "p", "с", "c", "т", "t", "у", "y", "х", "x",
)

// editDistance counts insertions, deletions, replacements and swaps of neighbours
// (optimal string alignment) between a and b.
func editDistance(a, b []rune) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
