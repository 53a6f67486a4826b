package admin_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/cmd/e2e/harness/browser"
	"github.com/medilab/webhooks/migrations/testdb"
)

// The panel asks once a session why data are read, where a reason is required, and works for
// those who may not read them.
func TestPayloadsInThePanel(t *testing.T) {
	database := testdb.New(t)
	address := browser.Serve(t, database, "MEDILAB_ACCESS_REASON=required")
	u := &user{browser.Open(t, address, "ru"), t, address, database}
	event := u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{"name":"Иванов"}}`)["event_id"].(string)

	u.Expect("network") // the first answer is that a reason is required
	u.signIn("Токен API", "Войти")
	u.Wait(`document.querySelector(".live.on")`)
	u.Go(address + "/admin#/events/" + event)
	u.See("Зачем вы смотрите данные пациентов?")
	u.Fill("Причина", "жалоба, 100 %")
	u.Click("Продолжить")
	u.See("Иванов")
	u.Click("События")
	u.Wait(`document.querySelector('td a')`)
	u.Is(`!document.querySelector('dialog')`)
	var reasons []string
	for _, one := range u.api("GET", "/audit/access?event="+event, "")["items"].([]any) {
		reasons = append(reasons, one.(map[string]any)["reason"].(string))
	}
	if len(reasons) < 2 || strings.Count(strings.Join(reasons, ";"), "жалоба, 100 %") != len(reasons) {
		t.Errorf("on record are the reasons %q", reasons)
	}

	u.Go(address + "/admin#/events/" + event)
	u.See("Иванов")
	u.Click("Выйти")
	u.Fill("Токен API", u.token("webhooks:read"))
	u.Click("Войти")
	u.Wait(signedIn)
	u.Go(address + "/admin#/events/" + event)
	u.See("Скрыто: у токена нет права payloads:read.")
	u.Is(`!document.body.innerText.includes('Иванов') && !document.querySelector('dialog')`)
}

// Who has read what is in words, also what was asked for, and on a phone, too.
func TestTheAccessLogIsInWords(t *testing.T) {
	u := newUser(t, "en")
	url, _ := receiver(t)
	id := u.webhook("Laboratory", url, "")
	u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{"name":"Ivan"}}`)
	u.api("GET", "/audit/events?type=event.*&webhook="+id+"&from=2020-01-01T12:00:00Z", "")
	u.signIn("API token", "Sign in")
	for _, width := range []int64{1440, 390} {
		u.Size(width, 900)
		u.open("patients?tab=access")
		u.Wait(`[...document.querySelectorAll('tbody td')].some(td => td.checkVisibility() && td.innerText === 'audit log\nfrom 1 Jan 2020, 12:00 · entries: events · webhook Laboratory')`)
		u.Is(`[...document.querySelectorAll('tbody td a')].some(a => a.getAttribute('href') === '#/webhooks/` + id + `')`)
		u.Is(`document.documentElement.scrollWidth <= ` + "innerWidth")
	}
	u.Is(`[...document.querySelectorAll('.toolbar label')].every(l => l.innerText !== 'List')`) // which is the tab
	u.Fill("By whom", "admin")
	u.Click("Show")
	u.Wait(`location.hash === '#/patients?tab=access&actor=admin'`)
}

