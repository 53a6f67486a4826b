package domain

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"
)

var update = flag.Bool("update", false, "write the golden files of events that have none yet")

var (
	goldenWebhook  = WebhookID(uuid.MustParse("550e8400-e29b-41d4-a716-446655440000"))
	goldenEvent    = EventID(uuid.MustParse("0190163d-8694-739b-aea5-966c26f8ad91"))
	goldenDelivery = DeliveryID(uuid.MustParse("0190163d-8694-839b-aea5-966c26f8ad92"))
	goldenToken    = TokenID(uuid.MustParse("6ba7b810-9dad-41d1-80b4-00c04fd430c8"))
	goldenReplay   = ReplayID(uuid.MustParse("0190163d-8694-739b-aea5-966c26f8ad93"))
	goldenTime     = time.Date(2024, 1, 15, 10, 30, 5, 123456000, time.UTC)
)

func goldenCall() Call {
	return Call{
		EventID: goldenEvent, EventType: "patient.created", WebhookID: goldenWebhook, WebhookVersion: 3,
		PayloadVersion: PayloadV1, Attempt: 2, URL: "https://crm.example.com/webhooks/patients",
		StartedAt: goldenTime, Duration: 12345, Outcome: OutcomeSuccess, Status: 200,
		Header: []HeaderField{{"Content-Type", "text/plain"}}, Body: []byte("ok"), Truncated: true,
	}
}

func hashedCall() Call {
	call := goldenCall()
	call.BodyHash = bytes.Repeat([]byte{0xab}, 32)
	return call
}

func replayedCall() Call {
	call := goldenCall()
	call.ReplayID = goldenReplay
	return call
}

func failedCall() Call {
	call := goldenCall()
	call.Outcome, call.Status, call.Error = OutcomeTimeout, 0, "no answer in 30 s"
	call.Header, call.Body, call.Truncated = nil, nil, false
	return call
}

func sealedCall() Call {
	call := goldenCall()
	call.Header, call.Body, call.Sealed = nil, nil, []byte("sealed")
	return call
}

