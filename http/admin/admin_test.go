package admin_test

import (
	"io/fs"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/medilab/webhooks/http/admin"
	"github.com/medilab/webhooks/http/sender"
)

func TestThePageIsServedUnderAStrictPolicy(t *testing.T) {
	for _, path := range []string{"/admin", "/admin/"} {
		w := ask("GET", path, "")
		if w.Code != 200 {
			t.Fatalf("GET %s: %d", path, w.Code)
		}
		policy := w.Header().Get("Content-Security-Policy")
		for _, want := range []string{
			"default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data:", "connect-src 'self'",
			"frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'", "require-trusted-types-for 'script'",
		} {
			if !strings.Contains(policy+";", want+";") {
				t.Errorf("the policy %q lacks %s", policy, want)
			}
		}
		if strings.Contains(policy, "unsafe") {
			t.Errorf("the policy %q lets unsafe things through", policy)
		}
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "X-Frame-Options": "DENY",
			"Content-Type": "text/html; charset=utf-8",
		} {
			if got := w.Header().Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		if w.Header().Get("Set-Cookie") != "" {
			t.Error("the panel sets a cookie")
		}
	}
}

func TestWhatThePageNeedsIsThere(t *testing.T) {
	page := ask("GET", "/admin", "").Body.String()
	links := regexp.MustCompile(`(?:src|href)="(/[^"]+)"`).FindAllStringSubmatch(page, -1)
	if len(links) < 5 {
		t.Fatalf("the page names %d files", len(links))
	}
	for _, link := range links {
		w := ask("GET", link[1], "")
		if w.Code != 200 || !strings.Contains(w.Header().Get("Cache-Control"), "immutable") {
			t.Errorf("GET %s: %d, %q", link[1], w.Code, w.Header().Get("Cache-Control"))
		}
	}
}

func TestThePageSpeaksTheLanguageAskedFor(t *testing.T) {
	for asked, want := range map[string]string{
		"": "ru", "ru-RU,ru;q=0.9,en;q=0.8": "ru", "en-US,en;q=0.9": "en", "de,en;q=0.5": "en", "en;q=0.2, ru;q=0.7": "ru",
		"en-GB": "en", "fr": "ru", "\x00;;;q=z": "ru",
	} {
		w := ask("GET", "/admin", asked)
		if page := w.Body.String(); !strings.Contains(page, `<html lang="`+want+`"`) || w.Header().Get("Content-Language") != want {
			t.Errorf("Accept-Language %q: not in %s", asked, want)
		}
	}
}

func TestOtherPathsAndMethodsAreRefused(t *testing.T) {
	for path, want := range map[string]int{"/admin/x": 404, "/administrator": 404, "/admin/assets/": 404, "/admin/../etc/passwd": 404} {
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.Path = path
		w := httptest.NewRecorder()
		admin.Handler().ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("GET %s: %d, want %d", path, w.Code, want)
		}
	}
	if w := ask("POST", "/admin", ""); w.Code != 405 || w.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d", w.Code)
	}
	if w := ask("HEAD", "/admin", ""); w.Code != 200 || w.Body.Len() != 0 {
		t.Errorf("HEAD: %d with %d bytes", w.Code, w.Body.Len())
	}
}

// What is not ours comes as text; these are the ways in which it could become
// HTML or a script.
var dangerous = regexp.MustCompile(`innerHTML|InnerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|setHTML|` +
	`\beval\(|new Function|javascript:|srcdoc|DOMParser|document\.cookie|localStorage\.setItem\(tokenKey`)

func TestOurScriptsHaveNoWayToMakeTextHTML(t *testing.T) {
	for name, source := range scripts(t) {
		if found := dangerous.FindString(source); found != "" {
			t.Errorf("%s uses %s", name, found)
		}
	}
}

func TestEveryTextIsThereInBothLanguages(t *testing.T) {
	all := scripts(t)
	known := map[string]bool{}
	entry, entries := regexp.MustCompile(`(?m)^  '([\w.]+)': \['(.+)', '(.+)'\],$`), 0
	for name, source := range all {
		if !isTexts(name) {
			continue
		}
		for _, m := range entry.FindAllStringSubmatch(source, -1) {
			known[m[1]] = false
			ru, en := strings.Count(m[2], "|"), strings.Count(m[3], "|")
			if ru != 0 && ru != 2 || en != ru/2 {
				t.Errorf("%s has %d forms in Russian and %d in English, want 3 and 2, or 1 and 1", m[1], ru+1, en+1)
			}
		}
		entries += strings.Count(source, "': ['")
	}
	if entries != len(known) {
		t.Errorf("%d entries, %d of them readable and different", entries, len(known))
	}
	for name, source := range all {
		for _, m := range regexp.MustCompile(`\bt\(\s*'([\w.]+)'`).FindAllStringSubmatch(source, -1) {
			if _, ok := known[m[1]]; !ok {
				t.Errorf("%s uses the text %s, which is not there", name, m[1])
			}
		}
		if isTexts(name) {
			continue
		}
		for text := range known {
			prefix, _, _ := strings.Cut(text, ".")
			if strings.Contains(source, "'"+text+"'") || strings.Contains(source, "`"+prefix+".${") {
				known[text] = true
			}
		}
	}
	for text, used := range known {
		if !used {
			t.Errorf("nobody uses the text %s", text)
		}
	}
}

func TestEveryOutcomeOfACallHasAText(t *testing.T) {
	texts := ""
	for name, source := range scripts(t) {
		if isTexts(name) {
			texts += source
		}
	}
	for _, outcome := range append([]sender.Outcome{"unreadable_secret", "unreadable_event", "auth_failed"}, sender.Outcomes...) {
		if outcome != sender.Success && !strings.Contains(texts, "'outcome."+string(outcome)+"': [") {
			t.Errorf("no text for the outcome %s", outcome)
		}
	}
}

func isTexts(name string) bool { return name == "texts.js" || strings.HasPrefix(name, "texts/") }

// scripts are our own: what is vendored is Trusted Types' to hold.
func scripts(t *testing.T) map[string]string {
	t.Helper()
	scripts := map[string]string{}
	tree := os.DirFS("assets")
	names, err := fs.Glob(tree, "*.js")
	more, err2 := fs.Glob(tree, "texts/*.js")
	names = append(names, more...)
	if err != nil || err2 != nil || len(names) < 10 {
		t.Fatal(names, err, err2)
	}
	for _, name := range names {
		data, err := fs.ReadFile(tree, name)
		if err != nil {
			t.Fatal(err)
		}
		scripts[name] = string(data)
	}
	return scripts
}

func ask(method, path, language string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	if language != "" {
		r.Header.Set("Accept-Language", language)
	}
	w := httptest.NewRecorder()
	admin.Handler().ServeHTTP(w, r)
	return w
}
