package http

import (
	"context"
	"net/http"

	"github.com/gorilla/mux"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

func (s *Server) subjectOperations() []operation {
	return []operation{{
		method: "POST", path: "/subjects/{subject}/erase", id: "eraseSubject", summary: "Erase what the log holds of a patient", scope: domain.ScopeAdmin,
		body: erasure, answer: answerOf[commands.Erased], serve: s.eraseSubject,
	}, {
		method: "GET", path: "/subjects/{subject}/disclosures", id: "listSubjectDisclosures", summary: "Who was sent what of a patient, newest first", scope: domain.ScopeAuditRead,
		query: []queryParam{limit, cursor}, answer: answerOf[projections.Disclosures], serve: s.subjectDisclosures,
	}, {
		method: "GET", path: "/subjects/{subject}/export", id: "exportSubject", summary: "Every event and call about a patient, in lines of JSON", scope: domain.ScopeAdmin,
		answer: text, media: ndjson, unbounded: true, payloads: true, serve: s.exportSubject,
	}, {
		method: "GET", path: "/webhooks/{webhook}/disclosures", id: "listWebhookDisclosures", summary: "Whose data a webhook was sent, newest first", scope: domain.ScopeAuditRead,
		query: []queryParam{from, to, limit, cursor}, answer: answerOf[projections.Disclosures],
		serve: s.ofWebhook(func(x *request, r *http.Request, w domain.Webhook) error {
			return s.answer(x, r, func(ctx context.Context, q *projections.Projections) (any, error) {
				return q.DisclosuresTo(ctx, w.ID, from.of(x), to.of(x), limit.of(x), cursor.of(x))
			})
		}),
	}}
}

// subjectID returns the id in the path.
func subjectID(r *http.Request) (string, error) {
	id := mux.Vars(r)["subject"]
	if !isText(id) { // of any length: an event's may be long, too
		return "", domain.Invalid("subject", "must be text")
	}
	return id, nil
}

// subject returns the subject with the id, as events have it.
func (s *Server) subject(ctx context.Context, id string) (*projections.Subject, error) {
	keys := s.commands.Directory.Keys
	owner, err := keys.Owner(ctx, id)
	if err != nil {
		return nil, commands.Failed("find a subject", err)
	}
	return &projections.Subject{Owner: owner, Tells: func(t domain.EventType, data []byte) bool { return keys.Tells(t, data, id) }}, nil
}

// pathSubject returns the subject in the path.
func (s *Server) pathSubject(r *http.Request) (*projections.Subject, error) {
	id, err := subjectID(r)
	if err != nil {
		return nil, err
	}
	return s.subject(r.Context(), id)
}

func (s *Server) subjectDisclosures(x *request, r *http.Request) error {
	subject, err := s.pathSubject(r)
	if err != nil {
		return err
	}
	return s.answer(x, r, func(ctx context.Context, q *projections.Projections) (any, error) {
		return q.Disclosures(ctx, subject.Owner, limit.of(x), cursor.of(x))
	})
}

var erasure = object[string]{name: "Erasure", limit: maxManagementBody, fields: []field[string]{
	plain("reason", jsonText, func(reason *string) *string { return reason }, schema{"description": "stays in the log: do not name the patient"}).must(),
}}

func (s *Server) eraseSubject(x *request, r *http.Request) error {
	var reason string
	if err := erasure.read(x, r, &reason, noRules); err != nil {
		return err
	}
	id, err := subjectID(r)
	if err != nil {
		return err
	}
	return x.respond(s.commands.EraseSubject(r.Context(), x.caller, id, reason))
}

// exportSubject streams the events about the subject, each with its calls behind it.
func (s *Server) exportSubject(x *request, r *http.Request) error {
	subject, err := s.pathSubject(r)
	if err != nil {
		return err
	}
	if err := x.acquire(s.logReads); err != nil {
		return err
	}
	coveredFrom, err := s.queries.CoveredFrom(r.Context())
	if err != nil {
		return err
	}
	if err := x.payloads.recordSubject(subject); err != nil {
		return err
	}
	out := newLineWriter(x)
	write := func(name string, value []byte) error {
		return out.write(append(appendLine([]byte(`{"`+name+`":`), value), '}'))
	}
	if coveredFrom != nil {
		err = write("covered_from", encode(coveredFrom))
	}
	if err != nil {
		return err
	}
	err = s.queries.EachOf(r.Context(), subject.Owner, func(event *projections.Event, calls []projections.Call) error {
		if event != nil {
			if err := write("event", appendEvent(nil, *event)); err != nil {
				return err
			}
		}
		for _, call := range calls {
			details, err := s.exportedCall(r.Context(), call)
			if err != nil {
				return err
			}
			if err := write("call", encode(details)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return out.out.Flush()
}

// exportedCall returns the details of a call. Those of a batch leave out what tells of others.
func (s *Server) exportedCall(ctx context.Context, call projections.Call) (callDetailsView, error) {
	details, err := s.callDetails(ctx, s.queries, call.WebhookID, call.ID)
	if call.EventType == string(domain.BatchEventType) {
		details.EventID, details.EventIDs = call.EventID, call.OwnEvents
		details.Payload = nil
		details.ResponseHeaders, details.ResponseBody, details.ResponseBytes = nil, nil, nil
	}
	return details, err
}
