// Package browser opens pages in a real Chromium, for tests.
package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/medilab/webhooks/cmd/e2e/harness"
)

// patience is how long a test waits for a page before it calls it broken.
const patience = 5 * time.Minute

// Tab is a page in a browser of its own, with a fresh profile.
type Tab struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	trouble  []string
	expected []string
}

// Open starts a browser for pages of the server at the URL, in a language such
// as "ru". Without Chromium the test is skipped, except in CI, where it fails.
// When the test ends it fails on any error that the browser wrote in its
// console and on any request that went elsewhere than to that server.
func Open(t *testing.T, server, language string) *Tab {
	t.Helper()
	path := find()
	switch {
	case path == "" && os.Getenv("CI") == "true":
		t.Fatal("no Chromium on this machine: apt-get install chromium")
	case path == "":
		t.Skip("no Chromium on this machine (apt-get install chromium): pages are not tested in a browser")
	}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.Flag("accept-lang", language), chromedp.WindowSize(1280, 900), chromedp.WSURLReadTimeout(patience))
	tab, err := start(t, options, server)
	for range 2 { // now and then Chromium ends as it starts
		if err != nil {
			tab, err = start(t, options, server)
		}
	}
	if err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	t.Cleanup(tab.check)
	_, err = chromedp.Call(tab.ctx, network.Enable, network.EnableParams{})
	must(t, err)
	_, err = chromedp.Call(tab.ctx, log.Enable, cdp.Empty{})
	must(t, err)
	return tab
}

// start starts the browser in a profile of its own.
func start(t *testing.T, options []chromedp.ExecAllocatorOption, server string) (*Tab, error) {
	ctx, stop := chromedp.NewExecAllocator(t.Context(), append(slices.Clone(options), chromedp.UserDataDir(t.TempDir()))...)
	t.Cleanup(stop)
	ctx, closeTab := chromedp.NewContext(ctx)
	t.Cleanup(closeTab)
	ctx, cancel := context.WithTimeout(ctx, patience)
	t.Cleanup(cancel)
	tab := &Tab{t: t, ctx: ctx}
	return tab, chromedp.Listen(ctx, tab.listen(server))
}

// Another opens another tab of the same browser, which shares its cookies.
func (b *Tab) Another(server string) *Tab {
	b.t.Helper()
	ctx, closeTab := chromedp.NewContext(b.ctx)
	b.t.Cleanup(closeTab)
	other := &Tab{t: b.t, ctx: ctx, expected: b.expected}
	if err := chromedp.Listen(ctx, other.listen(server)); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(other.check)
	return other
}

// Token is the admin token of Serve's servers.
const Token = "admin-token-of-browser-tests-0123456789"

// Serve starts the product on the database until the test ends, and returns its address, such as
// http://127.0.0.1:4711.
func Serve(t *testing.T, database string, settings ...string) string {
	t.Helper()
	dir := t.TempDir()
	p := harness.NewProcess(t, "the server", harness.Program(t))
	p.Env = harness.Environment(append(settings, "MEDILAB_ADDR="+p.Addr, "DATABASE_URL="+database, "MEDILAB_DATA_DIR="+dir,
		"MEDILAB_TOKEN="+Token, "MEDILAB_ALLOW_TARGETS=loopback")...)
	p.Start()
	return "http://" + p.Addr
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func find() string {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// Expect says that the test makes the browser complain with this kind of
// message: "network" for answers that say no, "security" for what the policy
// refused.
func (b *Tab) Expect(source string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expected = append(b.expected, source)
}

func (b *Tab) listen(server string) func(any) {
	return func(event any) {
		switch event := event.(type) {
		case *network.EventRequestWillBeSent:
			if u, err := url.Parse(event.Request.URL); err != nil || u.Scheme != "data" && u.Scheme+"://"+u.Host != server {
				b.complain("request", event.Request.URL)
			}
		case *runtime.EventExceptionThrown:
			b.complain("exception", exceptionOf(event.ExceptionDetails))
		case *runtime.EventConsoleAPICalled:
			if event.Type == runtime.ConsoleAPICalledTypeError {
				for _, argument := range event.Args {
					b.complain("console", string(argument.Value)+argument.Description)
				}
			}
		case *log.EventEntryAdded:
			if event.Entry.Level == log.EntryLevelError {
				b.complain(string(event.Entry.Source), event.Entry.Text+" "+event.Entry.URL)
			}
		}
	}
}

func exceptionOf(details *runtime.ExceptionDetails) string {
	if details.Exception != nil {
		return details.Text + " " + details.Exception.Description
	}
	return details.Text
}

func (b *Tab) complain(source, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Contains(b.expected, source) {
		b.trouble = append(b.trouble, source+": "+text)
	}
}

func (b *Tab) check() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, one := range b.trouble {
		b.t.Errorf("the browser complains: %s", one)
	}
}

// run does what a user does. It fails the test, with what the page shows, if
// that cannot be done.
func run[T any](b *Tab, what string, action chromedp.Action[T]) T {
	b.t.Helper()
	result, err := chromedp.Run(b.ctx, action)
	if err != nil {
		shown, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string](`location.href + "\n" + document.body.innerText`))
		b.check()
		b.t.Fatalf("%s: %v\nthe page:\n%s", what, err, shown)
	}
	return result
}