// Who may only read finds nothing to press that is refused.
func TestThePanelIsByTheUsersRights(t *testing.T) {
	u := newUser(t, "en")
	u.Expect("network")
	url, _ := receiver(t)
	id := u.webhook("CRM", url+"/broken", `,"max_retries":0,"filters":{"department":"surgery"}`)
	event := u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{"department":"surgery"}}`)["event_id"].(string)
	var calls []any
	harness.Until(t, "the call is listed", func() bool {
		calls = u.api("GET", "/webhooks/"+id+"/calls", "")["items"].([]any)
		return len(calls) > 0
	})
	u.alert(id, "given_up", `{}`)
	writes := func() string {
		found := map[string]bool{}
		for _, page := range []string{"overview", "webhooks", "webhooks/" + id, "webhooks/" + id + "/deliveries", "webhooks/" + id + "/settings",
			"webhooks/" + id + "/calls/" + calls[0].(map[string]any)["call_id"].(string), "events", "events/" + event, "deliveries", "alerts", "jobs", "system"} {
			u.open(page)
			u.Wait(`document.querySelector('main h1') && document.querySelector('main :is(tbody, .why, .facts, .empty)') && !document.querySelector('main [aria-busy=true]')`)
			for name := range strings.SplitSeq(u.Text(`[...document.querySelectorAll('main :is(a, button)')].map(e => e.textContent.trim()).join('\n')`), "\n") {
				found[name] = true
			}
		}
		all := []string{"New webhook", "Trigger an event", "Retry", "Cancel", "Edit", "Retry undelivered", "Rotate the secret", "Deactivate", "Delete",
			"Acknowledge", "Retry now", "Rebuild", "New job", "Test", "Disclosures"}
		return strings.Join(slices.DeleteFunc(all, func(one string) bool { return !found[one] }), ", ")
	}
	u.signIn("API token", "Sign in")
	if found := writes(); strings.Count(found, ", ") != 14 {
		t.Errorf("the administrator finds only %s", found)
	}
	u.Click("Sign out")
	u.Wait(alone)
	u.signIn("API token", "Sign in", u.token("webhooks:read"))
	if found := writes(); found != "" {
		t.Errorf("who may only read finds %s", found)
	}
	for _, page := range []string{"tokens", "audit", "events/new", "jobs/new", "webhooks/" + id + "/edit"} {
		u.open(page)
		u.See("It needs the right ")
		u.Is(`!document.querySelector('main :is(a, button)')`)
	}
	u.Click("Sign out")
	u.Wait(alone)

	u.signIn("API token", "Sign in", u.token("webhooks:read,webhooks:write"))
	u.open("webhooks/" + id + "/edit")
	u.See("is shown with the right payloads:read only")
	u.Fill("Filter", "")
	u.See("1 of 1 would have matched.")
}

// Who may only send events begins with sending one.
func TestWhoOnlySendsEventsBeginsWithOne(t *testing.T) {
	u := newUser(t, "en")
	u.signIn("API token", "Sign in", u.token("events:write"))
	u.See("New event")
	u.Wait(`document.querySelector('textarea').value.includes('patient_id')`)
	u.Is(`!document.querySelector('main a[href]')`)
	u.Click("Send")
	u.See("The event is accepted.")
	u.Is(`document.querySelector('h1').innerText === 'New event'`)
}

// Who may only audit begins with the log, and finds in the menu what they may see; what is refused
// for good is not tried again.
func TestWhoOnlyAuditsBeginsWithTheLog(t *testing.T) {
	u := newUser(t, "en")
	u.Expect("network")
	url, _ := receiver(t)
	id := u.webhook("CRM", url, "")
	event := u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{}}`)["event_id"].(string)
	harness.Until(t, "the call is listed", func() bool { return len(u.api("GET", "/webhooks/"+id+"/calls", "")["items"].([]any)) > 0 })
	u.signIn("API token", "Sign in", u.token("audit:read"))
	u.Go(u.address + "/admin")
	u.Wait(`document.querySelector('h1')?.innerText === 'Audit log' && document.querySelector('#menu a[aria-current]').innerText === 'Audit log'`)
	u.Is(`[...document.querySelectorAll('#menu > a')].map(e => e.innerText).join() === 'MediLab Webhooks,Deliveries,Patients’ data,Audit log,System,API documentation'`)
	u.Wait(`document.querySelector('.live.idle')`)
	u.Wait(`(entry => entry && (entry.open = true))([...document.querySelectorAll('.entries details')].find(e => e.innerText.includes('Delivered CRM')))`)
	u.Wait(`document.querySelector('.entries a[href="#/events/` + event + `"]')?.click() || location.hash.startsWith('#/events/')`)
	u.See("Why delivered or not")
	u.Wait(`document.querySelector('.explain tbody .badge')?.innerText === 'delivered'`)
	u.Click("CRM")
	u.See("Webhook created")
	u.Is(`document.querySelector('h1').innerText === 'CRM' && [...document.querySelectorAll('.tabs a')].map(e => e.innerText).join() === 'Deliveries,Disclosures,History'`)
	u.Is(`!document.querySelector('main .badge')`)
	u.open("webhooks")
	u.See("It needs the right webhooks:read.")
	u.Is(`!document.querySelector('main :is(a, button)')`)
}

// noteRefusals notes what the API refuses to the panel from now on; see notRefused.
func (u *user) noteRefusals() {
	u.Before(`(() => { const real = fetch; window.fetch = async (url, asked) => {
		const answer = await real(url, asked)
		if (answer.status === 403) sessionStorage.refused = [sessionStorage.refused, url].join(' ')
		return answer
	} })()`)
}

// notRefused fails the test if the API has refused anything to a user with the rights.
func (u *user) notRefused(scopes string) {
	u.t.Helper()
	if refused := u.Text(`sessionStorage.refused ?? ''`); refused != "" {
		u.t.Fatalf("with %s the panel asked for what is refused:%s", scopes, refused)
	}
}

// ids are what pages of one kind differ by, and what they are asked for.
var ids = regexp.MustCompile(`[0-9a-f-]{36}|\?.*`)

