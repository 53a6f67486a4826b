package admin_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/chromedp/chromedp/kb"

	"github.com/medilab/webhooks/cmd/e2e/harness"
)

// A call says why it failed and what follows, shows to the byte what was sent, can be made again
// elsewhere, and is retried once a press; search leads to whatever has a key.
func TestACallAndItsEvent(t *testing.T) {
	t.Parallel()
	u := newUser(t, "en")
	var fails atomic.Bool
	var calls atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		if fails.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
		_, _ = io.WriteString(w, hostile)
	}))
	t.Cleanup(server.Close)
	fails.Store(true)
	lab := u.webhook("Лаборатория", server.URL+"/lab", `,"retry_delay":3600,"headers":{"X-Key":"secret-of-the-lab"}`)
	u.api("POST", "/webhooks", `{"name":"Точный","url":"`+server.URL+`/exact","events":["patient.created"],"filters":{"1.n":9007199254740992}}`)
	u.api("POST", "/webhooks", `{"name":"Архив","url":"`+server.URL+`/archive","events":["visit.created"]}`)
	const data = `{"9":1,"1":{"n":9007199254740993},"patient_id":"P-77"}`
	event := u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.created","correlation_id":"visit-318","event_data":`+data+`}`)["event_id"].(string)
	u.signIn("API token", "Sign in")

	// The list says how the deliveries of each event stand.
	u.Go(u.address + "/admin#/events")
	u.Wait(`document.querySelector('tbody .badge')?.innerText === 'pending'`)
	u.Shot("call-01-events")
	u.Is(`document.querySelector('tbody td a').href.includes('` + event + `')`)
	u.Wait(`(document.querySelector('tbody a').click(), true)`)
	u.See("9007199254740993")
	u.Is(`document.querySelector('.code').innerText.replace(/\s/g, '') === '` + data + `'`)
	u.See("1.n: wants 9007199254740992, the event has 9007199254740993")
	u.Click("not subscribed: 1")
	u.Wait(`location.hash.endsWith('verdict=type_not_subscribed') && document.querySelectorAll('tbody tr').length === 1 && document.querySelector('tbody').innerText.includes('Архив')`)
	u.Shot("call-02-event")

	// The call itself, found by its delivery.
	call := u.api("GET", "/webhooks/"+lab+"/calls", "")["items"].([]any)[0].(map[string]any)
	u.Go(u.address + "/admin#/webhooks/" + lab + "/calls/" + call["call_id"].(string))
	u.See("The receiver answered 500. The receiver itself failed: tell its owner.")
	u.See("number 2 of 4")
	// What is planned, an hour, two and four after one another, and when it ends.
	u.Wait(`document.querySelectorAll('.timeline li.muted').length === 3`)
	u.Is(`(times => times[1] - times[0] === 2 * 3600e3 && times[2] - times[1] === 4 * 3600e3)([...document.querySelectorAll('.timeline li.muted time:first-of-type')].filter(t => t.parentElement.matches('span:not(.grow)')).map(t => Date.parse(t.dateTime)))`)
	u.Is(`document.querySelector('.timeline li:last-child').innerText.includes('attempt 4 — if the one before fails; the last, after which the delivery is given up')`)
	u.See("9007199254740993")
	u.Is(`!window.pwned && !document.body.innerText.includes('secret-of-the-lab')`)
	u.Click("as sent")
	u.Wait(`document.querySelector('pre.foreign').innerText.includes('"event_data":` + data + `')`)
	u.See("bytes, unsigned")
	u.Shot("call-03-call")
	for button, want := range map[string]string{"curl": "curl -i -X POST '" + server.URL + "/lab'", "a Python test": "assertTrue(200 <= status < 300", "a JavaScript test": "assert.ok(response.ok"} {
		u.Click("Copy as")
		u.Click(button)
		u.Wait(fmt.Sprintf(`document.querySelector('dialog pre')?.innerText.includes(%s)`, quoted(want)))
		u.Is(`document.querySelector('dialog pre').innerText.includes('9007199254740993')`)
		u.Click("Close")
		u.Wait(`!document.querySelector('dialog')`)
	}

	u.Wait(`document.querySelector('.menu summary').focus() || document.activeElement.matches('.menu summary')`)
	u.Keys(kb.Enter + kb.Tab + kb.Enter)
	u.Wait(`document.querySelector('dialog pre')`)
	u.Keys(kb.Escape)
	u.Wait(`!document.querySelector('dialog')`)
	u.Is(`document.activeElement.matches('.menu summary')`) // the menu is closed, and keeps the focus

	// One press is one attempt, which shows by itself.
	fails.Store(false)
	u.Wait(`(() => { const b = [...document.querySelectorAll('main button')].find(b => b.innerText === 'Retry now'); if (b) { b.focus(); b.click(); b.click() } return Boolean(b) })()`)
	u.See("This was not the last attempt: the delivery succeeded later.")
	u.Wait(`document.querySelectorAll('.timeline li').length === 2`)
	u.Is(`document.activeElement.innerText === 'Retry now'`)
	if n := calls.Load(); n != 2 {
		t.Errorf("%d calls", n)
	}

	// Search, from the keyboard.
	for q, want := range map[string]string{"лаборат": "webhooks/" + lab, "visit-318": "events?correlation_id=visit-318", event: "events/" + event, "patient.upd": "events?event_type=patient.updated"} {
		u.Wait(`(document.activeElement.blur(), true)`)
		u.Keys("/")
		u.Wait(`document.activeElement.id === 'search'`)
		u.Fill("Search", q)
		u.Wait(`document.querySelectorAll('#found [role=option]').length > 1`)
		u.Keys(kb.Enter)
		u.Wait(`location.hash === '#/` + want + `' && document.activeElement.id === 'main'`)
	}
	u.Wait(`(document.activeElement.blur(), true)`)
	u.Fill("Search", "P-77")
	u.Wait(`document.querySelector('#found-0')?.innerText.includes('needs the right and a reason')`)
	u.Expect("network") // the reason is missing at first
	u.Keys(kb.Enter)
	u.Wait(`document.querySelector('dialog [name=answer]')`)
	u.Keys("request 81" + kb.Enter)
	u.Wait(`document.querySelector('#found-0')?.innerText.includes('patient was created')`)
	u.Shot("call-04-search")
	u.Keys(kb.Enter)
	u.Wait(`location.hash === '#/events/` + event + `'`)

	// Trigger by the example of the type.
	u.Go(u.address + "/admin#/events/new")
	u.Wait(`document.querySelector('textarea')?.value.length > 10`)
	u.Is(`[...document.querySelector('main select').options].every(o => o.text.endsWith(' · ' + o.value))`) // after its words
	first := u.Text(`document.querySelector('textarea').value`)
	u.Wait(`(() => { const s = document.querySelector('main select'); s.value = 'visit.completed'; s.dispatchEvent(new Event('change', { bubbles: true })); return true })()`)
	u.Wait(`document.querySelector('textarea').value !== ` + quoted(first))
	u.Shot("call-05-trigger")
	u.Wait(`(() => { const b = [...document.querySelectorAll('button[type=submit]')].find(b => b.innerText === 'Send'); b?.click(); b?.click(); return Boolean(b) })()`)
	u.Wait(`/#\/events\/[0-9a-f-]{36}$/.test(location.hash) && document.querySelector('h1').innerText === 'A visit was completed'`)
	if list := u.api("GET", "/webhooks/events?event_type=visit.completed", "")["items"].([]any); len(list) != 1 {
		t.Errorf("%d events of one press", len(list))
	}
	u.Go(u.address + "/admin#/webhooks/" + lab + "/calls/" + call["call_id"].(string))
	u.Wait(`document.querySelectorAll('.timeline li').length === 2`)
	u.shots("call")
}

