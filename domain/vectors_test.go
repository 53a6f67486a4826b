package domain

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

var updateVectors = flag.Bool("update-vectors", false, "write docs/receivers/vectors.json anew")

// vector is one signed call of docs/receivers/vectors.json.
type vector struct {
	Name    string            `json:"name"`
	Secret  string            `json:"secret"` // the receiver's
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
	Now     int64             `json:"now"` // seconds since 1970, when it arrives
	Valid   bool              `json:"valid"`
}

// tolerance is how many seconds webhook-timestamp may be away from now.
const tolerance = 300

// The published vectors are what this version sends, and what it would accept.
func TestVectors(t *testing.T) {
	const file = "../docs/receivers/vectors.json"
	published, err := json.MarshalIndent(vectors(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	published = append(published, '\n')
	if *updateVectors {
		if err := os.WriteFile(file, published, 0o644); err != nil { //nolint:gosec // it is a document
			t.Fatal(err)
		}
	}
	if stored, err := os.ReadFile(file); err != nil || string(stored) != string(published) {
		t.Errorf("%s is not what is sent (-update-vectors writes it): %v", file, err)
	}
	for _, v := range vectors() {
		timestamp, err := strconv.ParseInt(v.Headers[HeaderStandardTimestamp], 10, 64)
		recent := err == nil && max(v.Now-timestamp, timestamp-v.Now) <= tolerance
		if encoded, ok := strings.CutPrefix(v.Secret, "whpk_"); ok {
			if valid := recent && verifyPublic(t, encoded, v); valid != v.Valid {
				t.Errorf("%s: valid %v", v.Name, valid)
			}
			continue
		}
		key := NewSigningKey(NewSecret(v.Secret))
		valid := recent && key.VerifyStandard(v.Headers[HeaderStandardID], v.Headers[HeaderStandardTimestamp], []byte(v.Body), v.Headers[HeaderStandardSignature])
		if valid != v.Valid {
			t.Errorf("%s: valid %v", v.Name, valid)
		}
		if guide := v.Headers[HeaderSignature]; valid && !key.VerifyGuide([]byte(v.Body), guide) &&
			!key.VerifyGuide([]byte(v.Body), v.Headers[HeaderSignaturePrevious]) {
			t.Errorf("%s: X-Webhook-Signature is %s", v.Name, guide)
		}
	}
}

// verifyPublic verifies a v1a signature as a receiver does, with the public key.
func verifyPublic(t *testing.T, encoded string, v vector) bool {
	t.Helper()
	public, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		t.Fatal(err)
	}
	signed := v.Headers[HeaderStandardID] + "." + v.Headers[HeaderStandardTimestamp] + "." + v.Body
	signature, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(v.Headers[HeaderStandardSignature], "v1a,"))
	return err == nil && ed25519.Verify(public, []byte(signed), signature)
}

func vectors() []vector {
	const (
		plain    = "a-secret-of-this-webhook"
		standard = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
		old      = "the-secret-before"
	)
	signer := func(current, previous string) Signer {
		s := Signer{Current: NewSigningKey(NewSecret(current))}
		if previous != "" {
			s.Previous = []*SigningKey{NewSigningKey(NewSecret(previous))}
		}
		return s
	}
	payload := Payload{
		PayloadEvent: PayloadEvent{
			EventType: "patient.created", EventData: []byte(`{"patient_id":123,"name":"Анна <Петрова>","amount":1.0}`),
			EventID: uuid.MustParse("0190a1b2-0000-7000-8000-000000000001"), CorrelationID: "case-7", Source: "clinic",
			OccurredAt: time.Date(2024, 1, 15, 10, 30, 0, 0, time.UTC),
		},
		WebhookID: uuid.MustParse("550e8400-e29b-41d4-a716-446655440000"), DeliveryID: uuid.MustParse("0190a1b2-0000-7000-8000-000000000002"),
		Timestamp: time.Date(2024, 1, 15, 10, 30, 5, 0, time.UTC), Attempt: 1,
	}
	batch := Payload{
		Events: []PayloadEvent{{EventType: payload.EventType, EventData: payload.EventData, EventID: payload.EventID,
			Source: payload.Source, OccurredAt: payload.OccurredAt}},
		WebhookID: payload.WebhookID, DeliveryID: payload.DeliveryID, Timestamp: payload.Timestamp, Attempt: 2,
	}
	call := func(name, secret string, v PayloadVersion, signer Signer) vector {
		body := AppendPayload(nil, v, payload)
		return vector{name, secret, named(Headers(v, payload, body, signer)), string(body), payload.Timestamp.Unix() + 1, true}
	}
	list := []vector{
		call("version 1, a secret of any text", plain, PayloadV1, signer(plain, "")),
		call("version 1, a whsec_ secret", standard, PayloadV1, signer(standard, "")),
		call("version 2", plain, PayloadV2, signer(plain, "")),
		call("cloudevents", plain, PayloadCloudEvents, signer(plain, "")),
		call("during a rotation, a receiver that has the new secret", plain, PayloadV1, signer(plain, old)),
		call("during a rotation, a receiver that has the old secret", old, PayloadV1, signer(plain, old)),
	}
	body := AppendPayload(nil, PayloadV1, batch)
	list = append(list, vector{"a batch", plain, named(Headers(PayloadV1, batch, body, signer(plain, ""))), string(body), batch.Timestamp.Unix() + 1, true})
	body = AppendPayload(nil, PayloadCloudEvents, batch)
	list = append(list, vector{"a batch of cloudevents", plain, named(Headers(PayloadCloudEvents, batch, body, signer(plain, ""))), string(body), batch.Timestamp.Unix() + 1, true})

	pair := ed25519.NewKeyFromSeed([]byte("the seed of the test vectors 001"))
	private := "whsk_" + base64.StdEncoding.EncodeToString(pair)
	public := "whpk_" + base64.StdEncoding.EncodeToString(pair.Public().(ed25519.PublicKey))
	list = append(list, call("v1a: the webhook's secret is a private key, and the receiver has the public one", public, PayloadV1, signer(private, "")))
	forged := call("v1a, one byte of the body is another", public, PayloadV1, signer(private, ""))
	forged.Body, forged.Valid = strings.Replace(forged.Body, "123", "124", 1), false
	list = append(list, forged)

	for _, late := range []int64{tolerance, tolerance + 1, -tolerance, -tolerance - 1} {
		v := call(fmt.Sprintf("it arrives %+d seconds from its time", late), plain, PayloadV1, signer(plain, ""))
		v.Now, v.Valid = payload.Timestamp.Unix()+late, max(late, -late) <= tolerance
		list = append(list, v)
	}

	tampered := call("one byte of the body is another", plain, PayloadV1, signer(plain, ""))
	tampered.Body, tampered.Valid = strings.Replace(tampered.Body, "123", "124", 1), false
	foreign := call("signed by another secret", plain, PayloadV1, signer(old, ""))
	foreign.Valid = false
	moved := call("the time is another", plain, PayloadV1, signer(plain, ""))
	moved.Headers[HeaderStandardTimestamp], moved.Valid = "1705314606", false
	return append(list, tampered, foreign, moved)
}

func named(headers []Header) map[string]string {
	byName := map[string]string{}
	for _, h := range headers {
		byName[h.Name] = h.Value
	}
	return byName
}
