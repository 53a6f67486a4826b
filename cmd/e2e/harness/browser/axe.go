package browser

import (
	_ "embed"
	"strings"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// axeSource is axe-core (MPL-2.0), unchanged.
//
//go:embed testdata/axe.min.js
var axeSource string

// violations is a line for each part of the page that breaks a rule of axe.
const violations = `axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => violations.flatMap((rule) =>
	rule.nodes.map((node) => [rule.id, node.target.join(' '), node.html.slice(0, 200), node.failureSummary].join('\n\t'))).join('\n'))`

// Accessible fails the test unless axe finds nothing wrong with the page.
func (b *Tab) Accessible(what string) {
	b.t.Helper()
	if !run(b, "look for axe", chromedp.Evaluate[bool](`'axe' in window`)) {
		run(b, "load axe", chromedp.Evaluate[chromedp.Void](axeSource+`;undefined`))
	}
	if found := run(b, "run axe", chromedp.Evaluate[string](violations, chromedp.EvalAwaitPromise)); strings.TrimSpace(found) != "" {
		b.t.Errorf("axe on %s:\n%s", what, found)
	}
}

// Before runs the script in each page that is opened from now on, before its own scripts.
func (b *Tab) Before(script string) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, page.Enable, page.EnableParams{})
	must(b.t, err)
	_, err = chromedp.Call(b.ctx, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: script})
	must(b.t, err)
}
