package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"testing"

	"github.com/medilab/webhooks/cmd/e2e/harness"
)

// guideSignature is what the guide's examples compute.
func guideSignature(body []byte, secret string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// Webhooks that change while deliveries wait for their retry.
func TestChangesWhileDeliveriesWait(t *testing.T) {
	t.Parallel()
	fails := func(w http.ResponseWriter, _ harness.Call) { w.WriteHeader(http.StatusInternalServerError) }
	p := start(t)
	const often = `{"retry_delay":1,"max_retries":10,"events":["visit.created"]}`
	paused, removed, moved, finished := harness.Receive(t, fails), harness.Receive(t, fails), harness.Receive(t, fails), harness.Receive(t, fails)
	elsewhere := harness.Receive(t, nil)
	// The clock that all others are held against: when its third attempt is there, theirs
	// would be.
	clock := harness.Receive(t, fails)
	wPaused, wRemoved, wMoved, wFinished := p.register(paused.URL, often), p.register(removed.URL, often), p.register(moved.URL, often), p.register(finished.URL, often)
	wClock := p.register(clock.URL, often)
	event := p.trigger(`{"event_type":"visit.created","event_data":{}}`)
	for _, in := range []*harness.Receiver{paused, removed, moved, finished, clock} {
		in.Await(1)
	}
	p.api(200, "POST", "/webhooks/"+wPaused.ID+"/deactivate", "", nil)
	p.api(204, "DELETE", "/webhooks/"+wRemoved.ID, "", nil)
	p.api(200, "PATCH", "/webhooks/"+wMoved.ID, `{"url":`+quoted(elsewhere.URL)+`}`, nil)
	p.api(200, "PATCH", "/webhooks/"+wFinished.ID, `{"max_retries":0}`, nil)
	pausedHad, removedHad, movedHad := len(paused.All()), len(removed.All()), len(moved.All())
	// What was under way when the webhook changed may arrive once more.
	late := len(clock.All())
	clock.Await(late + 3)
	if got := len(paused.All()); got > pausedHad+1 {
		t.Errorf("the deactivated webhook got %d calls after it was", got-pausedHad)
	}
	if got := len(removed.All()); got > removedHad+1 {
		t.Errorf("the deleted webhook got %d calls after it was", got-removedHad)
	}
	if got := len(moved.All()); got > movedHad+1 {
		t.Errorf("the address before got %d calls after the change", got-movedHad)
	}

	// What is triggered now reaches neither.
	other := p.trigger(`{"event_type":"visit.created","event_data":{"n":2}}`)
	state := func(event, webhook string) delivery {
		t.Helper()
		var list struct {
			Items []struct {
				delivery
				WebhookID string `json:"webhook_id"`
			}
		}
		p.api(200, "GET", "/webhooks/events/"+event+"/deliveries", "", &list)
		for _, item := range list.Items {
			if item.WebhookID == webhook {
				return item.delivery
			}
		}
		return delivery{}
	}
	p.Until("the changed address got the event", func() bool { return state(event, wMoved.ID).State == "delivered" })
	p.Until("the delivery without retries has failed", func() bool { return state(event, wFinished.ID).State == "failed" })
	p.Until("the deleted webhook's is cancelled", func() bool { return state(event, wRemoved.ID).State == "cancelled" })
	if d := state(event, wPaused.ID); d.State != "pending" {
		t.Errorf("the deactivated webhook's delivery is %+v", d)
	}
	p.Until("the other event is decided", func() bool { return state(other, wMoved.ID).State == "delivered" })
	if d := state(other, wPaused.ID); d.State != "" {
		t.Errorf("an inactive webhook was given %+v", d)
	}
	var explained struct {
		Items []struct {
			WebhookID string `json:"webhook_id"`
			Verdict   string
		}
	}
	p.api(200, "GET", "/webhooks/events/"+other+"/explain", "", &explained)
	verdicts := map[string]string{}
	for _, item := range explained.Items {
		verdicts[item.WebhookID] = item.Verdict
	}
	if verdicts[wPaused.ID] != "inactive" || verdicts[wRemoved.ID] != "" || verdicts[wMoved.ID] != "delivered" {
		t.Errorf("the verdicts are %v", verdicts)
	}

	// The call log has each attempt with the address that it went to.
	calls := p.calls(wMoved.ID)
	if calls[0].URL != moved.URL || calls[len(calls)-2].Status != "success" && calls[len(calls)-1].Status != "success" || calls[len(calls)-1].URL != elsewhere.URL {
		t.Errorf("the calls are %+v", calls)
	}
	if history := p.calls(wRemoved.ID); len(history) != len(removed.All()) {
		t.Errorf("the deleted webhook's log has %d calls, it got %d", len(history), len(removed.All()))
	}

	// Activated, it goes on where it was: the next attempt of the same delivery.
	before := len(paused.All())
	p.api(200, "POST", "/webhooks/"+wPaused.ID+"/activate", "", nil)
	next := paused.Await(before + 1)[before]
	if next.Delivery() != paused.All()[0].Delivery() {
		t.Errorf("after the activation came %v", next.Header)
	}
	seen := map[string]bool{}
	for _, r := range paused.All() {
		if seen[r.Attempt()] {
			t.Errorf("attempt %s came twice", r.Attempt())
		}
		seen[r.Attempt()] = true
	}
	p.api(204, "DELETE", "/webhooks/"+wClock.ID, "", nil)
	p.command(0, "", "audit", "verify")
}