// shots keeps the page as it is on a phone, in the dark and in Russian.
func (u *user) shots(name string) {
	u.Dark()
	u.Size(390, 844)
	u.Wait(`document.documentElement.scrollWidth <= 390`)
	u.Is(`[...document.querySelectorAll('main button, main a.button, main summary')].filter(e => e.checkVisibility()).every(e => e.getBoundingClientRect().height >= 43.5)`)
	u.Shot(name + "-06-phone-dark")
	u.Size(1440, 900)
	u.Wait(`(() => { [...document.querySelectorAll('button')].find(b => b.innerText === 'Русский')?.click(); return true })()`)
	u.See("Повторить сейчас")
	u.Is(`!/[a-z]{4,} [a-z]{4,}/i.test(document.querySelector('.why b').innerText)`)
	u.Shot(name + "-07-dark-ru")
}

// Without the right to payloads, what was sent and answered is shown as hidden.
func TestACallWithoutItsPayload(t *testing.T) {
	u := newUser(t, "ru")
	url, _ := receiver(t)
	lab := u.webhook("Лаборатория", url+"/broken", `,"max_retries":0`)
	event := u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{"patient_id":"P-77"}}`)["event_id"].(string)
	u.signIn("Токен API", "Войти", u.token("webhooks:read"))
	u.Go(u.address + "/admin#/events/" + event)
	u.See("Скрыто: у токена нет права payloads:read.")
	var call map[string]any
	harness.Until(t, "the call is listed", func() bool {
		items := u.api("GET", "/webhooks/"+lab+"/calls", "")["items"].([]any)
		if len(items) > 0 {
			call = items[0].(map[string]any)
		}
		return call != nil
	})
	u.Go(u.address + "/admin#/webhooks/" + lab + "/calls/" + call["call_id"].(string))
	u.See("Получатель ответил 500.")
	u.See("Повторов больше не будет: все попытки израсходованы.")
	u.Is(`document.body.innerText.match(/Скрыто/g).length === 2 && !document.body.innerText.includes('P-77')`)
	if text := u.Text(`document.querySelector('main').innerText`); strings.Contains(text, "curl") {
		t.Error("what is hidden can be copied")
	}
}

// token creates a token with the scopes.
func (u *user) token(scopes string) string {
	u.t.Helper()
	create := exec.CommandContext(u.t.Context(), harness.Program(u.t), "token", "create", "--name", "reader", "--scopes", scopes)
	create.Env = harness.Environment("DATABASE_URL="+u.database, "MEDILAB_DATA_DIR="+u.t.TempDir())
	token, err := create.Output()
	if err != nil {
		u.t.Fatal(err)
	}
	return strings.TrimSpace(string(token))
}

// failing starts a receiver that fails until it is told not to.
func failing(t *testing.T) (*httptest.Server, *atomic.Bool) {
	fails := new(atomic.Bool)
	fails.Store(true)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if fails.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	t.Cleanup(server.Close)
	return server, fails
}

// How events stand is live on every page of the list, also where many deliveries move at once.
func TestEveryPageOfEventsIsLive(t *testing.T) {
	u := newUser(t, "en")
	server, fails := failing(t)
	u.webhook("Laboratory", server.URL, `,"retry_delay":3600`)
	const events = 60 // more than a page
	for range events {
		u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{}}`)
	}
	var deliveries []any
	harness.Until(t, "all have failed once", func() bool {
		deliveries = u.api("GET", "/webhooks/deliveries?state=pending&limit=100", "")["items"].([]any)
		tried := 0
		for _, one := range deliveries {
			tried += int(one.(map[string]any)["attempts"].(float64))
		}
		return tried == events
	})
	u.signIn("API token", "Sign in")
	u.Go(u.address + "/admin#/events?event_type=patient.created")
	u.Click("Show more")
	stand := func(word string) {
		t.Helper()
		u.Wait(fmt.Sprintf(`(badges => badges.length === %d && badges.every(b => b.innerText === %q))([...document.querySelectorAll('tbody .badge')])`, events, word))
	}
	stand("pending")
	u.Wait(`document.querySelector('.live.on')`)
	fails.Store(false)
	for _, one := range deliveries {
		u.api("POST", "/webhooks/deliveries/"+one.(map[string]any)["delivery_id"].(string)+"/retry", "")
	}
	stand("delivered")
}