// goldenChanges has every event of the log with every field set. The files in
// testdata/golden are what the log of a running clinic may hold: a file is only
// ever added, and what is in one must decode for ever. NAME.former.json is how it
// was stored before.
var goldenChanges = []Change{
	WebhookRegistered{
		ID: goldenWebhook, Number: 1, Name: "Интеграция с CRM", Description: "Отправка <данных> & событий",
		URL: "https://crm.example.com/webhooks/patients", Events: []string{"patient.created", "visit.*"},
		Headers: []SealedHeader{{"X-API-Key", "c2VhbGVk"}}, Secret: "c2VjcmV0",
		MaxRetries: 3, RetryDelay: 60, Timeout: 30, Filters: json.RawMessage(`{"department":"cardiology"}`),
		Batch: &Batch{MaxEvents: 100, MaxWait: 5}, PayloadVersion: PayloadV1, Active: true,
	},
	WebhookChanged{
		Name: ptr("Имя"), Description: ptr(""), URL: ptr("https://a.example/"), Events: &[]string{"*"},
		Headers: &[]SealedHeader{{"X-A", "c2VhbGVk"}}, Secret: ptr(Sealed("")), MaxRetries: ptr(0),
		RetryDelay: ptr(1), Timeout: ptr(300), Filters: ptr(json.RawMessage(`{}`)), Batch: &Batch{},
		PayloadVersion: ptr(PayloadCloudEvents),
	},
	WebhookActivated{},
	WebhookDeactivated{},
	WebhookDeactivated{Reason: DeactivatedGone},
	WebhookDeleted{},
	WebhookSecretRotated{Secret: "bmV3", PreviousUntil: goldenTime},
	WebhookResealed{Headers: []SealedHeader{{"X-API-Key", "cmVzZWFsZWQ="}}, Secret: "bmV3ZXI=", PreviousSecret: "b2xk"},
	WebhookRegistered{ID: goldenWebhook, Number: 1, Name: "key", Events: []string{"*"}, Secret: "c2VjcmV0", PublicKey: "whpk_a2V5", PayloadVersion: PayloadV1},
	WebhookChanged{Secret: ptr(Sealed("bmV3")), PublicKey: "whpk_a2V5"},
	WebhookRegistered{
		ID: goldenWebhook, Number: 1, Name: "few", Events: []string{"*"}, PayloadVersion: PayloadV1,
		Fields: []string{"patient_id", "visit.doctor"}, Recipient: &DataRecipient{Name: "Страховая", Country: "RU", Purpose: "оплата"},
	},
	WebhookChanged{Fields: &[]string{}, Recipient: &DataRecipient{}},
	WebhookSecretRotated{Secret: "bmV3", PublicKey: "whpk_a2V5", PreviousUntil: goldenTime},
	WebhookResealed{Headers: []SealedHeader{}, Secret: "bmV3ZXI=", PreviousSecret: "b2xk", OlderSecrets: []Sealed{"b2xkZXI="}},
	DataRead{Actor: "token:6ba7b810-9dad-41d1-80b4-00c04fd430c8 (crm)", What: "getEvent", IDs: []string{goldenEvent.String()}, Reason: "жалоба пациента"},
	DataRead{Actor: "admin", What: "auditEvents", IDs: []string{}, Asked: map[string]string{"after": "7", "event": goldenEvent.String()}},
	AdminActed{Action: AdminKeyRotated, Detail: "key 1234567890"},
	LogArchived{First: 1, ArchivedTo: 1000, To: goldenTime, SealBefore: "", Seal: "00ff", Entries: 1000, Earlier: 7, Kept: "aa", Totals: "3 rows", Manifest: "e30.e30.AA"},
	LogRestored{Restored: 1000, ArchivedTo: 500},
	PayloadsEncrypted{EncryptedTo: 500, Entries: 400, Seal: "00ff", Subjects: []SubjectEntries{{Owner: uuid.UUID(goldenWebhook), Positions: []int64{3, 7}}}},
	EventTriggered{
		EventType: "patient.created", Source: "manual", CorrelationID: "manual-trigger-001",
		EventData: json.RawMessage(`{ "z": 1.0, "a":"<Иван & \u0000>", "big":1e300 }`),
	},
	EventTriggered{
		EventType: "patient.created", Source: "manual", Recipients: []Recipient{
			{WebhookID: goldenWebhook, WebhookVersion: 3}, {WebhookID: goldenWebhook, WebhookVersion: 4, BatchWait: 5, BatchMax: 100},
		}, EventData: json.RawMessage(`{}`),
	},
	EventTriggered{EventType: "patient.created", Recipients: []Recipient{}, EventData: json.RawMessage(`{}`)},
	EventTriggered{EventType: "patient.created", OccurredAt: goldenTime, Recipients: []Recipient{}, EventData: json.RawMessage(`{}`)},
	EventTriggered{EventType: "patient.created", ClientEventID: goldenEvent, Recipients: []Recipient{}, EventData: json.RawMessage(`{}`)},
	EventTriggered{EventType: "patient.created", OccurredAt: goldenTime, Trace: Trace{Traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}, Imported: true, Recipients: []Recipient{}, EventData: json.RawMessage(`{}`)},
	EventDispatched{EventID: goldenEvent, EventType: "patient.created", Size: 48, Deliveries: []Dispatch{
		{goldenDelivery, Recipient{WebhookID: goldenWebhook, WebhookVersion: 3, BatchWait: 5, BatchMax: 100}},
	}},
	IdempotencyKeyUsed{EventIDs: []EventID{goldenEvent}, BodyHash: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
	IdempotencyKeyUsed{EventIDs: []EventID{}, WebhookVersion: 2, BodyHash: "9f86d081"},
	DeliverySucceeded{Call: goldenCall()},
	DeliverySucceeded{Call: hashedCall()},
	DeliveryAttemptFailed{Call: failedCall(), NextAttemptAt: goldenTime.Add(time.Minute), GaveUp: GaveUpRetriesExhausted},
	DeliveryAttemptFailed{Call: hashedCall(), NextAttemptAt: goldenTime.Add(time.Minute)},
	DeliveryInterrupted{EventID: goldenEvent, EventType: "patient.created", WebhookID: goldenWebhook, Attempt: 2, URL: "https://a.example/", Reason: "the process ended"},
	DeliveryCancelled{EventID: goldenEvent, WebhookID: goldenWebhook, Reason: CancelRequested},
	DeliveryRetryRequested{EventID: goldenEvent, WebhookID: goldenWebhook, Attempt: 3, Size: 48},
	DeliveryRetryRequested{EventID: goldenEvent, WebhookID: goldenWebhook, Attempt: 3, Size: 48, ReplayID: goldenReplay},
	DeliveryRetryCancelled{EventID: goldenEvent, WebhookID: goldenWebhook, ReplayID: goldenReplay},
	DeliveryRetryCancelled{EventID: goldenEvent, WebhookID: goldenWebhook, ReplayID: goldenReplay, Blocks: true},
	DeliveryCancelled{EventID: goldenEvent, WebhookID: goldenWebhook, Reason: CancelReplay, ReplayID: goldenReplay},
	DeliverySucceeded{Call: replayedCall()},
	IdempotencyKeyUsed{EventIDs: []EventID{}, ReplayID: goldenReplay, BodyHash: "9f86d081"},
	DeliveryOutcomeLate{Call: goldenCall()},
	DeliveryOutcomeLate{Call: goldenCall(), Counts: true},
	DeliveryBatched{WebhookID: goldenWebhook, Size: 48, Members: []BatchMember{{EventID: goldenEvent, DeliveryID: goldenDelivery}}},
	DeliveryJoinedBatch{EventID: goldenEvent, WebhookID: goldenWebhook, BatchID: BatchOf(goldenDelivery)},
	DeliveryTested{Call: goldenCall(), EventData: json.RawMessage(`{"test": true}`)},
	DeliveryTested{Call: sealedCall(), SealedData: []byte("sealed")},
	SubjectErased{Reason: "The patient asked for it"},
	SubjectErased{Reason: "The patient asked for it", ErasedAt: goldenTime},
	PayloadsExpired{Until: goldenTime},
	ReplayRequested{ID: goldenReplay, WebhookID: goldenWebhook, From: goldenTime, To: goldenTime.Add(time.Hour), EventTypes: []string{"patient.*"}, OnlyFailed: true, Matched: 2, WebhookVersion: 3},
	ReplayQueued{Deliveries: []DeliveryID{goldenDelivery}},
	ReplayRequested{ID: goldenReplay, Kind: KindRetry, EventTypes: []string{"patient.*"}, ResponseStatus: "5xx", Rate: 2.5},
	ReplayCounted{Matched: 2},
	ReplayQueued{Count: 2, Matched: 3, Next: 17},
	ReplayPaused{},
	ReplayResumed{},
	ReplayCancelled{},
	ReplayCompleted{},
	WebhookAlertRaised{ID: AlertID(goldenDelivery), WebhookID: goldenWebhook, Kind: AlertLowSuccessRate, Message: "72.5 % of the last 40 calls succeeded", Observed: 72.5, Limit: 90},
	WebhookAlertRaised{ID: AlertID(goldenDelivery), Kind: AlertNode, Message: "the server web/7 lacks free local ports", Nodes: []NodeLack{{"web/7", LacksPorts}}},
	WebhookAlertResolved{ID: AlertID(goldenDelivery), WebhookID: goldenWebhook, Kind: AlertLowSuccessRate, Message: "91.0 % of the last 44 calls succeeded"},
	WebhookAlertResolved{ID: AlertID(goldenDelivery), Kind: AlertNode, Message: "calls work again"},
	WebhookAlertRaised{ID: AlertID(goldenDelivery), WebhookID: goldenWebhook, Kind: AlertGivenUp, Message: "a delivery of patient.created ran out of retries after 4 attempts", Observed: 4, Limit: 4, Since: 7},
	WebhookAlertResolved{ID: AlertID(goldenDelivery), WebhookID: goldenWebhook, Kind: AlertGivenUp, Message: "the last was given up a day ago", Through: 9},
	WebhookAlertResolved{ID: AlertID(goldenDelivery), WebhookID: goldenWebhook, Kind: AlertTimeout, Message: "a call ended in time", Acknowledged: true},
	WebhookAlertAcknowledged{ID: AlertID(goldenDelivery), WebhookID: goldenWebhook, Kind: AlertTimeout},
	TokenCreated{ID: goldenToken, Name: "crm", Hash: "9f86d081", Prefix: "mlw_ab", Scopes: []Scope{ScopeEventsWrite}, ExpiresAt: goldenTime},
	TokenRevoked{},
	SessionStarted{ID: goldenToken, Hash: "ab12", Token: goldenToken, Actor: "jwt:anna", Scopes: []Scope{ScopeAdmin}, ExpiresAt: goldenTime},
	SessionEnded{},
	WebhookRegistered{ID: goldenWebhook, Number: 1, Name: "order", Events: []string{"*"}, PayloadVersion: PayloadV1, OrderBy: "patient_id", OrderOnFailure: OrderBlock, Sequence: true},
	WebhookChanged{OrderBy: ptr(""), OrderOnFailure: ptr(OrderSkip), Sequence: ptr(false)},
	EventTriggered{EventType: "patient.created", Recipients: []Recipient{
		{WebhookID: goldenWebhook, WebhookVersion: 3, Line: 9007199254740991, NumberedSince: 2},
	}, EventData: json.RawMessage(`{}`)},
	DeliverySucceeded{Call: orderedCall()},
	DeliveryAttemptFailed{Call: orderedCall(), GaveUp: GaveUpRetriesExhausted, Blocks: true},
	DeliveryInterrupted{EventID: goldenEvent, EventType: "patient.created", WebhookID: goldenWebhook, Attempt: 1, URL: "https://a.example/", Reason: "gone", Ordered: true},
	DeliveryCancelled{EventID: goldenEvent, WebhookID: goldenWebhook, Reason: CancelRequested, Was: DeliveryFailed},
	DeliveryCancelled{EventID: goldenEvent, WebhookID: goldenWebhook, Reason: CancelRequested, Waiting: true},
	DeliveryRetryCancelled{EventID: goldenEvent, WebhookID: goldenWebhook, ReplayID: goldenReplay, Waiting: true},
	DeliveryRetryRequested{EventID: goldenEvent, WebhookID: goldenWebhook, Attempt: 3, Size: 48, Line: 9007199254740991},
	DeliveryBatched{WebhookID: goldenWebhook, Size: 48, Members: []BatchMember{{EventID: goldenEvent, DeliveryID: goldenDelivery, Sequence: 7}}, Line: 1},
	WebhookRegistered{ID: goldenWebhook, Number: 1, Name: "paced", Events: []string{"*"}, PayloadVersion: PayloadV1, MaxConcurrent: 4, RateLimit: 0.5},
	WebhookChanged{MaxConcurrent: ptr(0), RateLimit: ptr(12.5)},
	WebhookRegistered{ID: goldenWebhook, Number: 1, Name: "strict", Events: []string{"*"}, PayloadVersion: PayloadV1, AutoDeactivateAfter: 86400},
	WebhookChanged{AutoDeactivateAfter: ptr(0)},
	WebhookRegistered{
		ID: goldenWebhook, Number: 1, Name: "oauth2", Events: []string{"*"}, PayloadVersion: PayloadV1,
		Auth: &Auth{Type: AuthOAuth2, TokenURL: "https://login.example/token", ClientID: "crm", ClientSecret: "c2VhbGVk", Scope: "calls.write"},
	},
	WebhookChanged{Auth: &Auth{}},
	WebhookChanged{Auth: &Auth{Type: AuthCertificate, Certificate: "c2VhbGVk", PrivateKey: "c2VhbGVkIHRvbw=="}},
	WebhookResealed{Headers: []SealedHeader{}, Auth: &Auth{Type: AuthOAuth2, TokenURL: "https://login.example/token", ClientID: "crm", ClientSecret: "c2VhbGVk"}},
	EventTriggered{EventType: "patient.created", Recipients: []Recipient{}, SealedSize: 48, Content: Content{Sealed: []byte("sealed")}},
	DeliverySucceeded{Call: sealedCall()},
	EventTriggered{EventType: "patient.created", Trace: Trace{
		Traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Tracestate: "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7",
	}, Recipients: []Recipient{}, EventData: json.RawMessage(`{}`)},
	DeliverySucceeded{Call: partCall()},
	DeliveryAttemptFailed{Call: systemCall(), GaveUp: GaveUpRetriesExhausted},
}

func systemCall() Call {
	call := failedCall()
	call.EventType, call.System = string(BatchEventType), true
	return call
}

func partCall() Call {
	call := hashedCall()
	call.EventType, call.LeftOut = string(BatchEventType), []LeftOut{{goldenEvent, CancelSubjectErased}, {goldenEvent, CancelExpired}}
	return call
}

func orderedCall() Call {
	call := goldenCall()
	call.Sequence, call.Ordered = 7, true
	return call
}

func ptr[T any](v T) *T { return &v }

func TestGoldenChanges(t *testing.T) {
	seen := map[string]int{}
	for _, change := range goldenChanges {
		name := change.ChangeType()
		file := name
		if seen[name]++; seen[name] > 1 {
			file += "." + strconv.Itoa(seen[name]) // a later form of it
		}
		t.Run(file, func(t *testing.T) {
			path := filepath.Join("testdata", "golden", file+".json")
			got := AppendJSON(nil, change)
			want, err := os.ReadFile(path)
			if os.IsNotExist(err) && *update {
				want = append(bytes.Clone(got), '\n')
				err = os.WriteFile(path, want, 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			if want = bytes.TrimSuffix(want, []byte("\n")); !bytes.Equal(got, want) {
				t.Errorf("stored as\n%s\nand the golden file has\n%s", got, want)
			}
			readsAs(t, name, want, change)
			former, err := os.ReadFile(filepath.Join("testdata", "golden", file+".former.json"))
			if err == nil {
				readsAs(t, name, former, change)
			} else if !os.IsNotExist(err) {
				t.Fatal(err)
			}
		})
	}
	for _, name := range slices.Sorted(maps.Keys(decoders)) {
		if seen[name] == 0 {
			t.Errorf("%s has no golden example", name)
		}
	}
}

func readsAs(t *testing.T, name string, data []byte, want Change) {
	t.Helper()
	got, err := Decode(name, data)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s\nreads as\n%+v\nand is\n%+v", data, got, want)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, c := range []struct{ name, changeType, data string }{
		{"an unknown name", "webhook.renamed", `{}`},
		{"no JSON", "webhook.registered", `{"id"`},
		{"another shape", "webhook.registered", `{"number":"one"}`},
	} {
		if change, err := Decode(c.changeType, []byte(c.data)); err == nil || change != nil {
			t.Errorf("%s: got %v, %v", c.name, change, err)
		}
	}
}
