package http_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"

	"github.com/medilab/webhooks/commands/receipts"
)

func init() {
	openapi3filter.RegisterBodyDecoder("application/jose", func(body io.Reader, _ http.Header, _ *openapi3.SchemaRef, _ openapi3filter.EncodingFn) (any, error) {
		data, err := io.ReadAll(body)
		return string(data), err
	})
}

// A receipt says what the receiver saw and where it is in the log, and only the server's key
// makes one.
func TestReceipts(t *testing.T) {
	s := newService(t)
	s.work()
	r := newReceiver(t, 200)
	s.registerAt(r.URL, `,"fields":["a"],"secret":"s"`)
	event := s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{"a":1,"b":2}}`).want(202).text("event_id")
	got := r.next(t)
	calls := func() answer { return s.ask("GET", "/api/v1/webhooks/1/calls", "").want(200) }
	s.until("recorded", func() bool { return calls().get("items") != "[]" })
	call := calls().text("items", 0, "call_id")
	path := "/api/v1/webhooks/1/calls/" + call + "/receipt"
	answered := s.ask("GET", path, "").want(200)
	if answered.header.Get("Content-Type") != "application/jose" || !strings.Contains(answered.header.Get("Content-Disposition"), call) {
		t.Errorf("headers %v", answered.header)
	}
	token := s.token
	s.token = ""
	keys := s.ask("GET", "/.well-known/medilab-receipts.json", "").want(200).body
	s.token = token
	receipt, err := receipts.Verify(string(answered.body), keys)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(got.body))
	var sent struct{ Timestamp string }
	if err := json.Unmarshal([]byte(got.body), &sent); err != nil {
		t.Fatal(err)
	}
	if receipt.BodySHA256 != hex.EncodeToString(sum[:]) || receipt.CallID.String() != call || receipt.EventID.String() != event || receipt.DeliveryID.String() != got.header.Get("X-Webhook-Delivery-ID") ||
		receipt.URL != r.URL || receipt.Attempt != 1 || receipt.Status != "success" || *receipt.ResponseStatus != 200 || receipt.SentAt.UTC().Format("2006-01-02T15:04:05Z") != sent.Timestamp {
		t.Errorf("the receipt says %+v, sent was %s", receipt, got.body)
	}
	var seal []byte
	err = s.pool.QueryRow(t.Context(), `SELECT seal FROM medilab.seals WHERE $1 BETWEEN first_position AND last_position`, receipt.Position).Scan(&seal)
	if err != nil || hex.EncodeToString(seal) != receipt.Seal {
		t.Errorf("the seal is %x, %v, the receipt says %s", seal, err, receipt.Seal)
	}
	if again := s.ask("GET", path, "").want(200); string(again.body) != string(answered.body) {
		t.Error("the receipt is another one each time")
	}
	s.ask("POST", "/api/v1/webhooks/1/test", `{"event_type":"patient.created"}`).want(200)
	tested := s.ask("GET", "/api/v1/webhooks/1/calls/"+calls().text("items", 0, "call_id")+"/receipt", "").want(200)
	if other, err := receipts.Verify(string(tested.body), keys); err != nil || other.CallID == receipt.CallID {
		t.Errorf("a test call's: %+v, %v", other, err)
	}
	parts, others := strings.Split(string(answered.body), "."), strings.Split(string(tested.body), ".")
	foreign := newService(t).ask("GET", "/.well-known/medilab-receipts.json", "").want(200).body
	for name, c := range map[string]struct {
		receipt string
		keys    []byte
	}{
		"another call's words": {parts[0] + "." + others[1] + "." + parts[2], keys},
		"another signature":    {parts[0] + "." + parts[1] + "." + others[2], keys},
		"another server's key": {string(answered.body), foreign},
		"cut":                  {string(answered.body[:len(answered.body)-20]), keys},
		"no receipt":           {"{}", keys},
		"no key":               {string(answered.body), []byte(`{"keys":[]}`)},
	} {
		if r, err := receipts.Verify(c.receipt, c.keys); err == nil {
			t.Errorf("%s passes as %+v", name, r)
		}
	}
	s.ask("GET", "/api/v1/webhooks/1/calls/"+event+"/receipt", "").want(404)
}

// A call that sent nothing has no receipt: it would prove what was not.
func TestNoReceiptOfWhatWasNotSent(t *testing.T) {
	s := newService(t)
	s.work()
	s.registerAt("http://10.0.0.1/hook", `,"max_retries":0`) // which is refused before anything is dialled
	event := s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{}}`).want(202).text("event_id")
	s.until("failed", func() bool { return s.deliveryState(event) == "failed" })
	s.settled()
	call := s.ask("GET", "/api/v1/webhooks/1/calls", "").want(200).text("items", 0, "call_id")
	refused := s.ask("GET", "/api/v1/webhooks/1/calls/"+call+"/receipt", "").want(409)
	if refused.text("detail") != "nothing was sent in this call: there is no receipt of it" {
		t.Errorf("got %s", refused.body)
	}
}

// What somebody asks for in the query of a request that changes something does not pass silently.
func TestUnknownParametersOfChangesAreRefused(t *testing.T) {
	s := newService(t)
	s.registerAt("http://127.0.0.1:9/hook", "")
	s.ask("DELETE", "/api/v1/webhooks/1?dry_run=true", "").refusing("dry_run")
	s.ask("POST", "/api/v1/webhooks/apply?dry_run=true", `{"webhooks":[]}`).refusing("dry_run")
	s.ask("POST", trigger+"?deliver=false", `{"event_type":"patient.created","event_data":{}}`).refusing("deliver")
	s.ask("GET", "/api/v1/webhooks/1", "").want(200)
}

// The id of an event that is erased by now is not taken for another event's.
func TestIDOfAnErasedEvent(t *testing.T) {
	s := newService(t)
	const id = "01a22a8f-3681-7d3b-b67c-1d22491de65f"
	const first = `{"event_type":"patient.created","event_id":"` + id + `","event_data":{"patient_id":"p1","name":"A"}}`
	s.ask("POST", trigger, first).want(202)
	s.ask("POST", "/api/v1/subjects/p1/erase", `{"reason":"asked for"}`).want(200)
	s.ask("POST", trigger, first).want(202)
	s.ask("POST", trigger, strings.Replace(first, `"A"`, `"Another"`, 1)).want(409)
}
