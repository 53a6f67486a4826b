package admin_test

import (
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/cmd/e2e/harness/browser"
	"github.com/medilab/webhooks/migrations/testdb"
)

const (
	signedIn = `document.querySelector('#menu a')`
	// alone: the page of its own to sign in, and no question over another.
	alone = `!document.querySelector('dialog[open]') && document.querySelectorAll('input[type=password]').length === 1 && !document.querySelector('#menu')`
)

// The tabs of a browser share a session, which is in no storage that scripts can read, and end
// together.
func TestOneSessionInAllTabs(t *testing.T) {
	u := newUser(t, "en")
	u.signIn("API token", "Sign in")
	u.Is(`document.querySelector('#menu .foot').innerText.startsWith('administrator')`)
	u.Is(`!document.cookie && !JSON.stringify({ ...sessionStorage, ...localStorage }).includes('admin-token')`)
	u.Reload()
	u.Wait(signedIn)
	other := u.Another(u.address)
	other.Go(u.address + "/admin#/tokens")
	other.See("Signed in to the panel")
	other.See("you")
	u.Expect("network") // what is asked for before a tab hears of it is 401
	other.Expect("network")
	other.Click("Sign out")
	other.See("API token")
	u.Wait(alone) // until it hears of it, it may ask to sign in again
	u.Fill("API token", browser.Token)
	u.Click("Sign in")
	other.Wait(signedIn)

	// A tab that asks to sign in again hears of it, too.
	u.Wait(signedIn)
	other.Text(`(fetch('/api/v1/session', { method: 'DELETE', headers: { 'X-Requested-With': 'panel' } }).then(() => { window.left = true }), '')`)
	other.Wait(`window.left`)
	u.Go(u.address + "/admin#/webhooks")
	u.Wait(`document.querySelector('dialog[open] input[type=password]')`)
	other.Click("Sign out")
	other.See("API token")
	u.Wait(alone)

	// Who signs out instead of signing in again does so in all tabs.
	u.Fill("API token", browser.Token)
	u.Click("Sign in")
	u.Wait(signedIn)
	other.Wait(signedIn)
	u.Text(`(fetch('/api/v1/session', { method: 'DELETE', headers: { 'X-Requested-With': 'panel' } }), '')`)
	u.Wait(`document.querySelector('dialog[open] .plain')?.click() || !document.querySelector('#menu')`)
	other.Wait(`!document.querySelector('#menu')`)
}

// enter signs in as another tab does that this one has not heard of.
func (u *user) enter(token string) {
	u.t.Helper()
	u.Text(`(window.entered = false, fetch('/api/v1/session', { method: 'POST', body: JSON.stringify({ token: ` + quoted(token) + ` }),
		headers: { 'Content-Type': 'application/json', 'X-Requested-With': 'panel' } }).then(() => { entered = true }), '')`)
	u.Wait(`entered`)
}

// hear sends the page what another tab did: 'in' or 'out'.
func (u *user) hear(what string) {
	u.t.Helper()
	u.Text(`(new BroadcastChannel('medilab').postMessage(` + quoted(what) + `), '')`)
}

func isSignedIn(actor string) string {
	return signedIn + ` && document.querySelector('#menu .foot .sub').innerText === ` + quoted(actor)
}

// Who signs in over somebody finds nothing that was under way.
func TestTheNextUserStartsOver(t *testing.T) {
	u := newUser(t, "en")
	u.Expect("network")
	id := u.webhook("CRM", "http://127.0.0.1:9/hook", "")
	u.Before(`(() => { const real = fetch; window.streams = []
		window.fetch = async (url, asked) => {
			if (url.startsWith('/api/v1/stream')) streams.push(asked.headers['X-Session-Actor'])
			const answer = await real(url, asked)
			if (url.endsWith('/rotate-secret')) await new Promise((on) => { window.answer = on })
			return answer
		} })()`)
	other := u.token("webhooks:read")
	u.signIn("API token", "Sign in")
	u.Go(u.address + "/admin#/webhooks/" + id)
	u.Click("More")
	u.Click("Rotate the secret")
	u.Click("Rotate the secret")
	u.Wait(`window.answer`)
	u.Click("More")
	u.Click("Delete")
	u.See("Delete the webhook “CRM”?")
	u.Fill("Search", "CRM")
	u.Wait(`streams.at(-1) === 'admin'`)
	u.enter(other)
	u.hear("in")
	u.Wait(isSignedIn("reader"))
	u.See("Another user has signed in")
	u.Wait(`location.hash === '#/' && document.querySelector('h1').innerText === 'Overview'`)
	u.Wait(`!document.querySelector('dialog') && document.querySelector('#search').value === ''`)
	u.Wait(`streams.at(-1).startsWith('token')`)
	u.Wait(`answer() || true`)
	u.Wait(`!document.querySelector('[aria-busy=true]')`)
	u.Is(`!document.querySelector('dialog')`) // with the new secret
}

