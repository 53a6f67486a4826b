package domain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/medilab/webhooks/domain/suggest"
)

// Subscription says which events a webhook asks for: one type (`patient.created`), a
// group (`patient.*`), or every event of the clinic (`*`). The service's own events
// (`webhook.alert_raised`) are not the clinic's: `*` leaves them out, and a webhook that
// wants them names them or `webhook.*`.
type Subscription string

// AllEvents subscribes to every event of the clinic.
const AllEvents Subscription = "*"

// maxSubscriptions bounds the list of one webhook; it is far above the catalogue's size.
const maxSubscriptions = 1000

// Matches reports whether events of type t are asked for.
func (s Subscription) Matches(t EventType) bool {
	if s == AllEvents {
		return !t.IsSystem()
	}
	if group, ok := s.group(); ok {
		return t.Group() == group
	}
	return string(s) == string(t)
}

// group is the name before `.*`.
func (s Subscription) group() (string, bool) {
	return strings.CutSuffix(string(s), ".*")
}

// Subscriptions are what one webhook asks for, in the order given.
type Subscriptions []Subscription

// SubscriptionsOf returns what a webhook's events ask for.
func SubscriptionsOf(events []string) Subscriptions {
	s := make(Subscriptions, len(events))
	for i, event := range events {
		s[i] = Subscription(event)
	}
	return s
}

// Match reports whether any of them asks for events of type t.
func (s Subscriptions) Match(t EventType) bool {
	return slices.ContainsFunc(s, func(one Subscription) bool { return one.Matches(t) })
}

// ParseSubscriptions checks a webhook's `events`: at least one, each a known type, a
// group that has types, or `*`. Repeated ones are kept once. Field errors are named
// field for the whole list and `field[i]` for one of it.
func (c Catalog) ParseSubscriptions(field string, list []string) ([]string, []FieldError) {
	if len(list) == 0 {
		return nil, []FieldError{{Field: field, Message: "must have at least one event type, group (patient.*) or *"}}
	}
	if len(list) > maxSubscriptions {
		return nil, []FieldError{{Field: field, Message: fmt.Sprintf("must have at most %d entries", maxSubscriptions)}}
	}
	var refused []FieldError
	parsed := make([]string, 0, len(list))
	for i, text := range list {
		if !c.knows(Subscription(text)) {
			refused = append(refused, FieldError{
				Field:   fmt.Sprintf("%s[%d]", field, i),
				Message: "is not a known event type, group or *" + suggest.DidYouMean(c.suggestSubscription(text)),
			})
			continue
		}
		if !slices.Contains(parsed, text) {
			parsed = append(parsed, text)
		}
	}
	if len(refused) > 0 {
		return nil, refused
	}
	return parsed, nil
}

func (c Catalog) knows(s Subscription) bool {
	if s == AllEvents {
		return true
	}
	if group, ok := s.group(); ok {
		return slices.Contains(c.groups, group)
	}
	_, ok := c.byType[EventType(s)]
	return ok
}

func (c Catalog) suggestSubscription(typed string) string {
	var candidates []string
	for _, info := range slices.Concat(c.clinic, systemTypes()) {
		candidates = append(candidates, string(info.Type))
	}
	for _, group := range c.groups {
		candidates = append(candidates, group+".*")
	}
	return nearestType(typed, candidates)
}
