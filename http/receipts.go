package http

import (
	"encoding/hex"
	"net/http"

	"github.com/medilab/webhooks/commands/receipts"
	"github.com/medilab/webhooks/domain"
)

func (s *Server) receiptOperations() []operation {
	return []operation{{
		method: "GET", path: "/webhooks/{webhook}/calls/{call}/receipt", id: "getReceipt", summary: "A signed receipt of one call: what was sent where and when (JWS)", scope: domain.ScopeWebhooksRead,
		answer: text, media: "application/jose", conflicts: true, serve: s.ofWebhook(ofWebhookByID("call", s.getReceipt)),
	}}
}

func (s *Server) receiptKeyOperations() []operation {
	return []operation{{
		method: "GET", path: "/.well-known/medilab-receipts.json", id: "receiptKeys", summary: "The public key that receipts are verified by (JWK set)", scope: public,
		answer: anObject, serve: func(x *request, _ *http.Request) error { return x.respondJSON(s.config.Receipts.PublicKeys()) },
	}}
}

func (s *Server) getReceipt(x *request, r *http.Request, w domain.Webhook, id domain.CallID) error {
	call, err := s.queries.Call(r.Context(), w.ID, id)
	if err != nil {
		return err
	}
	if call.Record.Outcome.SentNothing() {
		return domain.Conflict("nothing was sent in this call: there is no receipt of it")
	}
	if call.Record.BodyHash == nil {
		return domain.Conflict("the record of this call has no hash of its body: an older version made it, or a crash cut it off")
	}
	seal, err := s.commands.Log.SealOf(r.Context(), call.Position)
	if err != nil {
		return err
	}
	receipt, err := s.config.Receipts.Sign(receipts.Receipt{
		CallID: call.ID, DeliveryID: call.DeliveryID, EventID: call.EventID, EventType: call.EventType, WebhookID: call.WebhookID,
		Attempt: call.Attempt, URL: call.URL, SentAt: call.Record.StartedAt, BodySHA256: hex.EncodeToString(call.Record.BodyHash),
		Status: string(call.Status), ResponseStatus: call.ResponseStatus, Position: int64(call.Position), Seal: hex.EncodeToString(seal),
	})
	if err != nil {
		return err
	}
	x.Header().Set("Content-Disposition", `attachment; filename="receipt-`+call.ID.String()+`.jws"`)
	x.write(x.operation.status, []string{"application/jose"}, receipt)
	return nil
}
