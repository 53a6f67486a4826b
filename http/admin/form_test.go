package admin_test

import (
	"fmt"
	"strings"
	"testing"
)

// The form says as one types what the newest events would do, sends every field, and shows what
// is refused at its field.
func TestFormAndWorkbench(t *testing.T) {
	t.Parallel()
	u := newUser(t, "en")
	url, calls := receiver(t)
	for i, department := range []string{"cardiology", "eyes", "cardiology"} {
		u.api("POST", "/webhooks/events/trigger", fmt.Sprintf(`{"event_type":"patient.created","event_data":{"department":%q,"amount":12345678901234567890,"n":%d}}`, department, i))
	}
	u.signIn("API token", "Sign in")
	u.See("Three steps to the first delivered call")
	u.Go(u.address + "/admin#/webhooks/new")
	u.See("Choose events: the newest of them appear here.")

	// What is refused is said at its field, and the first one gets the focus.
	u.Expect("network")
	u.Fill("URL", "ftp://example.com")
	u.Click("Create")
	u.Wait(`document.activeElement.dataset.field === 'name' && document.activeElement.getAttribute('aria-invalid') === 'true'`)
	u.Is(`[...document.querySelectorAll('form [aria-invalid=true]')].map(c => c.dataset.field).join() === 'name,url,events'`)
	u.Is(`[...document.querySelectorAll('form [aria-invalid=true]')].every(c => c.getAttribute('aria-describedby').split(' ').every(id => document.getElementById(id)?.innerText))`)
	u.Shot("form-01-refused")

	// The workbench: all match, then a filter that is wrong, broken, right.
	u.Fill("Name", "Кардиология")
	u.Fill("URL", url+"/hook")
	u.Fill("The whole group patient.*", "on")
	u.See("3 of 3 would have matched.")
	u.Is(`document.querySelector('.picker').open`) // for the next one
	u.Fill("Filter", `{"department": {"$is": 1}}`)
	u.See("filters.department.$is: is not a known operator")
	u.Fill("Filter", "{\n  \"department\": cardiology}")
	u.See("This is not JSON: line 2")
	u.Fill("Filter", `{"department": "cardiology", "amount_min": 12345678901234567890}`)
	u.See("The filter is fine.")
	u.See("2 of 3 would have matched.")
	u.See(`department: wants "cardiology", has "eyes"`)
	u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.updated","event_data":{"department":"neurology"}}`)
	u.See(`department: wants "cardiology", has "neurology"`) // by itself
	u.Wait(`document.querySelector('.bench button').click() || true`)
	u.See(`"department": "neurology"`)
	u.Click("Run")
	u.See("Considered")
	u.Is(`[...document.querySelectorAll('.beside dl > div')].map(d => d.innerText.replace('\n', ' ')).join() === 'Considered 4,Match 2,Gained 2,Lost 0'`)

	// Every field goes out, and secrets are made here.
	u.Click("Generate")
	u.Is(`/^whsec_[A-Za-z0-9+\/]{43}=$/.test(document.querySelector('[data-field=secret]').value)`)
	u.See("Copy the secret before you save: it is not shown afterwards.")
	u.Click("Generate an ed25519 key")
	u.Wait(`/^whsk_[A-Za-z0-9+\/]{86}==$/.test(document.querySelector('[data-field=secret]').value)`)
	for label, value := range map[string]string{
		"Description": "для CRM", "Retries after the first attempt": "5", "Delay before a retry, s": "10", "Timeout of a call, s": "20",
		"Calls in flight at once, at most": "4", "Calls a second, at most": "0.5", "Deactivate after failures, s": "7200",
		"Format": "2", "Fields that are sent": "department\nn", "Gather events into batches": "on", "In order for the same": "patient_id",
		"When a delivery fails for good": "block", "Number deliveries (X-Webhook-Sequence)": "on", "Authentication": "oauth2",
		"Recipient of the data": "ООО «Сердце»", "Country": "RU", "Purpose": "лечение",
	} {
		u.Fill(label, value)
	}
	u.Fill("Events in a batch, at most", "7")
	u.Fill("URL of the token server", url+"/token")
	u.Fill("client_id", "clinic")
	u.Fill("client_secret", "secret-canary")
	u.Click("Add a header")
	u.Fill("Header name", "X-API-Key")
	u.Fill("Header value", "header-canary")

	// A menu click asks; the draft is there when the reader comes back.
	u.Click("Events")
	u.See("Leave the page?")
	u.Click("No")
	u.Is(`location.hash === '#/webhooks/new'`)
	u.Click("Events")
	u.Click("Leave")
	u.Wait(`document.querySelector('h1').innerText === 'Events'`)
	u.Go(u.address + "/admin#/webhooks/new")
	u.See("This is your unfinished draft.")
	u.Is(`document.querySelector('[data-field=name]').value === 'Кардиология' && document.querySelector('[data-field=secret]').value.startsWith('whsk_')`)
	u.Is(`!Object.values(sessionStorage).concat(Object.values(localStorage)).join().includes('canary')`)
	u.Shot("form-02-full")
	u.Click("Create")
	u.Wait(`document.querySelector('h1')?.innerText.startsWith('Кардиология')`)
	w := u.api("GET", "/webhooks/1", "")
	for name, want := range map[string]string{
		"events": "[patient.*]", "filters": "map[amount_min:1.2345678901234567e+19 department:cardiology]", "max_retries": "5", "retry_delay": "10", "timeout": "20",
		"max_concurrent": "4", "rate_limit": "0.5", "auto_deactivate_after": "7200", "payload_version": "2", "fields": "[department n]", "batch": "map[max_events:7 max_wait:5]",
		"order_by": "patient_id", "order_on_failure": "block", "sequence": "true", "headers": "map[X-API-Key:***]", "has_secret": "true", "is_active": "true", "description": "для CRM",
		"recipient": "map[country:RU name:ООО «Сердце» purpose:лечение]", "auth": "map[client_id:clinic client_secret:*** token_url:" + url + "/token type:oauth2]",
	} {
		if got := fmt.Sprint(w[name]); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if key, _ := w["public_key"].(string); !strings.HasPrefix(key, "whpk_") {
		t.Errorf("public key %q", key)
	}
	if calls.Load() != 0 {
		t.Errorf("%d calls were made", calls.Load())
	}
}

// What is no number is refused at its field. It clears nothing.
func TestWhatIsNoNumberIsRefused(t *testing.T) {
	u := newUser(t, "en")
	u.Expect("network")
	url, _ := receiver(t)
	id := u.webhook("CRM", url+"/hook", `,"rate_limit":5,"max_concurrent":2,"max_retries":7,"retry_delay":9,"batch":{"max_events":7,"max_wait":5}`)
	before := u.api("GET", "/webhooks/"+id, "")
	u.signIn("API token", "Sign in")
	u.Go(u.address + "/admin#/webhooks/" + id + "/edit")
	for _, one := range [][2]string{
		{"Calls a second, at most", "1,5"}, {"Calls in flight at once, at most", "Infinity"}, {"Retries after the first attempt", "seven"},
		{"Delay before a retry, s", "3,600"}, {"Events in a batch, at most", "1e"},
	} {
		u.Fill(one[0], one[1])
	}
	u.Click("Save")
	u.Wait(`[...document.querySelectorAll('form [aria-invalid=true]')].map(c => c.dataset.field).join() === 'max_retries,retry_delay,max_concurrent,rate_limit,batch.max_events'`)
	u.Shot("form-05-numbers")
	u.Fill("Timeout of a call, s", "soon")
	u.Click("Run")
	u.Wait(`document.querySelector('.beside .trouble')?.innerText.includes('max_retries: must be')`)
	if now := u.api("GET", "/webhooks/"+id, ""); fmt.Sprint(now) != fmt.Sprint(before) {
		t.Errorf("%v, want %v", now, before)
	}
}

// Somebody else's change is neither lost nor overwritten: what only they changed is taken over,
// what both changed is shown, and the reader chooses.
func TestFormMergesStaleVersions(t *testing.T) {
	u := newUser(t, "en")
	url, _ := receiver(t)
	id := u.webhook("CRM", url+"/hook", `,"headers":{"X-Key":"canary"},"description":"old"`)
	u.signIn("API token", "Sign in")
	u.See("CRM")
	u.Go(u.address + "/admin#/webhooks/" + id + "/edit")
	u.Fill("Name", "Mine")
	u.Fill("Description", "also mine")
	u.api("PATCH", "/webhooks/"+id, `{"name":"Theirs","timeout":77}`)
	u.Expect("network")
	u.Click("Save")
	u.See("Somebody else changed the webhook meanwhile")
	u.Is(`document.querySelectorAll('.conflict').length === 1 && document.querySelector('.conflict').innerText.includes('Theirs') && document.querySelector('.conflict').innerText.includes('Mine')`)
	u.Is(`document.querySelector('[data-field=timeout]').value === '77' && document.querySelector('[data-field=description]').value === 'also mine'`)
	u.Shot("form-03-stale")
	u.Click("Take theirs")
	u.Is(`document.querySelector('[data-field=name]').value === 'Theirs'`)
	u.Click("Save")
	u.Wait(`document.querySelector('h1')?.innerText.startsWith('Theirs')`)
	if w := u.api("GET", "/webhooks/"+id, ""); w["name"] != "Theirs" || w["description"] != "also mine" || w["timeout"] != 77.0 || fmt.Sprint(w["headers"]) != "map[X-Key:***]" {
		t.Errorf("%v", w)
	}

	// Other retries are tried on history, with a page of its own; a test call is a dialog.
	u.Go(u.address + "/admin#/webhooks/" + id + "/backtest")
	u.Fill("Timeout of a call, s", "10")
	u.Click("Run")
	u.See("Failed instead of delivered")
	u.Go(u.address + "/admin#/webhooks/" + id + "/edit")
	u.Click("Test call")
	u.Wait(`JSON.parse(document.querySelector('dialog textarea').value).email === 'ivan@example.com'`)
	u.Click("Send")
	u.See("A real event like this would be sent.")
	u.See(hostile)
	u.Shot("form-04-test")
}

// The history and the settings of a webhook are in the reader's words, a filter is as it was written.
func TestHistoryIsInWords(t *testing.T) {
	u := newUser(t, "ru")
	id := u.api("POST", "/webhooks", `{"name":"CRM","url":"http://127.0.0.1:9/","events":["visit.*","patient.created"],"timeout":10,
		"filters":{"9":1,"1":9007199254740993},"recipient":{"name":"ООО «Лаборатория»","country":"RU"}}`)["id"].(string)
	u.signIn("Токен API", "Войти")
	u.Go(u.address + "/admin#/webhooks/" + id + "/history")
	const events = "Визиты: вся группа, Создан новый пациент"
	for _, words := range []string{"события: " + events, "таймаут: 10 с", "получатель: ООО «Лаборатория» · RU", "порядок после неудачи: перейти к следующей", `{ "9": 1, "1": 9007199254740993 }`} {
		u.See(words)
	}
	u.Go(u.address + "/admin#/webhooks/" + id + "/settings")
	u.See(events)
	u.Is(`document.querySelector('main [title="visit.*"]') !== null`)
}

// However long the form is, its buttons are at hand, and hide no control that has the focus.
func TestTheButtonsOfTheFormAreAtHand(t *testing.T) {
	u := newUser(t, "en")
	u.signIn("API token", "Sign in")
	for _, size := range [][2]int64{{1440, 900}, {390, 844}} {
		u.Size(size[0], size[1])
		u.open("webhooks/new")
		u.Wait(`document.querySelectorAll('form .picker input').length > 20`)
		const shown = `(e => { const at = e.getBoundingClientRect(), top = document.elementFromPoint(at.x + at.width / 2, at.y + at.height / 2); return e.contains(top) })`
		u.Is(`[...document.querySelectorAll('main > .two > form > .actions > *')].every(` + shown + `)`)
		hidden := u.Text(`[...document.querySelectorAll('main > .two > form > section :is(input, select, textarea, summary, button)')].filter(e => e.checkVisibility()).filter(e => {
			e.focus()
			return document.activeElement !== e || !` + shown + `(e)
		}).map(e => e.outerHTML.slice(0, 80)).join()`)
		if hidden != "" {
			t.Errorf("at %d: the focus is hidden in %s", size[0], hidden)
		}
		u.Is(`[...document.querySelectorAll('main > .two > form > .actions > *')].every(` + shown + `)`)
		u.Shot(fmt.Sprintf("form-bar-%d", size[0]))
	}
}

// The workbench says that it looks at events, before there is an answer.
func TestTheWorkbenchIsBusyUntilItIsAnswered(t *testing.T) {
	u := newUser(t, "en")
	u.Before(`(() => {
		const real = fetch
		const released = new Promise((release) => { window.release = release })
		window.fetch = async (url, ...more) => {
			if (String(url).endsWith('/webhooks/backtest')) await released
			return real(url, ...more)
		}
	})()`)
	u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{}}`)
	u.signIn("API token", "Sign in")
	u.open("webhooks/new")
	u.Wait(`document.querySelector('.picker input:checked') || document.querySelector('.picker input')?.click()`)
	u.Wait(`document.querySelector('.beside [aria-busy=true]')?.innerText === 'Loading…'`)
	u.Wait(`release() || true`)
	u.Wait(`document.querySelectorAll('.bench li').length === 1`)
}
