package admin_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"
	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/cmd/e2e/harness/browser"
	"github.com/medilab/webhooks/migrations/testdb"
)

// hostile would run in a page that took it for HTML.
const hostile = `</pre><script>window.pwned = 1</script><img src=x onerror="window.pwned = 2"><svg onload="window.pwned = 3">`

// receiver answers as a hostile receiver would.
func receiver(t *testing.T) (url string, calls *atomic.Int64) {
	t.Helper()
	calls = new(atomic.Int64)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("X-Evil", hostile)
		if strings.HasSuffix(r.URL.Path, "/broken") {
			w.WriteHeader(http.StatusInternalServerError)
		}
		_, _ = io.WriteString(w, hostile)
	}))
	t.Cleanup(server.Close)
	return server.URL, calls
}

// user is a browser at the panel of a whole server.
type user struct {
	*browser.Tab
	t        *testing.T
	address  string
	database string
}

func newUser(t *testing.T, language string) *user {
	t.Helper()
	database := testdb.New(t)
	address := browser.Serve(t, database)
	return &user{browser.Open(t, address, language), t, address, database}
}

// signIn opens the panel with a token; with the admin's if none is given.
func (u *user) signIn(label, press string, token ...string) {
	u.t.Helper()
	u.Go(u.address + "/admin")
	u.Wait(`document.querySelector('input[type=password]')`)
	u.Fill(label, append(token, browser.Token)[0])
	u.Click(press)
	u.Wait(`document.querySelector('#menu a')`)
}

// api asks the server's API without the browser.
func (u *user) api(method, path, body string) map[string]any {
	u.t.Helper()
	r, err := http.NewRequestWithContext(u.t.Context(), method, u.address+"/api/v1"+path, strings.NewReader(body))
	if err != nil {
		u.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+browser.Token)
	r.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		u.t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // read to its end
	var answer map[string]any
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil || response.StatusCode >= 400 {
		u.t.Fatalf("%s %s: %d %v %v", method, path, response.StatusCode, answer, err)
	}
	return answer
}

// webhook registers one that calls the URL.
func (u *user) webhook(name, url, more string) (id string) {
	u.t.Helper()
	return u.api("POST", "/webhooks/", `{"name":`+quoted(name)+`,"url":"`+url+`","events":["patient.created"]`+more+`}`)["id"].(string)
}

// alert puts one about the webhook where the API reads them.
func (u *user) alert(webhook, kind, details string) {
	u.t.Helper()
	u.exec(`INSERT INTO medilab.alerts (position, id, webhook, kind, details, raised_at)
		VALUES (1000000, gen_random_uuid(), $1, $2, $3, now())`, webhook, kind, []byte(details))
}

// exec runs a statement in the server's database.
func (u *user) exec(sql string, arguments ...any) {
	u.t.Helper()
	db, err := pgx.Connect(u.t.Context(), u.database)
	if err != nil {
		u.t.Fatal(err)
	}
	defer db.Close(context.WithoutCancel(u.t.Context())) //nolint:errcheck // what was written is written
	if _, err := db.Exec(u.t.Context(), sql, arguments...); err != nil {
		u.t.Fatal(err)
	}
}

func quoted(text string) string {
	data, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return string(data)
}

// localTime is how a control of a date and a time has its value.
const localTime = "2006-01-02T15:04"