// What somebody had checked or rebuilt ends with their session: the next user sees nothing of it.
func TestNoCheckOutlivesTheSession(t *testing.T) {
	u := newUser(t, "en")
	u.Expect("network")
	u.Before(`(() => { const real = fetch, answers = {}
		const answer = (what, line) => answers[what].enqueue(new TextEncoder().encode(line + '\n'))
		window.fetch = (url, asked) => {
			const what = url.match(/verify$|rebuild$/)?.[0]
			return what ? Promise.resolve(new Response(new ReadableStream({ start: (c) => { answers[what] = c; answer(what, '{"done":1,"total":2}') } }))) : real(url, asked)
		}
		window.end = () => { answer('verify', '{"found":0,"events":2}'); answer('rebuild', '{"rebuilt":true}'); Object.values(answers).forEach((one) => one.close()) }
	})()`)
	other := u.token("webhooks:read,audit:read")
	u.signIn("API token", "Sign in")
	u.Click("Audit log")
	u.Click("Verify")
	u.Wait(`document.querySelector('main progress')`)
	u.Click("System")
	u.Click("Rebuild")
	u.Click("Rebuild")
	u.Wait(`document.querySelector('main progress')`)
	u.Click("Sign out")
	u.Wait(alone)
	u.Fill("API token", other)
	u.Click("Sign in")
	u.Wait(isSignedIn("reader"))
	for _, page := range []string{"Jobs", "System", "Audit log"} {
		u.Click(page)
		u.Wait(`document.querySelector('h1').innerText === ` + quoted(page) + ` && document.querySelector('main :is(tbody, .entries li, .empty)') && !document.querySelector('main [aria-busy=true]')`)
		u.Is(`!document.querySelector('main progress')`)
	}
	u.Wait(`window.end() || true`)
	u.Wait(`(window.turns = (window.turns ?? 0) + 1) > 3`) // what was answered is read
	u.Is(`document.querySelector('#news').hidden && !document.querySelector('main .card .badge')`)
}

// Who signs out leaves no address in any tab; whose session ends goes on where they were.
func TestSigningOutLeavesThePage(t *testing.T) {
	u := newUser(t, "en")
	u.Expect("network")
	u.signIn("API token", "Sign in")
	other := u.Another(u.address)
	other.Expect("network")
	const page = "#/patients?id=4711"
	for _, tab := range []*browser.Tab{u.Tab, other} {
		tab.Go(u.address + "/admin" + page)
		tab.See("Nobody was sent anything.")
	}
	u.Click("Sign out")
	for _, tab := range []*browser.Tab{u.Tab, other} {
		tab.Wait(alone)
		tab.Is(`location.hash === '#/' && document.title === 'MediLab Webhooks'`)
	}
	u.Shot("signed-out")
	u.Fill("API token", browser.Token)
	u.Click("Sign in")
	u.Wait(`document.querySelector('h1')?.innerText === 'Overview'`)

	u.Go(u.address + "/admin" + page)
	u.See("Nobody was sent anything.")
	u.Text(`(fetch('/api/v1/session', { method: 'DELETE', headers: { 'X-Requested-With': 'panel' } }).then(() => { window.left = true }), '')`)
	u.Wait(`window.left`)
	u.Reload()
	u.Wait(alone)
	u.Is(`location.hash === ` + quoted(page))
	u.Fill("API token", browser.Token)
	u.Click("Sign in")
	u.See("Nobody was sent anything.")
}

// Who has signed in since is not signed out by who was there before.
func TestNobodyIsSignedOutByAnother(t *testing.T) {
	u := newUser(t, "en")
	u.Expect("network")
	other := u.token("webhooks:read")
	u.signIn("API token", "Sign in")
	u.enter(other)
	u.Click("Sign out")
	u.Wait(isSignedIn("reader"))
	u.enter(browser.Token)
	u.hear("out")
	u.Wait(isSignedIn("administrator"))
	u.Click("Sign out")
	u.Wait(alone)
}

// Who is signed out between a move and the frame after it leaves no page to settle.
func TestNoPageIsSettledThatIsGone(t *testing.T) {
	u := newUser(t, "en")
	u.Before(`(() => { const frames = new Map(); let last = 0
		window.requestAnimationFrame = (f) => (frames.set(++last, f), last)
		window.cancelAnimationFrame = (one) => frames.delete(one)
		window.paint = () => { for (const [one, f] of [...frames]) if (frames.delete(one)) f(performance.now()); return '' } })()`)
	u.signIn("API token", "Sign in")
	u.Text(`paint()`)
	u.Click("Tokens")
	u.See("Signed in to the panel")
	u.Click("Sign out")
	u.Wait(alone)
	u.Text(`paint()`)
}

