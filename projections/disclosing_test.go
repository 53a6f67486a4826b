package projections

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/envelope"
	"github.com/medilab/webhooks/eventstore"
)

// A call that was cut off sent nothing of what was erased before the call was due, and maybe what
// was erased since: also when somebody asked for it again meanwhile.
func TestCutOffCallBesideAnErasure(t *testing.T) {
	owner := envelope.Owner{7}
	key, err := envelope.KeyOf(envelope.KeyID{Owner: owner}, make([]byte, 32), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	event, webhook := domain.EventID(uuid.New()), domain.WebhookID(uuid.New())
	stream := domain.DeliveryOf(event, webhook).Stream()
	asked := domain.DeliveryRetryRequested{EventID: event, WebhookID: webhook, Attempt: 1}
	erased := domain.SubjectErased{}
	for name, c := range map[string]struct {
		asked []int // seconds
		want  int
	}{
		"due before":                  {[]int{10}, 1},
		"due before, asked for again": {[]int{10, 30}, 1},
		"due after":                   {[]int{30}, 0},
	} {
		const erasedAt = 20
		at := func(second int, change domain.Change) eventstore.Event {
			return eventstore.Event{Position: Position(second), Value: change, RecordedAt: time.Unix(int64(second), 0), Metadata: []byte(`{}`)}
		}
		var history []eventstore.Event
		for _, second := range c.asked {
			history = append(history, at(second, asked))
		}
		history = append(history, at(40, domain.DeliveryInterrupted{EventID: event, EventType: "patient.created", WebhookID: webhook, Attempt: 1}))
		source := at(1, domain.EventTriggered{Content: domain.Content{Keys: envelope.Keys{&key}}})
		s := &disclosed{source: &source, event: Event{ID: event, Gone: Gone{Erased: true}}, at: map[disclosedAs]int{}, disclosing: &disclosing{
			streams:  map[string][]eventstore.Event{stream: history, domain.SubjectStream(owner): {at(erasedAt, erased)}},
			webhooks: map[domain.WebhookID][]HistoryEntry{webhook: {}},
		}}
		if err := s.addStream(stream, SentByDispatch); err != nil || len(s.items) != c.want {
			t.Errorf("%s: %d disclosed, %v; want %d", name, len(s.items), err, c.want)
		}
	}
}

// Whether a receiver acknowledged what a call sent that was cut off is not known, however that is on
// record, until its end is.
func TestAcknowledgementOfCutOffCalls(t *testing.T) {
	call := func(outcome domain.Outcome) domain.Call { return domain.Call{Attempt: 1, Outcome: outcome} }
	cut := domain.DeliveryOutcomeLate{Call: call(domain.OutcomeInterrupted)}
	timeout := domain.DeliveryOutcomeLate{Call: call(domain.OutcomeTimeout)}
	for name, c := range map[string]struct {
		changes []domain.Change
		want    Acknowledgement
	}{
		"cut off after its delivery was cancelled": {[]domain.Change{cut}, AcknowledgedUnknown},
		"ended after its delivery was cancelled":   {[]domain.Change{timeout}, NotAcknowledged},
		"cut off, as another node says":            {[]domain.Change{domain.DeliveryInterrupted{Attempt: 1}}, AcknowledgedUnknown},
		"which ended":                              {[]domain.Change{domain.DeliveryInterrupted{Attempt: 1}, timeout}, NotAcknowledged},
	} {
		var item Disclosure
		for _, change := range c.changes {
			recorded, ok := callOf(change)
			if !ok {
				t.Fatalf("%s: %T is no call", name, change)
			}
			item.add(recorded, &eventstore.Event{Value: change})
		}
		if item.Acknowledged != c.want {
			t.Errorf("%s: acknowledged is %s, want %s", name, item.Acknowledged, c.want)
		}
	}
}