func TestAWholeDayInThePanel(t *testing.T) {
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
	u.See("There are no webhooks yet.")
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
	u.Is(`document.activeElement.dataset.field === 'name'`)
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
	u.Fill("correlation_id", "a day in the panel")
	u.Click("Send")
	u.Wait(`document.querySelector('h1')?.innerText === 'patient.created'`)
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
	u.See("1 call in a row has failed.")
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
	u.Click("Deactivate")
	u.See("The webhook is inactive.")
	u.Click("Activate")
	u.See("The webhook is active.")
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
	u.Click("Delete")
	u.Click("Cancel")
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
	u.Click("Replay")
	u.See("There were no jobs yet.")
	u.Click("New job")
	u.See("under the delivery ids that they had")
	u.Wait(`document.querySelector('select').selectedOptions[0]?.innerText.endsWith('CRM')`)
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
	u.Click("Cancel") // not to
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

func TestHostileNamesAndTypesStayText(t *testing.T) {
	u := newUser(t, "en")
	url, _ := receiver(t)
	id := u.webhook(hostile, url+"/hook", `,"description":`+quoted(hostile)+`,"filters":{"a":`+quoted(hostile)+`}`)
	event := u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{"a":`+quoted(hostile)+`},"source":`+
		quoted(hostile)+`,"correlation_id":`+quoted(hostile)+`}`)["event_id"].(string)
	u.alert(id, hostile, `{"message":`+quoted(hostile)+`}`)
	u.signIn("API token", "Sign in")
	for _, page := range []string{
		"overview", "webhooks", "webhooks/" + id, "webhooks/" + id + "/edit", "webhooks/" + id + "/calls", "webhooks/" + id + "/settings", "webhooks/" + id + "/test",
		"webhooks/" + id + "/history", "webhooks/" + id + "/disclosures", "calls", "deliveries?state=delivered", "events", "events/" + event, "alerts", "system",
	} {
		u.open(page)
		u.Wait(`!document.querySelector('[aria-busy]') && document.querySelector('main h1')`)
		u.Is(`document.querySelectorAll('main img, main script, main svg:not(.draw)').length === 0`)
		u.Is(`window.pwned === undefined`)
	}
	// A hostile address leads nowhere either.
	u.Expect("network")
	for _, page := range []string{"webhooks/%3Cimg%20src=x%3E", "webhooks/..%2F..%2Fadmin", "events/" + hostile, "constructor", "webhooks?status=%22%3E%3Cimg"} {
		u.open(page)
		u.Wait(`!document.querySelector('main[aria-busy]') && document.querySelector('main').innerText !== ''`)
		u.Is(`document.querySelectorAll('main img, main script, main svg:not(.draw)').length === 0`)
	}

	// And where our code should be wrong one day, the policy holds.
	u.Expect("security")
	u.Expect("exception")
	u.Expect("console")
	u.Expect("javascript")
	for _, attack := range []string{
		`document.querySelector('main').innerHTML = '<b>x</b>'`,
		`document.write('<b>x</b>')`,
		`new DOMParser().parseFromString('<b>x</b>', 'text/html')`,
		`setTimeout('window.pwned = 4')`,
		`document.body.append(Object.assign(document.createElement('script'), { text: 'window.pwned = 5' }))`,
		`document.createElement('div').setAttribute('onclick', 'window.pwned = 6')`,
	} {
		u.Is(`(() => { try { ` + attack + `; return false } catch (e) { return e instanceof TypeError } })()`)
	}
	u.Is(`window.pwned === undefined`)
	u.Wait(`(window.fetched ??= fetch('http://127.0.0.1:1/').catch(() => { window.refused = true })) && window.refused`)
}

// open opens the page in a document of its own, as a link in a message does.
func (u *user) open(page string) {
	u.Go(u.address + "/admin?" + strings.NewReplacer("?", ".", "=", ".", "&", ".", "/", ".").Replace(page) + "#/" + page)
}

// However long a name is, headings, numbers and buttons of a table keep their words whole.
func TestALongNameLeavesRoom(t *testing.T) {
	u := newUser(t, "ru")
	url, calls := receiver(t)
	u.webhook(strings.Repeat("длинное", 28), url+"/broken", `,"max_retries":1,"retry_delay":3600`)
	event := u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{}}`)["event_id"].(string)
	harness.Until(t, "the receiver is called", func() bool { return calls.Load() > 0 })
	u.Size(1000, 800)
	u.signIn("Токен API", "Войти")
	for _, page := range []string{"overview", "webhooks", "events/" + event, "system", "alerts?state=all"} {
		u.open(page)
		u.Wait(`!document.querySelector('[aria-busy]') && document.querySelector('main h1')`)
		u.Is(`document.documentElement.scrollWidth <= 1000`)
		broken := u.Text(`[...document.querySelectorAll('th, td.number, td.num, td button')].map(cell => {
			const texts = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT)
			const range = document.createRange()
			for (let text; (text = texts.nextNode());) {
				range.selectNodeContents(text)
				if (range.getClientRects().length > text.data.trim().split(/\s+/).length) return cell.outerHTML
			}
			return ''
		}).join('')`)
		if broken != "" {
			t.Errorf("%s: the words of %q are not whole", page, broken)
		}
		u.Shot("long-" + page[:5])
	}
}

