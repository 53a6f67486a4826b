package http

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/strictjson"
	"github.com/medilab/webhooks/projections"
)

// afterNumber takes a cursor too, which the number after which a page goes on is.
var afterNumber = param[int64]{
	name: "after", text: "the number of the last delivery that is known already, or next_cursor", schema: schema{"type": "string", "examples": []string{"41"}},
	parse: func(value string, _ domain.Catalog) (int64, string) {
		if c, ok := projections.ParseCursor(value); ok {
			return int64(c), ""
		}
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || n < 0 {
			return 0, "must be the number of a delivery"
		}
		return n, ""
	},
}

func (s *Server) feedOperations() []operation {
	return []operation{{
		method: "GET", path: "/webhooks/{webhook}/feed", id: "webhookFeed", summary: "What a webhook with sequence gets after a number, oldest first",
		scope: domain.ScopeWebhooksRead, alsoScope: domain.ScopePayloadsRead, query: []queryParam{afterNumber, limit, cursor}, answer: listOf[feedItemView], conflicts: true, payloads: true,
		serve: s.ofWebhook(s.listFeed),
	}}
}

// feedItemView is one numbered delivery.
type feedItemView struct {
	Sequence   int64            `json:"sequence"`
	EventID    domain.EventID   `json:"event_id"`
	EventType  string           `json:"event_type"`
	EventData  json.RawMessage  `json:"event_data" schema:"object,null"` // byte for byte as it was accepted
	OccurredAt moment           `json:"occurred_at"`
	Delivery   feedDeliveryView `json:"delivery"`
	projections.Gone
}

type feedDeliveryView struct {
	DeliveryID domain.DeliveryID    `json:"delivery_id"`
	State      domain.DeliveryState `json:"state"`
}

func (s *Server) listFeed(x *request, r *http.Request, w domain.Webhook) error {
	if w.SequenceSince == 0 {
		return domain.Conflict("deliveries of this webhook are not numbered: set sequence to true")
	}
	after := max(afterNumber.of(x), int64(cursor.of(x)))
	page, err := s.queries.Feed(r.Context(), w, after, limit.of(x))
	if err != nil {
		return err
	}
	fields := domain.NewSelection(w.Fields)
	return x.respondJSON(appendPage(nil, page, func(dst []byte, item projections.FeedItem) []byte {
		if !item.Event.IsGone() {
			item.Event.Data = fields.Of(item.Event.Data)
		}
		return appendFeedItem(dst, item)
	}))
}

// appendFeedItem encodes an item, with the fields of feedItemView.
func appendFeedItem(dst []byte, item projections.FeedItem) []byte {
	dst = strconv.AppendInt(append(dst, `{"sequence":`...), item.Number, 10)
	dst = strictjson.AppendString(append(dst, `,"event_id":`...), item.Event.ID.String())
	dst = strictjson.AppendString(append(dst, `,"event_type":`...), item.Event.Type)
	dst = appendData(append(dst, `,"event_data":`...), item.Event)
	dst = appendMoment(append(dst, `,"occurred_at":`...), item.Event.OccurredAt)
	dst = strictjson.AppendString(append(dst, `,"delivery":{"delivery_id":`...), item.Delivery.ID.String())
	dst = strictjson.AppendString(append(dst, `,"state":`...), string(item.Delivery.State))
	return append(appendGone(append(dst, '}'), item.Event.Gone), '}')
}

// addWaitingBehind adds what pending deliveries wait behind. One that goes in a batch waits as
// the batch does.
func (s *Server) addWaitingBehind(ctx context.Context, deliveries []*projections.Delivery) error {
	var ids []domain.DeliveryID
	by := func(d *projections.Delivery) domain.DeliveryID {
		if d.BatchID != nil {
			return *d.BatchID
		}
		return d.ID
	}
	for _, d := range deliveries {
		if d.State == domain.DeliveryPending {
			ids = append(ids, by(d))
		}
	}
	if len(ids) == 0 {
		return nil
	}
	behind, err := s.commands.Queue.WaitingBehind(ctx, ids)
	for _, d := range deliveries {
		if before, ok := behind[by(d)]; ok && d.State == domain.DeliveryPending {
			d.WaitingBehind = &before
		}
	}
	return err
}
