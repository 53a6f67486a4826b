package admin_test

import (
	"fmt"
	"testing"

	"github.com/chromedp/chromedp/kb"

	"github.com/medilab/webhooks/cmd/e2e/harness"
)

// away makes the API answer 503 to the page while window.away is true, and keeps count of the page's looks
// at a job.
const away = `(() => {
	const [set, clear] = [setInterval, clearInterval]
	window.looks = new Set()
	window.setInterval = (f, ms) => { const id = set(f, ms); if (ms === 2000) looks.add(id); return id }
	window.clearInterval = (id) => { looks.delete(id); clear(id) }
	const real = fetch
	window.fetch = (url, ...more) => !window.away || String(url).endsWith('/session') ? real(url, ...more)
		: Promise.resolve(new Response('{"title":"The service cannot answer right now","status":503}', { status: 503, headers: { 'Content-Type': 'application/problem+json', 'Retry-After': '1' } }))
})()`

// A server that is away for a while costs a job's page nothing: it keeps what it shows, goes on by itself,
// and what was pressed meanwhile is pressed again without being done twice.
func TestAJobsPageGoesOnAfterTheServerWasAway(t *testing.T) {
	t.Parallel()
	u := newUser(t, "en")
	u.Before(away)
	url, calls := receiver(t)
	id := u.webhook("Laboratory", url+"/broken", `,"max_retries":0`)
	for range 3 {
		u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{}}`)
	}
	harness.Until(t, "all have failed", func() bool {
		return len(u.api("GET", "/webhooks/deliveries?state=failed", "")["items"].([]any)) == 3
	})
	u.signIn("API token", "Sign in")
	state := func(want string) {
		t.Helper()
		u.Wait(`document.querySelector('main .head .badge')?.innerText === '` + want + `'`)
	}
	busy := func() { t.Helper(); u.See("The service cannot answer right now") }

	for _, path := range []string{"webhooks/" + id + "/replay", "webhooks/deliveries/retry"} {
		body := `{"from":"2020-01-01T00:00:00Z","to":"2100-01-01T00:00:00Z","rate":0.01}`
		if path == "webhooks/deliveries/retry" {
			body = `{"state":"failed","webhook":"` + id + `","rate":0.01}`
		}
		job := u.api("POST", "/"+path, body)["replay_id"].(string)
		u.open("jobs/" + job)
		u.See("What was asked for")
		u.Is(`looks.size === 1`)
		u.Wait(`window.away = true`)
		busy()
		u.Is(`document.body.innerText.includes('What was asked for')`)
		u.Accessible("a job while the server is away")
		u.Click("Pause")
		u.Wait(`document.querySelector('main .head .error')`)
		u.Wait(`!(window.away = false)`)
		u.Wait(`!document.querySelector('main .trouble')`)
		u.Click("Pause")
		state("paused")
		u.Wait(`window.away = true`)
		busy()
		u.api("POST", "/webhooks/replays/"+job+"/resume", "") // by somebody else
		u.Wait(`!(window.away = false)`)
		u.Wait(`[...document.querySelectorAll('button')].some(b => b.innerText === 'Pause') && !document.querySelector('main .trouble')`)
		u.api("POST", "/webhooks/replays/"+job+"/cancel", "")
		state("cancelled")
		u.Wait(`looks.size === 0`) // what is over is not looked at any more
	}

	// The page of a job that is opened while the server is away comes by itself; lists and the system, too.
	for _, one := range [][2]string{{"jobs", "All jobs"}, {"webhooks/" + id + "/replay", "What was sent again"}, {"system", "Encryption keys"}} {
		page, want := one[0], one[1]
		u.open(page)
		u.See(want)
		u.Wait(`window.away = true`)
		u.Click("Refresh")
		busy()
		u.Wait(`!(window.away = false)`)
		u.See(want)
		u.Wait(`!document.querySelector('main .trouble, main [aria-busy]')`)
	}

	// A rebuild that cannot begin says so, and can be begun again.
	u.Wait(`window.away = true`)
	u.Click("Rebuild")
	u.Click("Rebuild")
	u.Wait(`document.querySelector('#news').innerText.includes('cannot answer right now')`)
	u.Wait(`!(window.away = false)`)
	u.Click("Rebuild")
	u.Click("Rebuild")
	u.See("is rebuilt.")

	// It stands with the jobs while it goes on.
	u.Text(`(() => {
		const real = fetch
		window.fetch = (url, ...more) => String(url).endsWith('/rebuild') ? Promise.resolve(new Response(new ReadableStream({ start: (stream) => {
			window.tell = (line) => stream.enqueue(new TextEncoder().encode(line + '\n'))
			window.tell('{"done":3,"total":10}')
			window.end = () => stream.close()
			window.asked = more[0].signal
		} }))) : real(url, ...more)
		return ''
	})()`)
	u.Click("Rebuild")
	u.Click("Rebuild")
	u.Text(`location.hash = '#/jobs'`)
	u.See("Rebuild: webhooks")
	u.Wait(`document.querySelector('main .progress').innerText === '3 / 10'`)
	u.Wait(`(tell('{"rebuilt":true}'), end(), true)`)
	u.Wait(`!document.body.innerText.includes('Rebuild: webhooks')`)
	u.open("system")
	u.Click("Rebuild")
	u.Click("Rebuild")
	u.Text(`location.hash = '#/jobs'`)
	u.See("Rebuild: webhooks")
	u.Click("Cancel")
	u.Wait(`asked.aborted`)
	u.Wait(`(end(), true)`)
	u.Wait(`!document.body.innerText.includes('Rebuild: webhooks')`)
	if calls.Load() > 5 {
		t.Errorf("%d calls", calls.Load())
	}
}

// A webhook is chosen by a part of its name, among any number of them: the form of a job names the one that it
// was opened for, and takes no other than was meant; a list shows the chosen one's.
func TestAWebhookIsChosenByItsName(t *testing.T) {
	u := newUser(t, "en")
	id := u.webhook("Laboratory", "http://127.0.0.1:9/", "")
	var wards []string
	for i := range 30 { // more than are offered
		wards = append(wards, u.webhook(fmt.Sprint("Ward ", i), "http://127.0.0.1:9/ward", ""))
	}
	u.signIn("API token", "Sign in")
	const choice = `document.querySelector('[data-field=webhook]')`
	u.open("jobs/new?webhook=" + id)
	u.Wait(choice + `.value === '1 · Laboratory'`)
	u.Fill("Webhook", "ward")
	u.Wait(`document.querySelectorAll('datalist option').length === 20`)
	u.Click("Count and go on")
	u.See("Choose a webhook, or give its number.")
	u.Is(`document.activeElement === ` + choice)
	u.Click("Retry of what failed")
	u.Click("Count and go on")
	u.See("Choose a webhook, or give its number.") // not all of them
	u.Fill("Webhook", "ward 17")
	u.Wait(choice + `.dataset.value === '` + wards[17] + `'`)
	u.Accessible("a choice")
	u.Click("Count and go on")
	u.See("Nothing matches.")

	for page, more := range map[string]string{"deliveries": "state=failed&", "calls": "", "audit": ""} {
		u.open(page)
		u.Wait(`document.querySelector('main form [list]') && !document.querySelector('[aria-busy]')`)
		u.Fill("Webhook", "19 · Ward 17")
		u.Wait(`location.hash === '#/` + page + `?` + more + `webhook=` + wards[17] + `' && document.querySelector('main form [list]').value === '19 · Ward 17'`)
		u.Is(`document.activeElement === document.querySelector('main form [list]')`)
		u.Wait(`history.back() || true`)
		u.Wait(`location.hash === '#/` + page + `' && document.querySelector('main form [list]').value === ''`)
	}
}

// What the browser cannot read of a time or a pace is refused at its field, not left out. What is sent is
// said before, with its bounds and its pace.
func TestAJobIsNoBroaderThanWhatIsShown(t *testing.T) {
	u := newUser(t, "en")
	url, _ := receiver(t)
	id := u.webhook("Laboratory", url+"/broken", `,"max_retries":0`)
	u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{}}`)
	harness.Until(t, "it has failed", func() bool {
		return len(u.api("GET", "/webhooks/deliveries?state=failed", "")["items"].([]any)) == 1
	})
	u.signIn("API token", "Sign in")
	u.open("jobs/new?kind=retry&webhook=" + id)
	press := func(label, keys string) {
		t.Helper()
		u.Wait(`(l => l && (l.control.focus(), document.activeElement === l.control))([...document.querySelectorAll('main label')].find(l => l.innerText === '` + label + `'))`)
		u.Keys(keys)
	}
	press("From", kb.Backspace)
	press("Pace, deliveries a second", "1e")
	u.Is(`[...document.querySelectorAll('main form :invalid')].filter(c => c.validity.badInput && c.value === '').length === 2`)
	u.Click("Count and go on")
	u.Wait(`[...document.querySelectorAll('main form [aria-invalid=true]')].map(c => c.dataset.field).join() === 'from,rate'`)
	u.See("Give the whole date and time.")
	u.See("This is not a number.")
	u.Wait(`document.activeElement.dataset.field === 'from'`)
	u.Is(`!document.querySelector('dialog')`)
	u.Shot("job-01-unread")
	u.Fill("From", "2020-01-01T10:00")
	u.Fill("To", "2100-01-01T10:00")
	u.Fill("Pace, deliveries a second", "1.5")
	u.Click("Count and go on")
	u.See("From: 1 Jan 2020, 10:00:00 · To: 1 Jan 2100, 10:00:00 · Pace: 1.5 a second. Receivers")
	u.Shot("job-02-ask")
	u.Click("No")
	if jobs := u.api("GET", "/webhooks/replays", "")["items"].([]any); len(jobs) != 0 {
		t.Errorf("%v", jobs)
	}

	// Nor is a filter of a list applied without it.
	u.open("deliveries")
	u.Fill("From", "2020-01-01T10:00")
	press("From", kb.Backspace)
	u.Is(`[...document.querySelectorAll('main label')].find(l => l.innerText === 'From').control.validity.badInput`)
	u.Fill("State", "failed")
	u.Is(`location.hash === '#/deliveries' && document.activeElement.type === 'datetime-local'`)
}