// Somebody signs in at the clinic's identity provider, and ends up where they were.
func TestSignInWithTheClinicsAccount(t *testing.T) {
	provider := httptest.NewUnstartedServer(nil)
	issuer := "http://" + provider.Listener.Addr().String()
	provider.Config.Handler = exampleop.SetupServer(issuer, storage.NewStorage(storage.NewUserStore(issuer)), slog.New(slog.DiscardHandler), false)
	provider.Start()
	defer provider.Close()
	database := testdb.New(t)
	address := browser.Serve(t, database, "MEDILAB_JWT_ISSUER="+issuer, "MEDILAB_JWT_CLAIM=custom_claim.client", "MEDILAB_JWT_SCOPES=panel=webhooks:read audit:read",
		"MEDILAB_OIDC_CLIENT_ID=panel", "MEDILAB_OIDC_CLIENT_SECRET=secret", "MEDILAB_OIDC_SCOPES=profile custom_scope")
	storage.RegisterClients(storage.WebClient("panel", "secret", address+"/api/v1/session/callback"))
	u := &user{browser.Open(t, address, "ru"), t, address, database}
	for _, site := range []string{"request", "security", "network"} {
		u.Expect(site) // the provider's pages are no pages of ours
	}
	u.Go(address + "/admin#/audit")
	u.Click("Войти через учётную запись клиники")
	u.Wait(`document.querySelector('input[name=password]')`)
	u.Go(address + "/api/v1/session/callback?error=access_denied") // the place outlives a refusal
	u.See("Войти через учётную запись клиники")
	u.Is(`location.search === '?sign_in=refused' && location.hash === ''`)
	u.Click("Войти через учётную запись клиники")
	u.Wait(`document.querySelector('input[name=password]')`)
	u.Text(`(() => { const form = document.forms[0]; form.username.value = 'test-user2'; form.password.value = 'verysecure'; form.submit(); return '' })()`)
	u.See("Вход в панель")
	u.Is(`location.hash === '#/audit' && ![...document.querySelectorAll('#menu a')].some(a => a.innerText.trim() === 'Токены')`)
	u.See("id2")
}

// Tokens are made and revoked; the log says so, and is checked.
func TestTokensAndTheAuditLog(t *testing.T) {
	u := newUser(t, "en")
	u.signIn("API token", "Sign in")
	u.webhook("CRM", "http://127.0.0.1:9/hook", "")
	u.Go(u.address + "/admin#/tokens")
	u.Click("New token")
	u.Fill("Name", "laboratory")
	u.Click("Create")
	u.See("Keep it now")
	u.Is(`document.querySelector('dialog pre').innerText.startsWith('mlw_')`)
	u.Click("Close")
	u.See("laboratory")
	u.Click("Revoke")
	u.See("Revoke the token “laboratory”?")
	u.Click("Revoke")
	u.See("The token is revoked.")
	u.Go(u.address + "/admin#/audit")
	u.See("Token revoked")
	u.See("Webhook created CRM")
	u.Is(`[...document.querySelectorAll('.entries .what')].some(e => e.innerText === 'Signed in to the panel')`) // by whom stands beside it
	u.Fill("About", "webhook.*")
	u.Wait(`document.querySelectorAll('.entries li').length === 1`)
	u.Click("Verify")
	u.See("all is well")
	u.Go(u.address + "/admin#/system")
	u.See("Read models")
	u.Click("Rebuild")
	u.Click("Rebuild")
	u.See("is rebuilt.")
}