// A list of which several pages have no row says that there may be more, not that there is nothing.
func TestAnEmptyPageIsNotTheEnd(t *testing.T) {
	u := newUser(t, "en")
	id := u.webhook("Laboratory", "http://127.0.0.1:9/", "")
	u.Before(`(() => {
		const real = fetch
		window.fetch = (url, ...more) => {
			if (!String(url).includes('/disclosures')) return real(url, ...more)
			const page = Number(new URLSearchParams(String(url).split('?')[1]).get('cursor'))
			return Promise.resolve(Response.json({ items: [], next_cursor: page === 6 ? null : String(page + 1), covered_from: null }))
		}
	})()`)
	u.signIn("API token", "Sign in")
	u.Go(u.address + "/admin#/webhooks/" + id + "/disclosures")
	u.See("earlier ones have not been looked at yet")
	u.Is(`!document.querySelector('main').innerText.includes('Nobody’s data was sent here.')`)
	u.Click("Show more")
	u.See("Nobody’s data was sent here.")
}

// What is typed into a filter stays while the list is live, and a choice keeps the focus.
func TestFiltersKeepTheirTextAndFocus(t *testing.T) {
	u := newUser(t, "en")
	url, _ := receiver(t)
	u.webhook("Laboratory", url, "")
	trigger := func() {
		u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.created","correlation_id":"visit-318","event_data":{}}`)
	}
	trigger()
	u.signIn("API token", "Sign in")
	u.open("events?event_type=patient.created") // live of this page, not of the one before
	delivered := func(n int) {
		t.Helper()
		u.Wait(fmt.Sprintf(`[...document.querySelectorAll('tbody .badge')].filter(b => b.innerText === 'delivered').length === %d`, n))
	}
	delivered(1)
	u.Wait(`document.querySelector('.live.on')`)
	u.Fill("Correlation id", "visit-318")
	u.Wait(`document.activeElement.blur() || true`)
	trigger()
	delivered(2)
	u.Is(`document.querySelector('[name=correlation_id]').value === 'visit-318'`)
	u.Fill("Event type", "")
	u.Wait(`location.hash === '#/events?correlation_id=visit-318'`)
	u.Wait(`(window.looked = (window.looked ?? 0) + 1) > 3 && !document.querySelector('main [aria-busy]')`)
	u.Is(`document.activeElement.name === 'event_type'`)
	u.Wait(`history.back() || true`)
	u.Wait(`location.hash === '#/events?event_type=patient.created' && document.querySelector('[name=correlation_id]').value === ''`)
}

