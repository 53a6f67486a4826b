package projections

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// All that is about a webhook or an event is found, and nothing that merely mentions it.
func TestAuditFindsAllThatIsAbout(t *testing.T) {
	b := newBench(t)
	w, batching, other := b.register(1), b.register(3), b.register(2)
	event := b.trigger("patient.created", "", w, batching) // two entries
	b.trigger("patient.created", "", other)
	_, err := b.log.Append(b.ctx, eventstore.Unit{Writes: []eventstore.Write{{Stream: "event-" + uuid.NewString(), Events: []eventstore.NewEvent{{
		Type: "event.triggered", Data: []byte(`{"event_type":"patient.created","recipients":[],"event_data":{"about":"` + w.String() + `"}}`)}}}}})
	if err != nil {
		t.Fatal(err)
	}
	delivery := domain.DeliveryOf(event, w)
	call := attempt(event, "patient.created", w, 1, 200, domain.OutcomeSuccess)
	b.append(delivery.Stream(), domain.DeliveryInterrupted{EventID: event, WebhookID: w, Attempt: 1}, domain.DeliveryOutcomeLate{Call: call})
	batch, batched, joined := domain.FormBatch(batching, []domain.Waiting{{BatchMember: domain.BatchMember{EventID: event, DeliveryID: domain.DeliveryOf(event, batching)}}})
	b.append(domain.DeliveryOf(event, batching).Stream(), joined[0])
	b.append(batch.Stream(), batched)
	b.append(batch.Stream(), domain.DeliveryRetryRequested{EventID: event, WebhookID: batching})
	replay := domain.ReplayID(uuid.Must(uuid.NewV7()))
	b.append(replay.Stream(), domain.ReplayRequested{ID: replay, WebhookID: w, From: time.Now(), To: time.Now()},
		domain.ReplayQueued{Deliveries: []domain.DeliveryID{delivery}}, domain.ReplayCompleted{})
	alert := domain.AlertID(uuid.New())
	b.append("alert-"+uuid.NewString(), domain.WebhookAlertRaised{ID: alert, WebhookID: w, Kind: domain.AlertTimeout},
		domain.WebhookAlertAcknowledged{ID: alert, WebhookID: w, Kind: domain.AlertTimeout})

	for _, test := range []struct {
		filter AuditFilter
		want   []Position
	}{
		{AuditFilter{}, nil},
		{AuditFilter{Webhook: w}, []Position{1, 5, 9, 10, 14, 15, 16, 17, 18}},
		{AuditFilter{Webhook: w, After: 9, Type: "replay.*"}, []Position{14, 15, 16}},
		{AuditFilter{Event: event}, []Position{4, 5, 9, 10, 11, 12, 13}},
		{AuditFilter{Event: event, Webhook: w}, []Position{5, 9, 10}},
		{AuditFilter{Event: event, Stream: delivery.Stream()}, []Position{9, 10}},
		{AuditFilter{Event: event, Stream: replay.Stream()}, nil},
	} {
		var got []Position
		if err := b.Audit(b.ctx, test.filter, func(e eventstore.Event) error { got = append(got, e.Position); return nil }); err != nil {
			t.Fatal(err)
		}
		if test.filter == (AuditFilter{}) {
			if len(got) != 18 {
				t.Fatalf("the log has %d entries", len(got))
			}
		} else if !slices.Equal(got, test.want) {
			t.Errorf("%+v: %v, want %v", test.filter, got, test.want)
		}
	}
}

func TestActorsAreFoundByNameAndID(t *testing.T) {
	b := newBench(t)
	actors := []string{"crm", "token:0198f0a0-0000-7000-8000-000000000001 (crm)", "token:0198f0a0-0000-7000-8000-000000000002 (crm (old) \"я\")", "jwt:crm", "crmx"}
	for i, actor := range actors {
		_, err := b.log.Append(b.ctx, eventstore.Unit{Writes: []eventstore.Write{{Stream: fmt.Sprint("a", i), Metadata: eventstore.Metadata{Actor: actor, CorrelationID: "crm\x00"},
			Events: []eventstore.NewEvent{{Type: "test.happened", Data: []byte(`{}`)}}}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	for wanted, want := range map[string][]Position{
		"crm": {1, 2, 4}, "crm (old) \"я\"": {3}, "0198f0a0-0000-7000-8000-000000000001": {2}, "token:0198f0a0-0000-7000-8000-000000000002": {3}, actors[1]: {2}, "(crm)": nil,
	} {
		var got []Position
		if err := b.Audit(b.ctx, AuditFilter{Actor: wanted}, func(e eventstore.Event) error { got = append(got, e.Position); return nil }); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", wanted, got, want)
		}
	}
}