// Who was sent a patient's data is listed, and they are erased when their id is typed.
func TestPatientsDataInThePanel(t *testing.T) {
	u := newUser(t, "en")
	url, _ := receiver(t)
	u.webhook("Insurance", url, `,"recipient":{"name":"Insurance Ltd","country":"DE","purpose":"billing"}`)
	u.webhook("Nobody", "http://127.0.0.1:9/", `,"retry_delay":3600`)
	event := u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{"patient_id":4711,"name":"Ivan"}}`)["event_id"].(string)
	u.signIn("API token", "Sign in")
	u.Go(u.address + "/admin#/patients")
	u.Fill("Patient’s id", "4711")
	u.Wait(`[...document.querySelectorAll('td')].some(td => td.innerText.includes('Insurance Ltd')) || (document.querySelector('[aria-busy]') || (document.querySelector('form.toolbar button').click(), document.querySelector('.top .wide')?.click()), false)`)
	u.Wait(`[...document.querySelectorAll('td')].some(td => td.innerText === 'A new patient was created' && td.querySelector('[title="patient.created"]'))`)
	u.Text(`(() => { window.print = () => { window.printed = true }; const real = URL.createObjectURL
		URL.createObjectURL = (blob) => { blob.text().then((text) => { window.saved = text }); return real.call(URL, blob) }; return '' })()`)
	u.Click("Print")
	u.Is(`window.printed`)
	u.Media("print")
	u.Size(718, 1000) // a sheet of paper
	u.Is(`['How', 'What', 'event', 'all of the event'].every(one => [...document.querySelectorAll('th, td')].some(e => e.innerText === one && e.checkVisibility()))`)
	u.Is(`[...document.querySelectorAll('th, td')].every(e => e.getBoundingClientRect().right <= 718)`)
	u.Media("screen")
	u.Size(1280, 900)
	u.Click("Export the data")
	u.Wait(`window.saved.trim().split('\n').every((line) => JSON.parse(line)) && window.saved.includes('"name":"Ivan"')`)
	u.See("exported.")
	u.Click("Erase the data")
	u.See("To confirm, type: 4711")
	u.Is(`document.querySelector('dialog .danger').disabled`)
	u.Fill("To confirm, type: 4711", "4711")
	u.Click("Erase the data")
	u.Fill("Reason", "request 17")
	u.Click("Continue")
	u.See("1 event erased.")
	u.Click("Who has read them")
	u.See("export of a patient’s data") // that was above
	u.Go(u.address + "/admin#/events/" + event)
	u.See("The patient’s data is erased, so the delivery is cancelled.")
	u.See("Insurance")
	u.Is(`![...document.querySelectorAll('button')].some(b => b.innerText === 'Retry')`)
}

// A job is started, paused and cancelled, and its page goes on after the server was away.
func TestJobsInThePanel(t *testing.T) {
	t.Parallel()
	u := newUser(t, "en")
	url, _ := receiver(t)
	u.webhook("CRM", url, "")
	for i := range 30 {
		u.api("POST", "/webhooks/events/trigger", fmt.Sprintf(`{"event_type":"patient.created","event_data":{"patient_id":%d}}`, i))
	}
	u.signIn("API token", "Sign in")
	u.Go(u.address + "/admin#/jobs/new")
	u.Text(`(() => { window.real = fetch; window.away = false; window.fetch = (...asked) => window.away ? Promise.resolve(new Response('{"title":"busy","status":503}', { status: 503 })) : window.real(...asked); return '' })()`)
	u.Fill("Webhook", "crm")
	u.Wait(`document.querySelector('[data-field=webhook]').dataset.value.length === 36`)
	u.Fill("To", u.Text(`(time => new Date(time - time.getTimezoneOffset() * 60000).toISOString().slice(0, 16))(new Date(Date.now() + 60000))`))
	u.Fill("Pace, deliveries a second", "1")
	u.Click("Count and go on")
	u.See("Send 30 deliveries?")
	u.Click("Send")
	u.See("What was asked for")
	u.Click("Pause")
	u.See("Resume")
	u.Text(`(() => { window.away = true; return '' })()`)
	u.See("The service cannot answer right now")
	u.Text(`(() => { window.away = false; return '' })()`)
	u.Wait(`!document.querySelector('.trouble')`)
	u.Click("Cancel the job")
	u.Click("Cancel the job")
	u.See("cancelled")
	u.Wait(`[...document.querySelectorAll('button')].every(b => b.innerText.trim() !== 'Cancel the job')`)
}

// The page of jobs lists what is in archives.
func TestArchivesInThePanel(t *testing.T) {
	database, dir := testdb.New(t), t.TempDir()
	keys := "MEDILAB_KEYS=" + filepath.Join(dir, "keys.json")
	address := browser.Serve(t, database, keys)
	u := &user{browser.Open(t, address, "ru"), t, address, database}
	u.signIn("Токен API", "Войти")
	u.Go(address + "/admin#/jobs")
	u.See("Архивов нет: весь журнал в базе.")
	u.api("POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{"patient_id":1}}`)
	harness.Until(t, "the beginning of the log is archived", func() bool { // not before the read models have caught up
		export := exec.CommandContext(t.Context(), harness.Program(t), "archive", "export", "--to", time.Now().UTC().Format(time.RFC3339Nano), filepath.Join(dir, "archive"))
		export.Env = harness.Environment(keys, "DATABASE_URL="+database, "MEDILAB_DATA_DIR="+dir)
		out, err := export.CombinedOutput()
		if err != nil {
			t.Logf("%v: %s", err, out)
		}
		return err == nil
	})
	u.Click("Обновить")
	u.See("в архиве")
}