// However many webhooks got an event, its page is live for each of them, and says who got it before
// what was in it.
func TestAnEventOfManyDeliveriesIsLive(t *testing.T) {
	u := newUser(t, "en")
	server, fails := failing(t)
	const webhooks = 60 // more than a page
	for i := range webhooks {
		u.webhook(fmt.Sprint("Laboratory ", i), server.URL, `,"retry_delay":3600`)
	}
	event := u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{"department":"eyes"}}`)["event_id"].(string)
	var deliveries []any
	harness.Until(t, "all have failed once", func() bool {
		deliveries = u.api("GET", "/webhooks/events/"+event+"/deliveries?limit=100", "")["items"].([]any)
		tried := 0
		for _, one := range deliveries {
			tried += int(one.(map[string]any)["attempts"].(float64))
		}
		return tried == webhooks
	})
	u.signIn("API token", "Sign in")
	u.open("events/" + event)
	u.Click("Show more")
	rows := func(state, reason string) {
		t.Helper()
		u.Wait(fmt.Sprintf(`(rows => rows.length === %d && rows.every(r => r.querySelector('.badge').innerText === %q && r.querySelector('.sub').innerText === %q))([...document.querySelectorAll('.explain tbody tr')])`, webhooks, state, reason))
	}
	rows("pending", "The receiver answered 500")
	const order = `document.querySelector('.explain').compareDocumentPosition(document.querySelector('.code')) === Node.DOCUMENT_POSITION_FOLLOWING`
	u.Is(order)
	u.Wait(`document.querySelector('.live.on')`)
	fails.Store(false)
	for _, one := range deliveries {
		u.api("POST", "/webhooks/deliveries/"+one.(map[string]any)["delivery_id"].(string)+"/retry", "")
	}
	rows("delivered", "")
	u.See("delivered: 60")
	u.Wait(`document.querySelector('main .head .badge').innerText === 'delivered 20'`)

	// Who got an event is not behind pages of others.
	u.api("POST", "/webhooks", `{"name":"Last","url":"`+server.URL+`","events":["visit.created"]}`)
	event = u.api("POST", "/webhooks/events/trigger", `{"event_type":"visit.created","event_data":{}}`)["event_id"].(string)
	u.open("events/" + event)
	u.Wait(`(rows => rows.length === 1 && rows[0].innerText.startsWith('Last'))(document.querySelectorAll('.explain tbody tr'))`)
	u.Click("All: 61")
	u.Wait(`document.querySelectorAll('.explain tbody tr').length === 50`)
}
