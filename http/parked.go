package http

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/gorilla/mux"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/commands/outbox"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

func (s *Server) parkedOperations() []operation {
	return []operation{{
		method: "GET", path: "/webhooks/events/parked", id: "listParkedEvents", summary: "Emitted events that cannot be accepted, and why", scope: domain.ScopeWebhooksRead,
		query: []queryParam{limit, cursor}, answer: listOf[outbox.ParkedEvent], large: true, payloads: true, serve: s.listParkedEvents,
	}, {
		method: "POST", path: "/webhooks/events/parked/{parked}/retry", id: "retryParkedEvent", summary: "Accept a parked event after all", scope: domain.ScopeAdmin,
		body: mendedEvent, status: http.StatusAccepted, answer: answerOf[commands.Accepted], conflicts: true, serve: ofParked(s.retryParkedEvent),
	}, {
		method: "POST", path: "/webhooks/events/parked/{parked}/discard", id: "discardParkedEvent", summary: "Drop a parked event for good", scope: domain.ScopeAdmin,
		status: http.StatusNoContent, serve: ofParked(s.discardParkedEvent),
	}}
}

func (s *Server) listParkedEvents(x *request, r *http.Request) error {
	const most = 50 // they come with their data
	list, more, err := outbox.Parked(r.Context(), s.commands.Pool, int64(cursor.of(x)), min(limit.of(x), most))
	for err == nil && !s.commands.Directory.IsRenewed() { // they may tell of who was erased
		if err = s.commands.Directory.Renewed(r.Context()); err == nil {
			list, more, err = outbox.Parked(r.Context(), s.commands.Pool, int64(cursor.of(x)), min(limit.of(x), most))
		}
	}
	page := projections.Page[outbox.ParkedEvent]{Items: list}
	if more {
		page.NextCursor = projections.Cursor(list[len(list)-1].ID)
	}
	if err == nil {
		err = x.guardParked(list)
	}
	return x.respond(page, err)
}

// guardParked is the guard of parked events, which may hold what no walk through an answer
// gets past.
func (x *request) guardParked(list []outbox.ParkedEvent) error {
	g := x.payloads
	if x.payloads = nil; g == nil || len(list) == 0 {
		return nil
	}
	ids := make([]string, len(list))
	for i := range list {
		ids[i] = list[i].EventID.String()
		if g.withhold {
			list[i].EventData, list[i].Redacted = nil, true
		}
	}
	if g.withhold {
		return nil
	}
	return g.record(ids, nil)
}

var mendedEvent = object[json.RawMessage]{name: "MendedEvent", optional: true, limit: maxEventBody, fields: []field[json.RawMessage]{
	// null is refused, as it is in a trigger.
	{name: "event_data", schema: merged(jsonObject, schema{"description": "instead of what was emitted; left out: as it was emitted"}),
		read: func(data *json.RawMessage, raw []byte) faults { *data = raw; return nil }},
}}

func (s *Server) retryParkedEvent(x *request, r *http.Request, id int64) error {
	var data json.RawMessage
	if err := mendedEvent.read(x, r, &data, noRules); err != nil {
		return err
	}
	accepted, err := outbox.RetryParked(r.Context(), s.commands, x.caller, id, data)
	if err != nil {
		return err
	}
	return x.respondJSON(appendAccepted(nil, accepted))
}

func (s *Server) discardParkedEvent(x *request, r *http.Request, id int64) error {
	return x.respond(nil, outbox.DiscardParked(r.Context(), s.commands, x.caller, id))
}

// ofParked is a handler that gets the number of the parked event that the path names.
func ofParked(serve func(*request, *http.Request, int64) error) handler {
	return func(x *request, r *http.Request) error {
		id, err := strconv.ParseInt(mux.Vars(r)["parked"], 10, 64)
		if err != nil {
			return domain.NotFound("parked event") // a number beyond int64
		}
		return serve(x, r, id)
	}
}
