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