// The list of jobs shows by itself how they come along, and that they are over.
func TestTheListOfJobsIsLive(t *testing.T) {
	u := newUser(t, "en")
	url, _ := receiver(t)
	id := u.webhook("Laboratory", url, "")
	u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{}}`)
	u.api("POST", "/webhooks/"+id+"/deactivate", "")
	u.signIn("API token", "Sign in")
	u.open("jobs") // live of this page, not of the one before
	u.See("There were no jobs yet.")
	u.Wait(`document.querySelector('.live.on')`)
	u.api("POST", "/webhooks/"+id+"/replay", `{"from":"2020-01-01T00:00:00Z","to":"2100-01-01T00:00:00Z"}`)
	u.api("POST", "/webhooks/"+id+"/activate", "")
	u.Wait(`document.querySelector('tbody .badge')?.innerText === 'completed'`)
}

// A job's page says how fast it goes as measured, when it will be over, and how fast it was.
func TestAJobSaysHowFastItGoes(t *testing.T) {
	u := newUser(t, "en")
	url, calls := receiver(t)
	id := u.webhook("Laboratory", url, "")
	const events = 30
	for range events {
		u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{}}`)
	}
	harness.Until(t, "all have gone out", func() bool { return calls.Load() == events })
	u.signIn("API token", "Sign in")
	job := u.api("POST", "/webhooks/"+id+"/replay", `{"from":"2020-01-01T00:00:00Z","to":"2100-01-01T00:00:00Z","rate":4}`)["replay_id"].(string)
	u.open("jobs/" + job)
	u.Wait(`/^[1-9][\d.]* a second now, about .+ left$/.test(document.querySelector('main .card .hint')?.innerText)`)
	u.Accessible("a job under way")
	u.Wait(`/^took .+, [1-9][\d.]* a second on average$/.test(document.querySelector('main .card .hint')?.innerText)`)
}
