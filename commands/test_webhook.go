package commands

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/eventstore/cpulimit"
)

// Tested is a test call that was made and recorded.
type Tested struct {
	Call       domain.Call
	CallID     domain.CallID
	DeliveryID domain.DeliveryID
	// Verdict says whether a real event like it would have gone to the webhook.
	Verdict domain.Explanation
}

// TestWebhook calls the webhook once and at once with an event that is only in
// this call: also when it is inactive, and whatever it subscribes to. The data
// has passed domain.CheckJSON and is copied.
func (c *Commands) TestWebhook(ctx context.Context, caller Caller, id domain.WebhookID, eventType domain.EventType, data json.RawMessage) (Tested, error) {
	_, refused := c.webhook(ctx, id)
	if refused == nil {
		refused = c.checkTest(eventType, data)
	}
	w, _ := c.Directory.Webhook(id) // deleted or not
	event, made, err := c.testOnce(ctx, domain.EventID(uuid.Must(uuid.NewV7())), w, refused)
	if err != nil {
		return Tested{}, err
	}
	tested := Tested{DeliveryID: domain.DeliveryOf(event, id)}
	data = append(json.RawMessage(nil), data...)
	if tested.Verdict, err = c.verdict(ctx, w, eventType, data); err != nil {
		return Tested{}, Failed("match a test call", err)
	}
	if made != nil {
		tested.Call, tested.CallID = made.Value.(domain.DeliveryTested).Call, domain.CallAt(tested.DeliveryID, int64(made.Position))
		return tested, nil
	}

	triggered, at := TestEvent(event, eventType, data)

	// A receiver may see the call whether or not the caller still waits for it, so
	// it is made and recorded to its end.
	ctx = context.WithoutCancel(ctx)
	attempt := Attempt{Webhook: w, Delivery: tested.DeliveryID, Number: 1, EventID: event, OccurredAt: at, Event: triggered}
	if w.Batch != nil {
		attempt = attempt.InBatch()
	}
	tested.Call, _ = c.Attempter.Make(ctx, attempt)
	tested.Call.EventType = string(eventType) // also in a batch
	recorded := domain.DeliveryTested{Call: tested.Call, EventData: data}
	appended, err := c.begin(ctx, caller, tested.DeliveryID.Stream(), recorded)
	if err != nil {
		return Tested{}, Failed("record a test call", err)
	}
	tested.CallID = domain.CallAt(tested.DeliveryID, int64(appended.First))
	return tested, nil
}

// testOnce reserves the key of the request, if it has one, before the call is made. When an
// earlier request has it, the event is that one's, and made its test, which it waits for. What
// is refused now may be a repetition: its webhook may have been deleted since.
func (c *Commands) testOnce(ctx context.Context, event domain.EventID, w domain.Webhook, refused error) (_ domain.EventID, made *eventstore.Event, err error) {
	once, ok := ctx.Value(onceKey{}).(*Once)
	if !ok {
		return event, nil, refused
	}
	if refused == nil {
		unit := eventstore.Unit{Writes: []eventstore.Write{once.reservation(event)}}
		if _, err = c.Directory.appendUnit(ctx, unit); !eventstore.IsConflict(err) {
			once.used.Store(err == nil)
			return event, nil, Failed("reserve an idempotency key", err)
		}
	}
	patience := time.Duration(w.Timeout)*time.Second + repetitionPatience
	err = c.awaitFirst(ctx, once, patience, func(used domain.IdempotencyKeyUsed) (bool, error) {
		event = used.EventIDs[0]
		events, err := c.Log.Load(ctx, domain.DeliveryOf(event, w.ID).Stream())
		if err != nil || len(events) == 0 {
			return false, Failed("look for a test call", err)
		}
		if _, ok := events[0].Value.(domain.DeliveryTested); !ok {
			return false, domain.Internal("read a test call", events[0].Err)
		}
		made = &events[0]
		once.used.Store(true)
		return true, nil
	})
	if refused != nil && errors.Is(err, errUnused) {
		err = refused
	}
	return event, made, err
}

// verdict returns whether an event would go to the webhook. A filter may look for long.
func (c *Commands) verdict(ctx context.Context, w domain.Webhook, eventType domain.EventType, data json.RawMessage) (domain.Explanation, error) {
	task := c.Log.Limiter.Task()
	defer task.End()
	if w.Filters != nil {
		if err := task.Spend(ctx, cpulimit.Expensive); err != nil {
			return domain.Explanation{}, err
		}
	}
	verdict, _ := c.Directory.registry().ExplainOne(w.ID, eventType, data)
	return verdict, nil
}

// checkTest is the rules of a triggered event, under the names of a test's
// fields; the service's own types can be tested too.
func (c *Commands) checkTest(eventType domain.EventType, data json.RawMessage) error {
	var refused []domain.FieldError
	if _, known := c.Catalog.Find(eventType); !known {
		refused = c.Catalog.CheckEventType(eventType)
	}
	if len(data) == 0 || data[0] != '{' {
		refused = append(refused, domain.FieldError{Field: "test_data", Message: "must be a JSON object"})
	}
	return domain.CheckFields(refused)
}

// TestEvent is the event of a test call and when it occurred, which is in its
// id: so the call's body can be computed from the record of the call.
func TestEvent(id domain.EventID, eventType domain.EventType, data json.RawMessage) (domain.EventTriggered, time.Time) {
	event := domain.EventTriggered{EventType: string(eventType), Source: "test", EventData: data}
	return event, time.Unix(uuid.UUID(id).Time().UnixTime()).UTC()
}
