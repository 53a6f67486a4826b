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

	"github.com/chromedp/chromedp/kb"
	"github.com/jackc/pgx/v5"

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

// Everything on the way to the first delivered call is done from the first page, which then
// shows what happens without being asked.
func TestTheFirstPageLeadsToTheFirstCallAndStaysCurrent(t *testing.T) {
	u := newUser(t, "en")
	u.Before(`(later => {
		const reading = 4000
		window.setTimeout = (f, ms, ...more) => ms === reading ? (window.over = () => f(...more), 0) : later(f, ms, ...more)
	})(setTimeout)`)
	url, calls := receiver(t)
	u.signIn("API token", "Sign in")
	u.See("Three steps to the first delivered call")
	u.Is(`!document.querySelector('.figures')`) // there is nothing to count yet
	u.Fill("The receiver’s URL", url+"/hook")
	u.Click("Add")
	u.See("gets all events")
	u.Click("Send a test")
	u.See("The receiver answered 200")
	u.Click("Trigger")
	u.See("Delivered. From here on it runs by itself.")
	u.See("1 in 24 hours")
	u.Is(`document.body.innerText.includes('Delivered. From here on it runs by itself.')`) // there is time to read it
	u.Wait(`window.over() || true`)
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
	u.Wait(`document.activeElement === document.querySelector('tbody a')`) // the newest has the focus
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
	u.Click("Webhooks")
	u.Click("New webhook")
	u.Wait(`document.querySelector('[data-field=name]')?.value === ''`)
	u.Is(`!document.body.innerText.includes('This is your unfinished draft.')`)

	// Nor is what was under way done as the next user.
	u.Text(`(() => { const real = fetch; window.fetch = async (url, asked) => {
		if (asked?.method !== 'POST' || !url.endsWith('/webhooks')) return real(url, asked)
		await new Promise((send) => { window.send = send })
		const answer = await real(url, asked)
		window.answered = answer.status
		return answer
	}; return '' })()`)
	create("Not the next user's")
	u.Fill("API token", u.token("webhooks:read,webhooks:write"))
	u.Click("Sign in")
	u.Wait(`!document.querySelector('dialog') && location.hash === '#/' && document.querySelector('h1').innerText === 'Overview'`)
	u.Wait(`window.send() || true`)
	u.Wait(`window.answered === 401`)
	u.Is(`!document.querySelector('dialog')`)
	if hooks := u.api("GET", "/webhooks", "")["items"].([]any); len(hooks) != 1 {
		t.Errorf("there are %d webhooks, want 1", len(hooks))
	}
}
