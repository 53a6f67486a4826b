package admin_test

import (
	"testing"

	"github.com/chromedp/chromedp/kb"

	"github.com/medilab/webhooks/cmd/e2e/harness"
)

// One box finds whatever has a key, and leads to a page that shows it.
func TestSearchLeadsToEveryKindOfThing(t *testing.T) {
	t.Parallel()
	u := newUser(t, "en")
	url, _ := receiver(t)
	lab := u.webhook("Laboratory", url+"/lab/broken", `,"max_retries":0`)
	off := u.webhook("Archive", url+"/archive", `,"is_active":false`)
	event := u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.created","correlation_id":"visit-318","event_data":{"patient_id":"P-77"}}`)["event_id"].(string)
	u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.updated","event_data":{"patient_id":"P-78"}}`)
	var delivery string
	harness.Until(t, "the call is listed", func() bool {
		items := u.api("GET", "/webhooks/"+lab+"/calls", "")["items"].([]any)
		if len(items) > 0 {
			delivery = items[0].(map[string]any)["delivery_id"].(string)
		}
		return delivery != ""
	})
	u.api("POST", "/webhooks/", `{"name":"Paced","url":"`+url+`/paced","events":["patient.deleted"],"rate_limit":0.01}`)
	var waiting, of string // a delivery with no attempt yet: its turn comes after the first
	for _, state := range []string{"delivered", "pending"} {
		of = u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.deleted","event_data":{}}`)["event_id"].(string)
		harness.Until(t, "a delivery is "+state, func() bool {
			items := u.api("GET", "/webhooks/events/"+of+"/deliveries", "")["items"].([]any)
			if len(items) == 0 || items[0].(map[string]any)["state"] != state {
				return false
			}
			waiting = items[0].(map[string]any)["delivery_id"].(string)
			return true
		})
	}
	u.signIn("API token", "Sign in")

	rows := func(n string) string { return `document.querySelectorAll('main tbody tr').length === ` + n }
	look := func(q string) {
		t.Helper()
		u.Wait(`(document.activeElement.blur(), true)`)
		u.Keys("/")
		u.Fill("Search", q)
		u.Wait(`document.querySelector('#found-0')`)
	}
	for _, one := range []struct{ q, hash, shows string }{
		{event, "events/" + event, `document.querySelector('h1').innerText === 'A new patient was created'`},
		{delivery, "webhooks/" + lab + "/calls?delivery_id=" + delivery, rows("1")},
		{waiting, "events/" + of, `document.querySelector('h1').innerText === 'A patient was deleted'`},
		{"visit-318", "events?correlation_id=visit-318", rows("1")},
		{"laborat", "webhooks/" + lab, `document.querySelector('h1').innerText === 'Laboratory'`},
		{url + "/lab", "webhooks/" + lab, `document.querySelector('h1').innerText === 'Laboratory'`},
		{off, "webhooks/" + off, `document.querySelector('h1').innerText === 'Archive'`},
		{"patient.updated", "events?event_type=patient.updated", rows("1")},
		{"information was", "events?event_type=patient.updated", rows("1")}, // a type's name in words
		{"500", "calls?response_status=500", rows("1")},
		{"5xx", "calls?response_status=5xx", rows("1")},
	} {
		look(one.q)
		u.Keys(kb.Enter)
		u.Wait(`location.hash === ` + quoted("#/"+one.hash))
		u.Wait(`!document.querySelector('main [aria-busy]') && ` + one.shows)
	}
	u.Accessible("calls with a status")

	// What was found for the text before is not what Enter opens.
	look("laborat")
	u.Fill("Search", "archive")
	u.Keys(kb.Enter)
	u.Wait(`location.hash === ` + quoted("#/webhooks/"+off))

	// The same by hand; a patient needs a reason, which is asked for once.
	u.Expect("network")
	look("P-77")
	u.Wait(`document.querySelectorAll('#found li').length === 1`)
	u.Wait(`document.querySelector('#found-0').dispatchEvent(new MouseEvent('mousedown', { bubbles: true, cancelable: true })) || true`)
	u.Wait(`document.querySelector('dialog [name=answer]')`)
	u.Accessible("a patient's reason")
	u.Keys("request 81" + kb.Enter)
	u.Wait(`document.querySelector('#found-0')?.innerText.includes('patient was created')`)
	u.Accessible("what was found")
	u.Keys(kb.Enter)
	u.Wait(`location.hash === ` + quoted("#/events/"+event))
	look("P-0")
	u.Keys(kb.Enter)
	u.Wait(`document.querySelector('.search .none')?.innerText === 'Nothing was found'`)
	u.Keys(kb.Escape)
	u.Wait(`!document.querySelector('.search .none')`)

	// Esc returns the focus to where it was.
	u.Go(u.address + "/admin#/webhooks")
	u.Wait(rows("3") + ` && document.activeElement.id === 'main'`)
	u.Wait(`document.querySelectorAll('tbody a')[1].focus() || document.activeElement.matches('tbody a')`)
	u.Keys("/")
	u.Wait(`document.activeElement.id === 'search'`)
	u.Keys(kb.Escape)
	u.Wait(`document.activeElement === document.querySelectorAll('tbody a')[1]`)
}

// Without the right to patients' data, the box says so.
func TestSearchForAPatientWithoutTheRight(t *testing.T) {
	u := newUser(t, "ru")
	u.Expect("network")
	u.signIn("Токен API", "Войти", u.token("webhooks:read"))
	u.Keys("/")
	u.Fill("Поиск", "P-77")
	u.Wait(`document.querySelector('#found-0')`)
	u.Keys(kb.Enter)
	u.Wait(`document.querySelector('.search .none')?.innerText.includes('payloads:read')`)
	u.Is(`!document.querySelector('dialog') && !/[a-z]{4,} [a-z]{4,}/i.test(document.querySelector('.search .none').innerText)`)
	u.Accessible("what the right lacks")
}
