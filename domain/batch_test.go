package domain

import (
	"strings"
	"testing"
	"time"
)

func TestDecideBatch(t *testing.T) {
	now := goldenTime
	const mb = 1 << 20
	// Waiting deliveries: their sizes, under a rule, due or not.
	line := func(most int, due time.Duration, sizes ...int) []Waiting {
		waiting := make([]Waiting, len(sizes))
		for i, size := range sizes {
			waiting[i] = Waiting{Size: size, MaxEvents: most, DueAt: now.Add(due)}
		}
		return waiting
	}
	join := func(lines ...[]Waiting) (all []Waiting) {
		for _, l := range lines {
			all = append(all, l...)
		}
		return all
	}
	for _, c := range []struct {
		name    string
		waiting []Waiting
		want    int
	}{
		{"nothing waits", nil, 0},
		{"too few, not due", line(3, time.Second, 1, 1), 0},
		{"as many as it may hold", line(3, time.Second, 1, 1, 1), 3},
		{"more than it may hold", line(3, time.Second, 1, 1, 1, 1), 3},
		{"due to the moment", line(3, 0, 1), 1},
		{"one is due, all go", join(line(9, time.Second, 1), line(9, -1, 1), line(9, time.Hour, 1)), 3},
		{"one alone", line(1, time.Hour, 1, 1), 1},
		{"two large ones do not fit together", line(9, time.Hour, 6*mb, 6*mb), 1},
		{"two that fit, and a third that does not", line(9, time.Hour, 4*mb, 4*mb, 4*mb), 2},
		{"a body of exactly 10 MB", line(9, time.Hour, 5*mb-BatchMemberBytes, 5*mb-BatchMemberBytes), 2},
		{"one byte more", line(9, time.Hour, 5*mb-BatchMemberBytes, 5*mb-BatchMemberBytes+1), 1},
		{"one that is larger goes alone", line(9, time.Hour, 10*mb, 1), 1},
		{"one that is larger, with nothing after it", line(9, time.Hour, 10*mb), 1},
		{"large ones leave room for more", line(9, time.Hour, 4*mb, 4*mb), 0},
		{"the rule became smaller: what waits goes before it", join(line(9, time.Hour, 1, 1, 1), line(2, time.Hour, 1)), 3},
		{"the rule became larger: the old ones keep theirs", join(line(2, time.Hour, 1), line(9, time.Hour, 1, 1)), 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := DecideBatch(c.waiting, now); got != c.want {
				t.Errorf("%d go, want %d", got, c.want)
			}
		})
	}
}

func TestMembersStandAsTheirBatch(t *testing.T) {
	waiting := []Waiting{
		{BatchMember: BatchMember{EventID: goldenEvent, DeliveryID: goldenDelivery}, Size: 20},
		{BatchMember: BatchMember{EventID: EventID{1}, DeliveryID: DeliveryID{2}}, Size: 22},
	}
	id, batched, joined := FormBatch(goldenWebhook, waiting)
	if id == goldenDelivery || id != BatchOf(goldenDelivery) || batched.Size != 42 || len(joined) != 2 {
		t.Fatalf("%s, %+v, %+v", id, batched, joined)
	}
	var batch, member Delivery
	batch = batch.Evolve(batched, goldenTime)
	member = member.Evolve(joined[1], goldenTime)
	if batch.State != DeliveryPending || batch.EventID != goldenEvent || member.State != DeliveryJoined {
		t.Errorf("batch %+v, member %+v", batch, member)
	}
	call := goldenCall()
	batch = batch.Evolve(DeliverySucceeded{Call: call}, goldenTime)
	if got := member.In(batch); got.State != DeliveryDelivered || got.EventID != (EventID{1}) || got.BatchID != id || got.Attempts != call.Attempt {
		t.Errorf("the member stands as %+v", got)
	}
	// Asked for by itself, it is a delivery of its own again.
	member = member.Evolve(DeliveryRetryRequested{EventID: EventID{1}, WebhookID: goldenWebhook, Attempt: 1}, goldenTime)
	if member.State != DeliveryPending || member.BatchID != (DeliveryID{}) {
		t.Errorf("asked for again, it is %+v", member)
	}
	if err := CheckCancelMember(member, batch); err == nil {
		t.Error("one of two was taken out of their batch")
	}
}

// The body of a batch is never larger than what DecideBatch counted.
func TestBatchBodyIsBounded(t *testing.T) {
	longest := EventType(strings.Repeat("x", maxTypeLength))
	payload := Payload{Attempt: 1 << 30, Timestamp: goldenTime, Events: []PayloadEvent{
		{EventType: longest, EventData: []byte(`{}`)}, {EventType: longest, EventData: []byte(`{}`)},
	}}
	counted := 2 * (len(`{}`) + BatchMemberBytes)
	for _, version := range []PayloadVersion{PayloadV1, PayloadCloudEvents} {
		if body := AppendPayload(nil, version, payload); len(body) > counted {
			t.Errorf("%s: %d bytes, counted %d", version, len(body), counted)
		}
	}
}

// What a batch came to, of an event that was sent by itself since, is what it had come to before.
func TestInOfWhatWasReplayed(t *testing.T) {
	member := Delivery{EventID: EventID{1}}
	left := []LeftOut{{EventID: EventID{1}, Reason: CancelReplayed}}
	for name, batch := range map[string]Delivery{
		"all were":            {State: DeliveryWithdrawn, CancelReason: CancelReplayed},
		"the others arrived":  {State: DeliveryDelivered, LeftOut: left},
		"the others are sent": {State: DeliveryFailed, LeftOut: left},
	} {
		if got := member.In(batch); got.State != DeliveryFailed || got.CancelReason != "" {
			t.Errorf("%s: %s %s, want failed", name, got.State, got.CancelReason)
		}
	}
}

// A member that was still in its batch when a replay had sent the others was erased.
func TestInOfWhatWasNotReplayed(t *testing.T) {
	batch := Delivery{State: DeliveryWithdrawn, CancelReason: CancelReplayed, LastStatus: 500}
	for reason, member := range map[CancelReason]Delivery{
		CancelSubjectErased: {EventID: EventID{1}, State: DeliveryJoined},
		CancelExpired:       {EventID: EventID{1}, State: DeliveryWithdrawn, CancelReason: CancelExpired}, // it had left before
	} {
		if got := member.In(batch); got.State != DeliveryWithdrawn || got.CancelReason != reason || got.LastStatus != 500 {
			t.Errorf("%s %s, want cancelled as %s", got.State, got.CancelReason, reason)
		}
	}
}
