package admin_test

import (
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/medilab/webhooks/cmd/e2e/harness/browser"
	"github.com/medilab/webhooks/http/admin"
	"github.com/medilab/webhooks/migrations/testdb"
)

func TestTheDescriptionIsServedUnderAStrictPolicy(t *testing.T) {
	for path, want := range map[string]int{
		"/docs": 200, "/docs/": 200, "/api/v1/docs": 200, "/docs/x": 404, "/docs/assets/x": 404, "/": 404,
	} {
		if w := askDocs("GET", path); w.Code != want {
			t.Errorf("GET %s: %d, want %d", path, w.Code, want)
		}
	}
	w := askDocs("GET", "/docs")
	policy := w.Header().Get("Content-Security-Policy")
	if !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
		t.Errorf("the policy is %q", policy)
	}
	for _, link := range regexp.MustCompile(`(?:src|href)="(/docs/[^"]+)"`).FindAllStringSubmatch(w.Body.String(), -1) {
		if w := askDocs("GET", link[1]); w.Code != 200 {
			t.Errorf("GET %s: %d", link[1], w.Code)
		}
	}
	if w := askDocs("POST", "/docs"); w.Code != 405 {
		t.Errorf("POST: %d", w.Code)
	}
}

func askDocs(method, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	admin.Docs().ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w
}

// The browser complains of whatever the policy refuses, so this also shows that
// the page needs no more than it may.
func TestACallIsTriedInTheBrowser(t *testing.T) {
	address := browser.Serve(t, testdb.New(t))
	b := browser.Open(t, address, "en")
	b.Go(address + "/docs")
	b.See("MediLab Webhooks")
	const all = `document.querySelectorAll('.entries > li').length`
	b.Wait(all + ` > 20`)
	b.Is(`['listWebhooks', 'receiveEventBatch'].every(id => document.getElementById(id))`)
	b.Accessible("docs")
	b.Shot("docs")

	b.Fill("API token", browser.Token)
	b.Fill("Find an operation", "events/types")
	b.Wait(all + ` < 5`)
	open := `document.querySelector('#listEventTypes')`
	b.Wait(open + `.querySelector('summary').click() || true`)
	b.Click("Send")
	b.See("patient.created")
	b.Is(open + `.querySelector('[role=status]').innerText.startsWith('200')`)
	b.Accessible("docs-tried")
	b.Shot("docs-tried")
	b.Is(`Object.values(sessionStorage).concat(Object.values(localStorage)).every(v => !v.includes('admin-token')) && document.cookie === ''`)

	b.Fill("Find an operation", "registerWebhook")
	b.Wait(`(document.querySelector('#registerWebhook').open = true) && document.querySelector('#registerWebhook textarea')`)
	b.Is(`JSON.parse(document.querySelector('textarea').value).events.includes('patient.created')`) // an example
	b.Fill("Request body", `{"name": "CRM", "url": "http://127.0.0.1:9/", "events": ["*"]}`)
	b.Click("Send")
	b.See("201")
	b.Fill("Find an operation", "triggerEvent")
	b.Wait(`(document.querySelector('#triggerEvent').open = true) && document.querySelector('#triggerEvent textarea')`)
	b.Fill("Example", "visit.created")
	b.Wait(`JSON.parse(document.querySelector('#triggerEvent textarea').value).event_type === 'visit.created'`)
	b.Click("Send")
	b.See("202")
	b.Fill("Find an operation", "patchWebhook")
	b.Wait(`(document.querySelector('#patchWebhook').open = true) && document.querySelector('#patchWebhook textarea')`)
	b.Fill("webhook", "1")
	b.Fill("Request body", `{"name": ""}`)
	b.Expect("network") // what is refused
	b.Click("Send")
	b.See("422")
	b.Wait(`[...document.querySelectorAll('#patchWebhook details > summary')].map(s => s.click()).length > 0`)
	b.Dark()
	b.Size(390, 844)
	b.Accessible("docs-dark")
	b.Shot("docs-phone")
	b.Is(`document.documentElement.scrollWidth <= 390`)
}
