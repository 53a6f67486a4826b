package http

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

var (
	searched        = textParam("q", "an id of an event, a delivery or a webhook, a correlation id, a type, a status, or a part of a webhook's name or URL")
	searchedSubject = textParam("subject", "a patient's id, instead of q: finds the newest events about the patient; needs payloads:read and "+AccessReason+", and goes on record")
)

func (s *Server) searchOperations() []operation {
	return []operation{{
		method: "GET", path: "/search", id: "search", summary: "What has this id, name, address, type or status", scope: domain.ScopeWebhooksRead, orScope: domain.ScopeAuditRead,
		query: []queryParam{searched, searchedSubject}, answer: listOf[foundView], payloads: true, private: searchedSubject.name, verbatim: true, serve: s.search,
	}}
}

// foundView is what a search found, and where it is.
type foundView struct {
	Kind      foundKind         `json:"kind"`
	ID        string            `json:"id"`
	Title     string            `json:"title"`
	WebhookID *domain.WebhookID `json:"webhook_id"` // of a delivery
	EventID   *domain.EventID   `json:"event_id"`   // of a delivery
	At        moment            `json:"at"`         // of an event
}

type foundKind string

const (
	foundEvent       foundKind = "event"
	foundDelivery    foundKind = "delivery"
	foundWebhook     foundKind = "webhook"
	foundCorrelation foundKind = "correlation"
	foundType        foundKind = "event_type"
	foundStatus      foundKind = "response_status"
)

// mostFound is how much of a kind is found.
const mostFound = 10

// search looks by keys, and among the webhooks in memory.
func (s *Server) search(x *request, r *http.Request) error {
	q, subject := strings.TrimSpace(searched.of(x)), searchedSubject.of(x)
	if (q == "") == (subject == "") {
		return domain.Invalid("q", "is required, or subject instead")
	}
	found, err := []foundView{}, error(nil)
	if subject != "" {
		found, err = s.searchSubject(x, r, subject)
	} else {
		for _, look := range []func(context.Context, string) ([]foundView, error){s.findID, s.findWebhooks, s.findTypes, s.findCorrelation} {
			some, failed := look(r.Context(), q)
			if failed != nil {
				return failed
			}
			found = append(found, some...)
		}
	}
	return x.respond(projections.Page[foundView]{Items: found}, err)
}

// searchSubject finds events about a patient, which is on record before they are named.
func (s *Server) searchSubject(x *request, r *http.Request, id string) ([]foundView, error) {
	if x.payloads != nil && x.payloads.withhold {
		return nil, domain.Forbidden("the token needs the scope " + string(domain.ScopePayloadsRead) + " as well")
	}
	reason, err := s.readReason(r)
	if err != nil {
		return nil, err
	}
	if reason == "" {
		return nil, domain.Invalid(accessReason.name, "is required: say why you look for a patient")
	}
	subject, err := s.subject(r.Context(), id)
	if err != nil {
		return nil, err
	}
	if err := x.payloads.recordSubject(subject); err != nil {
		return nil, err
	}
	events, err := s.queries.NewestOf(r.Context(), subject.Owner, mostFound)
	found := make([]foundView, len(events))
	for i, e := range events {
		found[i] = foundOf(e)
	}
	return found, err
}

func foundOf(e projections.Event) foundView {
	return foundView{Kind: foundEvent, ID: e.ID.String(), Title: e.Type, At: moment(e.AcceptedAt)}
}

// findID finds an event, or a delivery, which may have had no attempt, or none that was its own.
func (s *Server) findID(ctx context.Context, q string) ([]foundView, error) {
	id, ok := parseUUID(q)
	if !ok {
		return nil, nil
	}
	if event, err := s.queries.Event(ctx, domain.EventID(id)); err == nil {
		return []foundView{foundOf(event)}, nil
	} else if !errors.Is(err, domain.KindNotFound) && !errors.Is(err, domain.KindGone) {
		return nil, err
	}
	delivery := domain.DeliveryID(id)
	calls, err := s.queries.Calls(ctx, projections.CallFilter{Delivery: delivery, Limit: 1})
	if err != nil {
		return nil, err
	}
	for _, c := range calls.Items {
		return []foundView{{Kind: foundDelivery, ID: delivery.String(), Title: c.EventType, WebhookID: &c.WebhookID, EventID: &c.EventID, At: moment(c.CreatedAt)}}, nil
	}
	d, err := s.commands.Delivery(ctx, delivery)
	switch {
	case errors.Is(err, domain.KindNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return []foundView{{Kind: foundDelivery, ID: delivery.String(), Title: "", WebhookID: &d.WebhookID, EventID: &d.EventID}}, nil
}

// findWebhooks finds webhooks that mention the text, those first that it names.
func (s *Server) findWebhooks(ctx context.Context, q string) (found []foundView, err error) {
	if err := s.commands.Directory.CatchUp(ctx); err != nil {
		return nil, err
	}
	task := s.commands.Log.Limiter.Task()
	defer task.End()
	words := strings.ToLower(q)
	named := 0
	for w := range s.commands.Directory.Newest() {
		if err := task.Spend(ctx, len(w.Description)); err != nil {
			return nil, err
		}
		one := foundView{Kind: foundWebhook, ID: w.ID.String(), Title: w.Name}
		switch {
		case !w.Exists():
		case strconv.FormatInt(w.Number, 10) == q || strings.EqualFold(one.ID, q) || strings.EqualFold(w.Name, q):
			if named < mostFound {
				found = slices.Insert(found, named, one)
				named++
			}
		case len(found) < mostFound && mentions(w, words):
			found = append(found, one)
		}
	}
	return found[:min(len(found), mostFound)], nil
}

// findTypes finds event types that have the text, and the status of answers.
func (s *Server) findTypes(_ context.Context, q string) (found []foundView, err error) {
	q = strings.ToLower(q)
	if _, ok := domain.ParseStatuses(q); ok {
		found = append(found, foundView{Kind: foundStatus, ID: q, Title: q})
	}
	catalog := s.commands.Catalog
	for _, info := range append(catalog.Clinic(), catalog.System()...) {
		if strings.Contains(string(info.Type), q) && len(found) < mostFound {
			found = append(found, foundView{Kind: foundType, ID: string(info.Type), Title: string(info.Type)})
		}
	}
	return found, nil
}

func (s *Server) findCorrelation(ctx context.Context, q string) (found []foundView, err error) {
	events, err := s.queries.Events(ctx, projections.EventFilter{CorrelationID: q, Limit: 1})
	if err == nil && len(events.Items) > 0 {
		found = append(found, foundView{Kind: foundCorrelation, ID: q, Title: q})
	}
	return found, err
}