// Go opens an address.
func (b *Tab) Go(address string) {
	b.t.Helper()
	run(b, "open "+address, chromedp.Navigate(address))
}

// Reload reloads the page.
func (b *Tab) Reload() {
	b.t.Helper()
	run(b, "reload", chromedp.Reload())
}

// Size changes the size of the window.
func (b *Tab) Size(width, height int64) {
	b.t.Helper()
	run(b, "change the size", chromedp.EmulateViewport(width, height))
}

// Dark makes the user's system prefer dark colours.
func (b *Tab) Dark() {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}},
	})
	must(b.t, err)
}

// Media shows the page as it is on such a medium: print, screen.
func (b *Tab) Media(name string) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Media: name})
	must(b.t, err)
}

// Keys presses keys, such as kb.Tab, where the focus is.
func (b *Tab) Keys(keys string) {
	b.t.Helper()
	run(b, "press keys", chromedp.KeyEvent(keys))
}

// Wait waits until the expression of JavaScript is true.
func (b *Tab) Wait(expression string) {
	b.t.Helper()
	b.until(expression, `() => (`+expression+`)`)
}

// until waits for a function of JavaScript to return something true. (chromedp's
// Poll needs what a strict policy refuses to a page.)
func (b *Tab) until(what, function string, arguments ...any) {
	b.t.Helper()
	values, err := json.Marshal(append([]any{}, arguments...))
	must(b.t, err)
	ctx, cancel := context.WithTimeout(b.ctx, patience/4)
	defer cancel()
	script := fmt.Sprintf(`new Promise(done => {
		const is = %s, values = %s
		const check = () => { try { if (is(...values)) return done() } catch {} setTimeout(check, 50) }
		check()
	})`, function, values)
	run(b, "wait for "+what, func(_ context.Context, target *chromedp.Target) (none chromedp.Void, err error) {
		for first := true; first || err != nil && strings.Contains(err.Error(), "navigated or closed") && ctx.Err() == nil; first = false {
			none, err = chromedp.Evaluate[chromedp.Void](script, chromedp.EvalAwaitPromise)(ctx, target)
		}
		return none, err
	})
}

// See waits until the page shows the text.
func (b *Tab) See(text string) {
	b.t.Helper()
	b.until(text, `text => document.body.innerText.includes(text)`, text)
}

// Click presses the button or link that the page shows under the name, with or without
// a count after it; while a question is open, one of its buttons.
func (b *Tab) Click(name string) {
	b.t.Helper()
	b.until("a button "+name, `name => {
		const all = [...(document.querySelector('dialog[open]') ?? document).querySelectorAll('a, button, summary')]
		const named = e => e.innerText.trim() === name || e.querySelector('.count, .badge') && [...e.childNodes].some(n => n.textContent.trim() === name)
		const it = all.find(e => named(e) && !e.disabled && e.ariaDisabled !== 'true' && e.checkVisibility())
		it?.click()
		return Boolean(it)
	}`, name)
}

// Fill puts a value into the control under the label; "on" and "off" tick a box.
func (b *Tab) Fill(label, value string) {
	b.t.Helper()
	b.until("a control "+label, `(name, value) => {
		const label = [...document.querySelectorAll('label')].filter(l => l.checkVisibility()).find(l => l.innerText.trim() === name)
		const control = label?.control ?? [...document.querySelectorAll('[aria-label]')].filter(c => c.ariaLabel === name).at(-1)
		if (!control) return false
		if (control.type === 'checkbox') { if (control.checked !== (value === 'on')) control.click(); return true }
		control.focus()
		// Not control.value: React puts a setter of its own there.
		Object.getOwnPropertyDescriptor(Object.getPrototypeOf(control), 'value').set.call(control, value)
		control.dispatchEvent(new Event('input', { bubbles: true }))
		control.dispatchEvent(new Event('change', { bubbles: true }))
		return control.value === value
	}`, label, value)
}

// Text evaluates an expression of type string.
func (b *Tab) Text(expression string) string {
	b.t.Helper()
	return run(b, "evaluate "+expression, chromedp.Evaluate[string](expression))
}

// Is fails the test unless the expression is true now.
func (b *Tab) Is(expression string) {
	b.t.Helper()
	if !run(b, "evaluate "+expression, chromedp.Evaluate[bool](expression)) {
		b.t.Errorf("not so: %s", expression)
	}
}

// Shot keeps a picture of the page in the folder MEDILAB_TEST_SHOTS, if it is set.
func (b *Tab) Shot(name string) {
	b.t.Helper()
	folder := os.Getenv("MEDILAB_TEST_SHOTS")
	if folder == "" {
		return
	}
	const png = 100
	picture := run(b, "take a picture", chromedp.FullScreenshot(png))
	must(b.t, os.WriteFile(filepath.Join(folder, name+".png"), picture, 0o600))
}