func TestThePanelSpeaksRussianAndFitsAPhone(t *testing.T) {
	u := newUser(t, "ru")
	url, _ := receiver(t)
	id := u.webhook("Интеграция с CRM", url+"/hook", `,"headers":{"X-API-Key":"k"},"filters":{"department":"cardiology"}`)
	u.api("POST", "/webhooks/"+id+"/test", `{"event_type":"patient.created","test_data":{"department":"cardiology"}}`)
	event := u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{"department":"cardiology"}}`)["event_id"].(string)
	u.alert(id, "consecutive_failures", `{"message":"11 calls in a row failed","observed":11,"limit":10}`)
	u.Size(390, 844)
	u.Dark()
	u.signIn("Токен API", "Войти")
	u.Is(`document.documentElement.lang === 'ru'`)
	for name, page := range map[string]string{
		"webhooks": "webhooks", "new": "webhooks/new", "webhook": "webhooks/" + id, "edit": "webhooks/" + id + "/edit", "calls": "webhooks/" + id + "/calls",
		"settings": "webhooks/" + id + "/settings", "deliveries": "webhooks/" + id + "/deliveries", "disclosures": "webhooks/" + id + "/disclosures", "overview": "overview",
		"all-calls": "calls", "all-deliveries": "deliveries?state=delivered", "test": "webhooks/" + id + "/test", "replay": "webhooks/" + id + "/replay", "history": "webhooks/" + id + "/history",
		"events": "events", "parked": "events/parked", "trigger": "events/new", "event": "events/" + event, "alerts": "alerts", "system": "system",
	} {
		u.open(page)
		u.Wait(`!document.querySelector('[aria-busy]') && document.querySelector('main h1')`)
		// It fits, and every control can be named by a screen reader.
		u.Is(`document.documentElement.scrollWidth <= 390`)
		u.Is(`[...document.querySelectorAll('input, select, textarea')].every(c => c.labels.length > 0 && c.labels[0].textContent.trim() || c.ariaLabel)`)
		u.Is(`[...document.querySelectorAll('button, a')].every(b => b.innerText.trim() !== '' || !b.checkVisibility())`)
		u.Is(`new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size === document.querySelectorAll('[id]').length`)
		u.Is(`document.querySelectorAll('h1').length === 1`)
		u.Is(`/[а-я]/.test(document.querySelector('main').innerText) && !/\b[a-z]+\.[a-z]+[A-Z]\w*\b/.test(document.querySelector('main').innerText)`)
		u.Shot("phone-" + name)
	}

	// An alert is in words, and leads to its webhook.
	u.Go(u.address + "/admin#/alerts")
	u.See("Неудачи подряд")
	u.See("Неудач подряд: 11, порог 10")
	u.Click("Интеграция с CRM")
	u.Wait(`document.querySelector('h1')?.innerText === 'Интеграция с CRM'`)

	// So is what came of a call; the server's own words are its title.
	u.Size(1440, 900)
	broken := u.webhook("Поломка", url+"/broken", "")
	u.api("POST", "/webhooks/"+broken+"/test", `{"event_type":"patient.created","test_data":{}}`)
	u.Go(u.address + "/admin#/webhooks/" + broken + "/calls")
	u.See("Получатель ответил 500")
	u.Wait(`[...document.querySelectorAll('td [title]')].some(e => e.title.includes('500'))`)
	u.Size(390, 844)

	// What the API refuses is told at its field, in the reader's language.
	u.Expect("network")
	u.Go(u.address + "/admin#/webhooks/new")
	u.Wait(`document.querySelector('h1')?.innerText === 'Новый вебхук'`)
	u.Fill("Название", "CRM")
	u.Fill("Адрес", "ftp://clinic")
	u.Click("Создать")
	u.Wait(`document.querySelector('[data-field=url]').getAttribute('aria-invalid') === 'true'`)
	u.See("Должно начинаться с http:// или https://.")
	u.See("Должно содержать хотя бы один тип событий, группу (patient.*) или *.")
	u.Is(`document.activeElement.dataset.field === 'url'`)
	u.Dark()
	u.Shot("form-390-ru")
	u.Size(1440, 900)
	u.Shot("form-1440-ru")
	u.Size(390, 844)

	// The other language is a press away, and remembered.
	u.Go(u.address + "/admin#/webhooks")
	u.Click("Ещё")
	u.Click("English")
	u.See("New webhook")
	u.Reload()
	u.See("New webhook")
	u.Is(`document.documentElement.lang === 'en'`)

	// With the keyboard alone: past the menu, to the content.
	u.Reload()
	u.See("New webhook")
	u.Keys(kb.Tab)
	u.Is(`document.activeElement.id === 'skip' && document.activeElement.innerText === 'Skip to content'`)
	u.Keys(kb.Enter)
	u.Is(`document.activeElement.id === 'main'`)
	u.Keys(kb.Tab)
	u.Is(`document.activeElement.innerText === 'New webhook'`)
	u.Keys(kb.Enter)
	u.Wait(`document.querySelector('h1').innerText === 'New webhook'`)
	u.Is(`document.activeElement.id === 'main'`)
}

// Everything on the way to the first delivered call is done from the first page, which then
// shows what happens without being asked.
func TestTheFirstPageLeadsToTheFirstCallAndStaysCurrent(t *testing.T) {
	u := newUser(t, "en")
	url, calls := receiver(t)
	u.signIn("API token", "Sign in")
	u.See("Three steps to the first delivered call")
	u.Fill("The receiver’s URL", url+"/hook")
	u.Click("Add")
	u.See("gets all events")
	u.Click("Send a test")
	u.See("The receiver answered 200")
	u.Click("Trigger")
	u.See("Delivered. From here on it runs by itself.")
	u.See("1 in 24 hours")
	u.Wait(`!document.body.innerText.includes('Three steps')`)
	u.Shot("live-overview")
	if calls.Load() != 2 {
		t.Errorf("the receiver saw %d calls, want a test and an event", calls.Load())
	}
	u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{}}`)
	u.See("2 in 24 hours") // by itself

	// Who reads a list is not disturbed: new rows wait. Rows of others come at once.
	u.Go(u.address + "/admin#/calls")
	rows := func(n string) { u.Wait(`document.querySelectorAll('tbody tr').length === ` + n) }
	rows("3")
	u.Wait(`document.querySelector('tbody a').focus() || document.activeElement.matches('tbody a')`)
	u.Keys(kb.ArrowDown)
	u.Is(`document.activeElement === document.querySelectorAll('tbody tr')[1].querySelector('a')`)
	u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{}}`)
	u.See("1 new")
	rows("3")
	u.Click("1 new")
	rows("4")
	u.Wait(`document.querySelector('main').focus() || !document.querySelector('tbody').contains(document.activeElement)`)
	u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{}}`)
	rows("5")

	// Back leads to the same place.
	u.Wait(`document.querySelectorAll('tbody a')[2].focus() || document.querySelectorAll('tbody a')[2].click() || true`)
	u.See("The receiver’s answer")
	u.Wait(`history.back() || true`)
	u.Wait(`document.activeElement === document.querySelectorAll('tbody a')[2]`)
}