// What the panel offers to a user leads to nothing that the API refuses: no link, no shortcut and
// nothing found.
func TestNoLinkLeadsToWhatIsRefused(t *testing.T) {
	t.Parallel()
	u := newUser(t, "en")
	u.Expect("network") // of the stream, when it ends with the session
	u.noteRefusals()
	url, _ := receiver(t)
	id := u.webhook("CRM", url+"/broken", `,"max_retries":0`)
	event := u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{"patient_id":17},"correlation_id":"visit-318"}`)["event_id"].(string)
	var failed string
	harness.Until(t, "the delivery has failed", func() bool {
		items := u.api("GET", "/webhooks/deliveries?state=failed", "")["items"].([]any)
		for _, one := range items {
			failed = one.(map[string]any)["delivery_id"].(string)
		}
		return len(items) > 0
	})
	u.api("POST", "/webhooks/deliveries/retry", `{"state":"failed"}`)
	for _, scopes := range []string{"audit:read", "webhooks:read", "webhooks:read,audit:read", "replays:write", "webhooks:write", "webhooks:write,audit:read"} {
		u.signIn("API token", "Sign in", u.token(scopes))
		ready := `document.querySelector('main h1') && !document.querySelector('main [aria-busy=true], main .trouble')`
		open := []string{"", "webhooks/" + id + "/edit", "webhooks/" + id + "/test", "jobs/new?webhook=" + id}
		for visited := map[string]bool{}; len(open) > 0; open = open[1:] {
			page := open[0]
			kind := ids.ReplaceAllString(page, "")
			if visited[kind] {
				continue
			}
			visited[kind] = true
			u.open(page)
			u.Wait(ready)
			u.Wait(`document.querySelectorAll('main .entries details:not([open])').forEach(e => { e.open = true }) || true`)
			u.Wait(`[...document.querySelectorAll('main .entries details')].every(e => e.querySelector('.body'))`)
			links := u.Text(`[...document.querySelectorAll('a[href^="#/"]')].map(e => e.getAttribute('href').slice(2)).join('\n')`)
			open = append(open, strings.Split(links, "\n")...)
		}
		if scopes == "audit:read" {
			for _, q := range []string{"CRM", event, failed, "visit-318", "patient.created", "500"} {
				u.Fill("Search", q)
				u.Wait(`document.querySelector('#found ~ [role=status]').innerText !== ''`)
				u.Text(`([...document.querySelectorAll('#found li')].find(e => e.querySelector('.muted'))?.dispatchEvent(new MouseEvent('mousedown', { bubbles: true, cancelable: true })), '')`) // not a patient
				u.Wait(ready)
				u.Fill("Search", "")
			}
			u.open("system")
			u.Wait(ready)
			for _, key := range "owecdajplts" {
				u.Keys("g" + string(key))
				u.Wait(ready)
			}
			u.open("audit")
			u.Wait(ready)
			u.Fill("Webhook", "cr")
			u.Wait(`document.querySelector('input[type=hidden][name=webhook]').value === ` + quoted(id))
		}
		u.notRefused(scopes)
		u.Click("Sign out")
		u.Wait(alone)
	}
}

// Who may only start jobs, or only make webhooks, does so to its end on the first page, which finds nothing.
func TestWhoOnlyWritesStaysOnTheFirstPage(t *testing.T) {
	t.Parallel()
	u := newUser(t, "en")
	u.Expect("network") // of a refusal, which there is none of: see the end
	u.noteRefusals()
	url, calls := receiver(t)
	u.webhook("CRM", url, "")
	u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{}}`)
	harness.Until(t, "the webhook is called", func() bool { return calls.Load() > 0 })
	for _, scopes := range []string{"replays:write", "webhooks:write"} {
		u.signIn("API token", "Sign in", u.token(scopes))
		u.Wait(`document.querySelector('main form')`)
		u.Is(`!document.querySelector('#search, main a[href]')`)
		switch scopes {
		case "replays:write":
			u.Is(`document.querySelector('input[type=search]').placeholder === 'number or id'`)
			u.Fill("Webhook", "CRM")
			u.Click("Count and go on")
			u.See("Choose a webhook, or give its number.")
			u.Fill("Webhook", "1")
			u.Wait(`document.querySelector('[data-field=webhook]').dataset.value === '1'`)
			u.Fill("To", time.Now().Add(time.Minute).Format(localTime))
			u.Click("Count and go on")
			u.See("Send 1 delivery?")
			u.Click("Send")
			u.See("The job is started.")
		case "webhooks:write":
			u.Fill("Name", "Clinic")
			u.Fill("URL", url)
			u.Wait(`document.querySelector('.picker input').click() || true`)
			u.Click("Create")
			u.See("Saved.")
			u.Wait(`document.querySelector('main input')?.value === ''`)
		}
		u.notRefused(scopes)
		u.Click("Sign out")
		u.Wait(alone)
	}
}
