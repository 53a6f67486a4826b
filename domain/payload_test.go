package domain

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/google/uuid"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"pgregory.net/rapid"

	"github.com/medilab/webhooks/domain/strictjson"
)

func samplePayload() Payload {
	return Payload{
		PayloadEvent: PayloadEvent{
			EventType:     "patient.created",
			EventData:     []byte(`{ "z": 1.0, "a":"<Иван & \u0000>", "big":1e300 }`),
			EventID:       uuid.MustParse("0190163d-8694-739b-aea5-966c26f8ad91"),
			CorrelationID: "manual-trigger-001",
			Source:        "manual",
			OccurredAt:    time.Date(2024, 1, 15, 10, 30, 0, 123_999_999, time.UTC),
		},
		WebhookID:  uuid.MustParse("550e8400-e29b-41d4-a716-446655440000"),
		DeliveryID: uuid.MustParse("0190163d-8694-539b-8ea5-966c26f8ad92"),
		Timestamp:  time.Date(2024, 1, 15, 13, 30, 5, 999, time.FixedZone("MSK", 3*3600)),
		Attempt:    1,
	}
}

func TestPayloadGolden(t *testing.T) {
	bare := samplePayload()
	bare.CorrelationID, bare.Source, bare.Attempt = "", "", 4
	odd := samplePayload()
	odd.CorrelationID, odd.Source = "a\"b\\c\n</script>", "регистратура №1"
	for _, c := range []struct {
		name string
		v    PayloadVersion
		p    Payload
		want string
	}{
		{"version 1", PayloadV1, samplePayload(),
			`{"event_type":"patient.created","event_data":{ "z": 1.0, "a":"<Иван & \u0000>", "big":1e300 },"webhook_id":"550e8400-e29b-41d4-a716-446655440000","timestamp":"2024-01-15T10:30:05Z","attempt":1}`},
		{"version 2", PayloadV2, samplePayload(),
			`{"event_type":"patient.created","event_data":{ "z": 1.0, "a":"<Иван & \u0000>", "big":1e300 },"webhook_id":"550e8400-e29b-41d4-a716-446655440000","timestamp":"2024-01-15T10:30:05Z","attempt":1,"event_id":"0190163d-8694-739b-aea5-966c26f8ad91","delivery_id":"0190163d-8694-539b-8ea5-966c26f8ad92","correlation_id":"manual-trigger-001","source":"manual","occurred_at":"2024-01-15T10:30:00.123Z","payload_version":"2"}`},
		{"version 2 bare", PayloadV2, bare,
			`{"event_type":"patient.created","event_data":{ "z": 1.0, "a":"<Иван & \u0000>", "big":1e300 },"webhook_id":"550e8400-e29b-41d4-a716-446655440000","timestamp":"2024-01-15T10:30:05Z","attempt":4,"event_id":"0190163d-8694-739b-aea5-966c26f8ad91","delivery_id":"0190163d-8694-539b-8ea5-966c26f8ad92","correlation_id":null,"source":null,"occurred_at":"2024-01-15T10:30:00.123Z","payload_version":"2"}`},
		{"cloudevents", PayloadCloudEvents, samplePayload(),
			`{"specversion":"1.0","id":"0190163d-8694-739b-aea5-966c26f8ad91","source":"manual","type":"patient.created","time":"2024-01-15T10:30:00.123Z","datacontenttype":"application/json","deliveryid":"0190163d-8694-539b-8ea5-966c26f8ad92","webhookid":"550e8400-e29b-41d4-a716-446655440000","attempt":1,"correlationid":"manual-trigger-001","data":{ "z": 1.0, "a":"<Иван & \u0000>", "big":1e300 }}`},
		{"cloudevents bare", PayloadCloudEvents, bare,
			`{"specversion":"1.0","id":"0190163d-8694-739b-aea5-966c26f8ad91","source":"/medilab","type":"patient.created","time":"2024-01-15T10:30:00.123Z","datacontenttype":"application/json","deliveryid":"0190163d-8694-539b-8ea5-966c26f8ad92","webhookid":"550e8400-e29b-41d4-a716-446655440000","attempt":4,"data":{ "z": 1.0, "a":"<Иван & \u0000>", "big":1e300 }}`},
		{"cloudevents odd", PayloadCloudEvents, odd,
			`{"specversion":"1.0","id":"0190163d-8694-739b-aea5-966c26f8ad91","source":"/medilab/%D1%80%D0%B5%D0%B3%D0%B8%D1%81%D1%82%D1%80%D0%B0%D1%82%D1%83%D1%80%D0%B0%20%E2%84%961","type":"patient.created","time":"2024-01-15T10:30:00.123Z","datacontenttype":"application/json","deliveryid":"0190163d-8694-539b-8ea5-966c26f8ad92","webhookid":"550e8400-e29b-41d4-a716-446655440000","attempt":1,"correlationid":"a\"b\\c` + "\uFFFD" + `</script>","data":{ "z": 1.0, "a":"<Иван & \u0000>", "big":1e300 }}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := AppendPayload([]byte("before "), c.v, c.p)
			if string(got) != "before "+c.want {
				t.Fatalf("got  %s\nwant        %s", got, c.want)
			}
			if !json.Valid(got[len("before "):]) {
				t.Fatal("not valid JSON")
			}
		})
	}
}

func TestBatchPayloadGolden(t *testing.T) {
	p := samplePayload()
	batch := Payload{WebhookID: p.WebhookID, DeliveryID: p.DeliveryID, Timestamp: p.Timestamp, Attempt: 2, Events: []PayloadEvent{
		{EventType: "patient.created", EventData: []byte(`{"a": 1}`), EventID: p.EventID, CorrelationID: "c-1", Source: "manual", OccurredAt: p.OccurredAt},
		{EventType: "visit.completed", EventData: []byte(`{}`), EventID: p.DeliveryID, OccurredAt: p.OccurredAt},
	}}
	want := `{"batch":true,"events":[` +
		`{"event_type":"patient.created","event_data":{"a": 1},"event_id":"0190163d-8694-739b-aea5-966c26f8ad91"},` +
		`{"event_type":"visit.completed","event_data":{},"event_id":"0190163d-8694-539b-8ea5-966c26f8ad92"}],` +
		`"webhook_id":"550e8400-e29b-41d4-a716-446655440000","timestamp":"2024-01-15T10:30:05Z","attempt":2}`
	if got := string(AppendPayload(nil, PayloadV1, batch)); got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
	body := AppendPayload(nil, PayloadV1, batch)
	got := Headers(PayloadV1, batch, body, Signer{})
	if headerNames(got) != "Content-Type User-Agent X-Webhook-Event X-Webhook-ID X-Webhook-Attempt X-Webhook-Delivery-ID X-Webhook-Payload-Version" {
		t.Fatalf("got %s", headerNames(got))
	}
	if headerValue(got, "X-Webhook-Event") != "batch" || headerValue(got, "Content-Type") != "application/json" || headerValue(got, "X-Webhook-Attempt") != "2" {
		t.Fatalf("got %v", got)
	}

	// CloudEvents have a batch of their own, in which each is as it is alone.
	var events []cloudevents.Event
	body = AppendPayload(nil, PayloadCloudEvents, batch)
	if err := json.Unmarshal(body, &events); err != nil || len(events) != 2 {
		t.Fatalf("%v in %s", err, body)
	}
	for i, e := range events {
		if err := e.Validate(); err != nil || e.ID() != batch.Events[i].EventID.String() || e.Type() != string(batch.Events[i].EventType) || string(e.Data()) != string(batch.Events[i].EventData) ||
			!e.Time().Equal(p.OccurredAt.Truncate(time.Millisecond)) || e.Extensions()["deliveryid"] != p.DeliveryID.String() || e.Extensions()["attempt"] != int32(2) {
			t.Errorf("%v: %s", err, e)
		}
	}
	if events[0].Source() != "manual" || events[0].Extensions()["correlationid"] != "c-1" || events[1].Source() != "/medilab" {
		t.Errorf("got %s", events)
	}
	got = Headers(PayloadCloudEvents, batch, body, Signer{})
	if headerValue(got, "Content-Type") != "application/cloudevents-batch+json" || headerValue(got, "X-Webhook-Payload-Version") != "cloudevents" || headerValue(got, "X-Webhook-Event") != "batch" {
		t.Errorf("got %v", got)
	}
}

func TestCloudEventIsReadByTheirLibrary(t *testing.T) {
	for _, source := range []string{"manual", "", "https://clinic.example/a?b=c", "urn:x:y", "100%", "a b", "про", ":", "//[", "a\x00b", "%zz"} {
		p := samplePayload()
		p.Source = source
		var e cloudevents.Event
		if err := json.Unmarshal(AppendPayload(nil, PayloadCloudEvents, p), &e); err != nil {
			t.Fatalf("source %q: %v", source, err)
		}
		if err := e.Validate(); err != nil {
			t.Fatalf("source %q: %v", source, err)
		}
		if e.ID() != p.EventID.String() || e.Type() != "patient.created" || e.Source() == "" || string(e.Data()) != string(p.EventData) {
			t.Fatalf("source %q: got %v", source, e)
		}
		if e.Extensions()["correlationid"] != "manual-trigger-001" || e.Extensions()["deliveryid"] != p.DeliveryID.String() {
			t.Fatalf("got %v", e.Extensions())
		}
	}
}

func TestHeadersGolden(t *testing.T) {
	p := samplePayload()
	body := AppendPayload(nil, PayloadV1, p)
	unsigned := Headers(PayloadV1, p, body, Signer{})
	want := []Header{
		{"Content-Type", "application/json"},
		{"User-Agent", "MediLab-Webhook/1.0"},
		{"X-Webhook-Event", "patient.created"},
		{"X-Webhook-ID", "550e8400-e29b-41d4-a716-446655440000"},
		{"X-Webhook-Attempt", "1"},
		{"X-Webhook-Event-ID", "0190163d-8694-739b-aea5-966c26f8ad91"},
		{"X-Webhook-Delivery-ID", "0190163d-8694-539b-8ea5-966c26f8ad92"},
		{"X-Webhook-Payload-Version", "1"},
	}
	if len(unsigned) != len(want) {
		t.Fatalf("got %v", unsigned)
	}
	for i := range want {
		if unsigned[i] != want[i] {
			t.Errorf("header %d: got %v, want %v", i, unsigned[i], want[i])
		}
	}
	if got := headerValue(Headers(PayloadCloudEvents, p, body, Signer{}), "Content-Type"); got != "application/cloudevents+json" {
		t.Errorf("got %q", got)
	}
}

func TestHeadersOfASignedCall(t *testing.T) {
	p := samplePayload()
	body := AppendPayload(nil, PayloadV2, p)
	now, before, first := NewSigningKey(NewSecret("new")), NewSigningKey(NewSecret("old")), NewSigningKey(NewSecret("first"))

	signed := Headers(PayloadV2, p, body, Signer{Current: now})
	if got := headerNames(signed); got != "Content-Type User-Agent X-Webhook-Event X-Webhook-ID X-Webhook-Attempt X-Webhook-Signature X-Webhook-Event-ID X-Webhook-Delivery-ID X-Webhook-Payload-Version webhook-id webhook-timestamp webhook-signature" {
		t.Fatalf("got %s", got)
	}
	if !guideVerify(string(body), headerValue(signed, HeaderSignature), "new") {
		t.Fatal("the guide's verifier refuses")
	}
	if headerValue(signed, HeaderStandardID) != p.DeliveryID.String() || headerValue(signed, HeaderStandardTimestamp) != strconv.FormatInt(p.Timestamp.Unix(), 10) {
		t.Fatalf("got %v", signed)
	}

	rotating := Headers(PayloadV2, p, body, Signer{Current: now, Previous: []*SigningKey{before, first}})
	if !guideVerify(string(body), headerValue(rotating, HeaderSignature), "new") || !guideVerify(string(body), headerValue(rotating, HeaderSignaturePrevious), "old") {
		t.Fatal("each secret signs under its own name")
	}
	sent := http.Header{}
	for _, h := range rotating {
		sent.Set(h.Name, h.Value)
	}
	for _, secret := range []string{"new", "old", "first"} {
		receiver, err := standardwebhooks.NewWebhookRaw([]byte(secret))
		if err != nil {
			t.Fatal(err)
		}
		if err := receiver.VerifyIgnoringTimestamp(body, sent); err != nil {
			t.Errorf("a receiver with the %s secret: %v", secret, err)
		}
	}
}

// A whsk_ secret signs as Standard Webhooks says, and makes none of the guide's signatures.
func TestHeadersOfAPrivateKey(t *testing.T) {
	p := samplePayload()
	body := AppendPayload(nil, PayloadV2, p)
	pair := ed25519.NewKeyFromSeed([]byte(strings.Repeat("s", ed25519.SeedSize)))
	secret := NewSecret("whsk_" + base64.StdEncoding.EncodeToString(pair))
	if refused := CheckSecret("secret", secret); refused != nil {
		t.Fatal(refused)
	}
	key := NewSigningKey(secret)
	signed := Headers(PayloadV2, p, body, Signer{Current: key, Previous: []*SigningKey{key, NewSigningKey(NewSecret("old"))}})
	if headerValue(signed, HeaderSignature) != "" || !guideVerify(string(body), headerValue(signed, HeaderSignaturePrevious), "old") {
		t.Errorf("got %v", signed)
	}
	signatures := strings.Fields(headerValue(signed, HeaderStandardSignature))
	encoded, ok := strings.CutPrefix(signatures[0], "v1a,")
	signature, err := base64.StdEncoding.DecodeString(encoded)
	public, isPublic := strings.CutPrefix(secret.PublicKey(), "whpk_")
	shown, _ := base64.StdEncoding.DecodeString(public)
	content := p.DeliveryID.String() + "." + strconv.FormatInt(p.Timestamp.Unix(), 10) + "." + string(body)
	if !ok || err != nil || !isPublic || !ed25519.Verify(shown, []byte(content), signature) || len(signatures) != 3 {
		t.Errorf("got %v, and the key %s", signatures, secret.PublicKey())
	}
	if !key.VerifyStandard(p.DeliveryID.String(), strconv.FormatInt(p.Timestamp.Unix(), 10), body, signatures[0]) || key.VerifyGuide(body, "sha256=") {
		t.Error("the key does not verify what it signed")
	}
	other := ed25519.NewKeyFromSeed([]byte(strings.Repeat("o", ed25519.SeedSize)))
	for name, wrong := range map[string][]byte{"the seed alone": pair[:32], "another's public key": slices.Concat(pair[:32], other[32:]), "nothing": nil, "more": append(slices.Clone(pair), 0)} {
		if CheckSecret("secret", NewSecret("whsk_"+base64.StdEncoding.EncodeToString(wrong))) == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func BenchmarkAppendPayload(b *testing.B) {
	p := samplePayload()
	p.EventData = []byte(`{"a":"` + strings.Repeat("x", 500) + `"}`)
	dst := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		dst = AppendPayload(dst[:0], PayloadV2, p)
	}
}

func headerNames(headers []Header) string {
	var all []string
	for _, h := range headers {
		all = append(all, h.Name)
	}
	return strings.Join(all, " ")
}

func headerValue(headers []Header, name string) string {
	for _, h := range headers {
		if h.Name == name {
			return h.Value
		}
	}
	return ""
}

func TestTimesAreWrittenAsPackageTimeWouldWriteThem(t *testing.T) {
	layouts := map[int]string{0: "2006-01-02T15:04:05Z", 3: "2006-01-02T15:04:05.000Z", 6: "2006-01-02T15:04:05.000000Z"}
	const stored = "2006-01-02T15:04:05.999999Z07:00"
	east := time.FixedZone("east", 5*3600+1800)
	rapid.Check(t, func(t *rapid.T) {
		at := time.Unix(rapid.Int64Range(-2e9, 2e11).Draw(t, "seconds"), rapid.Int64Range(0, 999_999_999).Draw(t, "nanoseconds")).In(east)
		for digits, layout := range layouts {
			if got, want := string(strictjson.AppendTime([]byte("at "), at, digits)), "at "+at.UTC().Format(layout); got != want {
				t.Errorf("%s, not %s", got, want)
			}
		}
		if got, want := string(appendStoredTime(nil, at)), `"`+at.UTC().Format(stored)+`"`; got != want {
			t.Errorf("stored as %s, not %s", got, want)
		}
	})
}
