package admin_test

import (
	"testing"

	"github.com/medilab/webhooks/cmd/e2e/harness"
)

// The tab of a webhook's deliveries says how many there are, what is wrong, and since when each
// waits or has ended; reasons have room. Filtered lists are live, too, in their order.
func TestTheDeliveriesOfAWebhookSayHowItDoes(t *testing.T) {
	u := newUser(t, "en")
	u.Before(`(() => { // what is read by the clock does not hide what is live
		window.setInterval = () => 0
		window.reads = 0
		const real = fetch
		window.fetch = async (url, ...more) => {
			const response = await real(url, ...more)
			if (String(url).endsWith('/system/stats')) window.reads++
			return response
		}
	})()`)
	url, _ := receiver(t)
	id := u.webhook("Laboratory", url+"/broken", `,"max_retries":0`)
	trigger := func() string {
		t.Helper()
		return u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{}}`)["event_id"].(string)
	}
	failed := func(n int) (all []any) {
		t.Helper()
		harness.Until(t, "all have failed", func() bool {
			all = u.api("GET", "/webhooks/deliveries?state=failed", "")["items"].([]any)
			return len(all) == n
		})
		return all
	}
	first := trigger()
	failed(1)
	trigger()
	failed(2)
	u.Size(1440, 900)
	u.signIn("API token", "Sign in")
	u.open("webhooks/" + id + "/deliveries?response_status=5xx") // live of this page, not of the one before
	u.Wait(`document.querySelector('.tabs .count.bad')?.innerText === '2' && document.querySelectorAll('tbody tr').length === 2`)
	since := failed(2)[1].(map[string]any)["updated_at"].(string)
	u.Wait(`/^2 calls in a row have failed since \d.*\. The receiver answered 500\./.test(document.querySelector('.why')?.innerText)`)
	u.Is(`document.querySelector('.why b time').dateTime === '` + since + `'`)
	u.Is(`[...document.querySelectorAll('tbody tr')].every(r => /no further attempt\s+since \d/.test(r.innerText))`)
	u.Is(`[...document.querySelectorAll('tbody .cut, tbody .sub')].every(e => e.scrollWidth <= e.clientWidth)`)

	u.Wait(`document.querySelector('.live.on')`)
	trigger()
	u.Wait(`document.querySelectorAll('tbody tr').length === 3 && document.querySelector('.tabs .count.bad').innerText === '3'`)
	deliveries := failed(3)
	counted := func(n string) {
		u.Wait(`document.querySelector('#menu a[href="#/deliveries"] .count')?.innerText === '` + n + `'`)
	}
	counted("3")
	reads := u.Text(`String(reads)`)
	u.api("POST", "/webhooks/"+id+"/deactivate", "")
	u.Wait(`reads > ` + reads)
	for _, one := range deliveries {
		if one := one.(map[string]any); one["event_id"] == first {
			u.api("POST", "/webhooks/deliveries/"+one["delivery_id"].(string)+"/retry", "")
		}
	}
	u.Wait(`document.querySelectorAll('tbody tr').length === 2`)
	counted("2") // a retry changes no alert
	u.api("POST", "/webhooks/"+id+"/activate", "")
	u.Wait(`(rows => rows.length === 3 && rows[2].href.includes('` + first + `') && rows[2].closest('tr').querySelector('.num').innerText === '2')([...document.querySelectorAll('tbody td:first-child a')])`)

	u.open("webhooks/" + id + "/deliveries?state=failed&attempts_min=2")
	u.Wait(`document.querySelectorAll('tbody tr').length === 1 && document.querySelector('tbody a').href.includes('` + first + `')`)

	u.open("webhooks/" + id + "/calls/" + u.api("GET", "/webhooks/"+id+"/calls", "")["items"].([]any)[0].(map[string]any)["call_id"].(string))
	u.See("No call of this webhook has succeeded since")
	u.open("audit")
	u.Wait(`(all => ['Attempt at a delivery failed Laboratory', 'Event A new patient was created'].every(one => all.includes(one)))([...document.querySelectorAll('.what')].map(e => e.innerText))`)

	waits := u.webhook("Archive", url+"/broken", `,"retry_delay":3600`)
	trigger()
	u.open("webhooks/" + waits + "/deliveries?state=pending")
	u.See("1 call in a row has failed since")
	u.Wait(`document.querySelector('.tabs .count.warn')?.innerText === '1' && /waiting for \d/.test(document.querySelector('tbody').innerText)`)

	// Where nobody answered, it says so in words, and what to do.
	nobody := u.webhook("Nobody", "http://127.0.0.1:9/hook", `,"max_retries":0`)
	trigger()
	u.open("webhooks/" + nobody + "/deliveries")
	u.Wait(`(text => text?.includes('No connection to the receiver') && text.includes('The receiver cannot be reached'))(document.querySelector('tbody')?.innerText)`)
}
