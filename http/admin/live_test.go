package admin_test

import (
	"testing"

	"github.com/medilab/webhooks/cmd/e2e/harness"
)

// What happens after a page was read and before its stream begins is not missed.
func TestNothingIsMissedBeforeTheStreamBegins(t *testing.T) {
	u := newUser(t, "en")
	u.Before(`(() => {
		const real = fetch
		const released = new Promise((release) => { window.release = release })
		window.fetch = async (url, ...more) => {
			if (String(url).includes('/stream')) await released
			return real(url, ...more)
		}
	})()`)
	url, _ := receiver(t)
	id := u.webhook("Laboratory", url, "")
	u.signIn("API token", "Sign in")
	u.open("calls")
	u.See("There are no calls.")
	u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{}}`)
	harness.Until(t, "the call is listed", func() bool {
		return len(u.api("GET", "/webhooks/"+id+"/calls", "")["items"].([]any)) == 1
	})
	u.Is(`document.querySelectorAll('tbody tr').length === 0`)
	u.Wait(`window.release() || true`)
	u.Wait(`document.querySelectorAll('tbody tr').length === 1`)
}

// What a page shows of a patient goes when it is erased, also from what was read before.
func TestErasedDataLeavesOpenPages(t *testing.T) {
	u := newUser(t, "en")
	url, _ := receiver(t)
	id := u.webhook("Laboratory", url, "")
	event := u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{"patient_id":"17","name":"Testov"}}`)["event_id"].(string)
	var call string
	harness.Until(t, "the call is listed", func() bool {
		items := u.api("GET", "/webhooks/"+id+"/calls", "")["items"].([]any)
		if len(items) > 0 {
			call = items[0].(map[string]any)["call_id"].(string)
		}
		return call != ""
	})
	u.signIn("API token", "Sign in")
	tab := func() *user { return &user{u.Another(u.address), t, u.address, u.database} }
	calls, audit, form := tab(), tab(), tab()
	u.open("events/" + event)
	calls.open("webhooks/" + id + "/calls/" + call)
	audit.open("audit?event=" + event)
	audit.Wait(`[...document.querySelectorAll('.entries details')].some((one) => one.innerText.startsWith('Event') && (one.open = true))`)
	form.open("webhooks/" + id + "/edit")
	form.Wait(`document.querySelector('.bench button')`)
	form.Click("data")
	pages := []*user{u, calls, audit, form}
	for _, page := range pages {
		page.Wait(`document.querySelector('main').innerText.includes('Testov')`)
		page.Wait(`document.querySelector('.live.on')`)
	}
	u.api("POST", "/subjects/17/erase", `{"reason":"request 81"}`)
	for _, page := range pages {
		page.Wait(`!document.querySelector('main').innerText.includes('Testov')`)
	}
	u.See("The data is erased")
	u.Shot("live-erased-event")
	calls.See("The data is erased")
	calls.Shot("live-erased-call")
	audit.Is(`document.querySelector('.entries details[open]') !== null`)
}

// A list that is looked through goes on by itself where its first pages have no row.
func TestAListGoesOnPastPagesWithoutARow(t *testing.T) {
	u := newUser(t, "en")
	u.Before(`(() => {
		const real = fetch
		window.fetch = (url, ...more) => {
			const [path, query] = String(url).split('?')
			const asked = new URLSearchParams(query)
			if (!path.endsWith('/webhooks/calls') || asked.get('cursor') === 'second') return real(String(url).replace('&cursor=second', ''), ...more)
			return Promise.resolve(Response.json({ items: [], next_cursor: asked.get('cursor') === 'first' ? 'second' : 'first' }))
		}
	})()`)
	url, _ := receiver(t)
	id := u.webhook("Laboratory", url, "")
	u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{}}`)
	harness.Until(t, "the call is listed", func() bool {
		return len(u.api("GET", "/webhooks/"+id+"/calls", "")["items"].([]any)) == 1
	})
	u.signIn("API token", "Sign in")
	u.open("calls")
	u.Wait(`document.querySelectorAll('tbody tr').length === 1`)
}
