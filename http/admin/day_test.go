package admin_test

import (
	"strings"
	"testing"
	"time"
)

func TestAWholeDayInThePanel(t *testing.T) {
	t.Parallel()
	u := newUser(t, "en")
	url, calls := receiver(t)

	// A wrong token is refused at its field; the right one stays in this tab only.
	u.Expect("network")
	u.Go(u.address + "/admin")
	u.Fill("API token", "no-such-token")
	u.Click("Sign in")
	u.See("The token is unknown, expired or revoked.")
	u.Is(`document.activeElement.getAttribute('aria-invalid') === 'true'`)
	u.Is(`sessionStorage.length === 0`)
	u.Shot("01-login")
	u.signIn("API token", "Sign in")
	u.See("Three steps to the first delivered call")
	u.Is(`sessionStorage.length === 0 && localStorage.length === 0 && document.cookie === ''`)
	u.Is(`!location.href.includes('token')`)

	// What the API refuses is said at its field.
	u.Click("New webhook")
	u.Wait(`document.querySelector('h1').innerText === 'New webhook'`)
	u.Fill("URL", "ftp://example.com")
	u.Fill("Timeout of a call, s", "301")
	u.Click("Create")
	u.Wait(`document.querySelectorAll('[aria-invalid]').length === 4`) // name, url, events, timeout
	u.Is(`[...document.querySelectorAll('[aria-invalid]')].every(c => c.getAttribute('aria-describedby').split(' ').some(id => document.getElementById(id).matches('.error') && document.getElementById(id).innerText !== ''))`)
	u.Wait(`document.activeElement.dataset.field === 'name'`)
	u.Shot("02-refused")

	u.Fill("Name", "Интеграция с CRM")
	u.Fill("URL", url+"/hook")
	u.Fill("Description", "Отправка данных о пациентах")
	u.Fill("Timeout of a call, s", "30")
	u.Fill("The whole group patient.*", "on")
	u.Click("Add a header")
	u.Fill("Header name", "X-API-Key")
	u.Fill("Header value", "header-value-canary")
	u.Fill("Secret", "webhook-secret-canary")
	u.Fill("Filter", `{"department":"cardiology","amount_min":12345678901234567890.5}`)
	u.Click("Create")
	u.Wait(`document.querySelector('h1')?.innerText === 'Интеграция с CRM'`)
	u.See("12345678901234567890.5") // no number was rounded on its way
	u.See("X-API-Key: ***")
	u.See("set, calls are signed")
	u.Is(`!document.body.innerText.includes('canary')`)
	u.Shot("03-settings")

	// Editing sends what changed and keeps secrets that nobody retyped.
	u.Click("Edit")
	u.Wait(`document.querySelector('h1').innerText === 'Edit the webhook'`)
	u.Is(`!document.body.innerHTML.includes('canary') && ![...document.querySelectorAll('input')].some(i => i.value.includes('canary'))`)
	u.Click("Run")
	u.See("Considered")
	u.Fill("Timeout of a call, s", "29")
	u.Click("Run")
	u.See("Delivered instead of failed")
	u.Fill("Timeout of a call, s", "30")
	u.Fill("Name", "CRM")
	u.Fill("Filter", "")
	u.Shot("04-edit")
	u.Click("Save")
	u.Wait(`document.querySelector('h1')?.innerText === 'CRM'`)
	u.See("none: all events match")
	u.See("X-API-Key: ***")
	u.See("set, calls are signed")

	// A test call shows what came back.
	u.Click("Test")
	u.See("One attempt, at once")
	u.Is(`JSON.parse(document.querySelector('textarea').value).email === 'ivan@example.com'`) // the type's example
	u.Click("Send")
	u.See("A real event like this would be sent.")
	u.See(hostile)
	u.Is(`document.body.innerText.includes('X-Webhook-Signature: sha256=')`)
	u.Shot("05-test")
	if calls.Load() != 1 {
		t.Errorf("the receiver saw %d calls, want 1", calls.Load())
	}

	// An event goes out; why, is explained.
	u.webhook("Broken", url+"/broken", `,"max_retries":1,"retry_delay":3600`)
	u.webhook("Filtered", url+"/filtered", `,"filters":{"department":"cardiology"}`)
	u.Click("Events")
	u.Click("Trigger an event")
	u.Wait(`document.querySelector('h1')?.innerText === 'New event'`)
	choose := func(eventType string) string {
		return `(s => { s.value = '` + eventType + `'; s.dispatchEvent(new Event('change')); return document.querySelector('textarea').value })(document.querySelector('main select, form select'))`
	}
	u.Wait(`JSON.parse(` + choose("payment.created") + `).payment_id === 7777`)
	u.Wait(`JSON.parse(` + choose("patient.created") + `).patient_id === 123`)
	u.Fill("Event data (event_data)", `[]`)
	u.Click("Send")
	u.See("Must be a JSON object.")
	u.Fill("Event data (event_data)", `{"patient_id": 1e400, "note": "`+strings.ReplaceAll(hostile, `"`, `\"`)+`"}`)
	u.Click("Send")
	u.Wait(`document.querySelectorAll('[aria-invalid=true], form .trouble').length === 1`)
	u.Fill("Event data (event_data)", `{"patient_id": 12345678901234567890, "department": "neurology", "note": "`+strings.ReplaceAll(hostile, `"`, `\"`)+`"}`)
	u.Fill("Correlation id", "a day in the panel")
	u.Click("Send")
	u.Wait(`document.querySelector('h1')?.innerText === 'A new patient was created'`)
	u.See("12345678901234567890")
	u.See("filtered out")
	u.See(`department: wants "cardiology", the event has "neurology"`)
	for range 50 { // until the deliveries have been made
		u.Click("Refresh")
		u.Wait(`document.querySelector('main').ariaBusy !== 'true' && !document.querySelector('main[aria-busy]')`)
		if u.Text(`String(document.body.innerText.includes('delivered') && document.body.innerText.includes('500'))`) == "true" {
			break
		}
	}
	u.See("delivered")
	u.See("pending")
	u.Shot("06-event")
	u.Click("Cancel")
	u.Click("Cancel the delivery") // the question's own button
	u.See("The delivery is cancelled.")
	u.See("cancelled")

	// The call log, its filters, and one call; everything hostile stays text.
	u.Click("Webhooks")
	u.Click("Broken")
	u.Click("Calls")
	u.Wait(`document.querySelectorAll('tbody tr').length === 1`)
	u.Fill("Result", "success")
	u.Click("Show")
	u.See("There are no calls.")
	u.Fill("Result", "failed")
	u.Click("Show")
	u.Wait(`document.querySelectorAll('tbody tr').length === 1`)
	u.Shot("07-calls")
	u.Wait(`document.querySelector('tbody a').click() || true`)
	u.See("The receiver’s answer")
	u.Wait(`document.querySelectorAll('main details').forEach(d => { d.open = true }) || document.querySelector('main details')`)
	u.See("X-Evil: " + hostile)
	u.Shot("08-call")
	u.Click("Broken")

	// Figures, with a chart.
	u.Click("Health")
	u.Wait(`document.querySelectorAll('.chart canvas').length === 2`)
	u.See("Response time")
	u.See("1 call in a row has failed since")
	u.See("The receiver itself failed: tell its owner.") // what to do
	u.Click("15 minutes")
	u.See("by the minute")
	u.Wait(`document.querySelectorAll('.chart canvas').length === 2`)
	u.Click("The same as a table")
	u.Wait(`document.querySelectorAll('details tbody tr').length === 1`)
	u.Shot("09-health")
	u.Click("System")
	u.See("Read models")
	u.See("Encryption keys")
	u.Shot("10-system")

	// Deactivate, activate, rotate, delete.
	u.Click("Webhooks")
	u.Click("Broken")
	u.Click("More")
	u.Click("Deactivate")
	u.See("The webhook is inactive.")
	u.Click("Activate")
	u.See("The webhook is active.")
	u.Click("More")
	u.Click("Rotate the secret")
	u.Shot("11-question")
	u.Click("Rotate the secret")
	u.See("Keep it: it is shown this once.")
	u.Click("Close")
	u.Click("History")
	u.See("Webhook activated")
	u.Wait(`document.querySelector('[title="webhook.activated"]') && document.querySelector('[title=is_active]').innerText === 'active'`)
	u.Is(`!document.querySelector('td code')`)
	u.Shot("12-history")
	u.Click("More")
	u.Click("Delete")
	u.Click("No")
	u.Click("More")
	u.Click("Delete")
	u.Click("Delete")
	u.Wait(`document.querySelector('h1')?.innerText === 'Webhooks' && !document.body.innerText.includes('Broken')`)
	u.Wait(`[...document.querySelectorAll('td')].some(td => td.innerText === '100 %')`)
	u.Shot("13-webhooks")

	// What was deleted keeps its history.
	u.Click("Events")
	u.Wait(`[...document.querySelectorAll('td')].some(td => td.innerText === 'a day in the panel')`)
	u.Wait(`document.querySelector('tbody a').click() || true`)
	u.Click("Broken")
	u.See("The webhook is deleted; its history stays.")
	u.See("Webhook deleted")
	u.Click("Calls")
	u.Wait(`document.querySelectorAll('tbody tr').length === 1`)

	// History is sent again, to one webhook.
	before := calls.Load()
	u.Click("Webhooks")
	u.Click("CRM")
	u.Wait(`[...document.querySelectorAll('.tabs a')].find(a => a.innerText === 'Jobs')?.click() || location.hash.endsWith('/replay')`)
	u.See("There were no jobs yet.")
	u.Click("New job")
	u.See("under the delivery ids that they had")
	u.Wait(`document.querySelector('[data-field=webhook]')?.value.endsWith('CRM')`)
	u.Fill("From", "")
	u.Click("Count and go on")
	u.See("Give a time.")
	u.Fill("From", time.Now().Add(-time.Hour).Format(localTime))
	u.Fill("To", time.Now().Add(time.Minute).Format(localTime))
	u.Click("Count and go on")
	u.See("Send 1 delivery?")
	u.Click("Send")
	u.See("What was asked for")
	state := func(want string) {
		t.Helper()
		u.Wait(`document.querySelector('main .head .badge')?.innerText === '` + want + `'`)
	}
	state("completed") // the next page's buttons are not this one's
	u.Wait(`[...document.querySelectorAll('.figure')].some(f => f.innerText === 'Delivered\n1')`)
	u.Shot("14-replay")
	if calls.Load() != before+1 {
		t.Errorf("the receiver saw %d calls of a replay, want 1", calls.Load()-before)
	}

	// One that waits is paused, goes on, and is cancelled when that is confirmed. Where jobs
	// were before, they still are found.
	crm := u.api("GET", "/webhooks/?q=CRM", "")["items"].([]any)[0].(map[string]any)["id"].(string)
	u.api("POST", "/webhooks/"+crm+"/deactivate", "")
	waits := u.api("POST", "/webhooks/"+crm+"/replay", `{"from":"2020-01-01T00:00:00Z","to":"2100-01-01T00:00:00Z"}`)["replay_id"].(string)
	u.Go(u.address + "/admin#/webhooks/" + crm + "/replay")
	u.Wait(`document.querySelectorAll('tbody tr').length === 2`)
	u.Go(u.address + "/admin#/webhooks/" + crm + "/replay/" + waits)
	u.Click("Pause")
	state("paused")
	u.Click("Resume")
	u.Wait(`[...document.querySelectorAll('button')].some(b => b.innerText === 'Pause')`)
	u.Click("Cancel the job")
	u.See("Cancel the job?")
	u.Click("No")
	u.Click("Cancel the job")
	u.See("What has not been sent will not be sent.")
	u.Click("Cancel the job")
	state("cancelled")
	u.Wait(`[...document.querySelectorAll('main button')].every(b => !['Pause', 'Resume', 'Cancel the job'].includes(b.innerText))`)

	// Signed out, nothing is left.
	u.Is(`window.pwned === undefined && document.querySelectorAll('main img, main script, main svg:not(.draw)').length === 0`)
	u.Click("Sign out")
	u.Wait(`document.querySelector('input[type=password]') && sessionStorage.length === 0`)
	u.Is(`!document.body.innerText.includes('CRM')`)
}