// What was typed outlives the session: signing in again goes on with it. Another user who signs
// in does not.
func TestNothingTypedIsLostWhenTheSessionEnds(t *testing.T) {
	u := newUser(t, "en")
	u.Expect("network")
	url, _ := receiver(t)
	u.signIn("API token", "Sign in")
	u.Go(u.address + "/admin#/webhooks/new")
	create := func(name string) {
		u.Fill("Name", name)
		u.Fill("URL", url+"/hook")
		u.Fill("All events *", "on")
		u.Text(`(() => { window.over = false; fetch('/api/v1/session', { method: 'DELETE', headers: { 'X-Requested-With': 'panel' } }).then(() => { window.over = true }); return '' })()`)
		u.Wait(`window.over`)
		u.Wait(`[...document.querySelectorAll('main button')].find(b => b.innerText === 'Create').click() || true`) // the question may be open already
		u.See("Your session has ended")
	}
	create("Typed with care")
	u.Fill("API token", "still-no-token")
	u.Click("Sign in")
	u.See("The token is unknown, expired or revoked.")
	u.Fill("API token", browser.Token)
	u.Click("Sign in")
	u.Wait(`document.querySelector('h1')?.innerText === 'Typed with care'`)
	if hooks := u.api("GET", "/webhooks", "")["items"].([]any); len(hooks) != 1 {
		t.Errorf("there are %d webhooks, want 1", len(hooks))
	}

	// Signing out leaves no draft to the next user.
	u.Click("Webhooks")
	u.Click("New webhook")
	u.Fill("Name", "Left behind")
	u.Click("Sign out")
	u.Fill("API token", browser.Token)
	u.Click("Sign in")
	u.Wait(`document.querySelector('[data-field=name]')?.value === ''`)
	u.Is(`!document.body.innerText.includes('This is your unfinished draft.')`)

	create("Not the next user's")
	u.Fill("API token", u.token("webhooks:read,webhooks:write"))
	u.Click("Sign in")
	u.Wait(`!document.querySelector('dialog') && document.querySelector('[data-field=name]')?.value === ''`)
	if hooks := u.api("GET", "/webhooks", "")["items"].([]any); len(hooks) != 1 {
		t.Errorf("there are %d webhooks, want 1", len(hooks))
	}
}
