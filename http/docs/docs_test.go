package docs_test

import (
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/medilab/webhooks/cmd/e2e/harness/browser"
	"github.com/medilab/webhooks/http/docs"
	"github.com/medilab/webhooks/migrations/testdb"
)

func TestThePageIsServedUnderAStrictPolicy(t *testing.T) {
	for path, want := range map[string]int{
		"/docs": 200, "/docs/": 200, "/api/v1/docs": 200, "/docs/x": 404, "/docs/assets/x": 404, "/": 404,
	} {
		if w := ask("GET", path); w.Code != want {
			t.Errorf("GET %s: %d, want %d", path, w.Code, want)
		}
	}
	w := ask("GET", "/docs")
	policy := w.Header().Get("Content-Security-Policy")
	if !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
		t.Errorf("the policy is %q", policy)
	}
	for _, link := range regexp.MustCompile(`(?:src|href)="(/docs/[^"]+)"`).FindAllStringSubmatch(w.Body.String(), -1) {
		if w := ask("GET", link[1]); w.Code != 200 {
			t.Errorf("GET %s: %d", link[1], w.Code)
		}
	}
	if w := ask("POST", "/docs"); w.Code != 405 {
		t.Errorf("POST: %d", w.Code)
	}
}

func ask(method, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	docs.Handler().ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w
}

// The browser complains of whatever the policy refuses, so this also shows that
// the viewer needs no more than it may.
func TestACallIsTriedInTheBrowser(t *testing.T) {
	address := browser.Serve(t, testdb.New(t))
	b := browser.Open(t, address, "en")
	b.Go(address + "/docs")
	b.See("MediLab Webhooks")
	b.Wait(`document.querySelectorAll('.opblock').length > 20`)
	b.Shot("docs")

	b.Click("Authorize")
	b.Wait(`document.querySelector('.auth-container input')`)
	b.Fill("auth-bearer-value", browser.Token)
	b.Shot("docs-authorize")
	b.Wait(`[...document.querySelector('#auth-bearer-value').closest('form').querySelectorAll('button')].find(b => b.innerText === 'Authorize').click() || true`)
	b.Wait(`[...document.querySelectorAll('.auth-btn-wrapper button')].find(b => b.innerText === 'Logout')`) // the token was taken
	b.Wait(`[...document.querySelectorAll('.auth-btn-wrapper button')].find(b => b.innerText === 'Close').click() || true`)
	open := `[...document.querySelectorAll('.opblock')].find(o => o.querySelector('.opblock-summary-path')?.dataset.path === '/api/v1/webhooks/events/types')`
	b.Wait(open + `.querySelector('.opblock-summary-control').click() || true`)
	b.Wait(open + `.querySelector('.responses-inner .response')`) // its description is read
	b.Wait(open + `.querySelector('.execute').click() || true`)
	b.See("patient.created")
	b.Is(open + `.querySelector('.live-responses-table .response .response-col_status').innerText.trim().startsWith('200')`)
	b.Shot("docs-tried")
	b.Is(`Object.values(sessionStorage).concat(Object.values(localStorage)).every(v => !v.includes('admin-token')) && document.cookie === ''`)

	b.Size(390, 844)
	b.Dark()
	b.Reload()
	b.Wait(`document.querySelectorAll('.opblock').length > 20`)
	b.Shot("docs-phone")
}
