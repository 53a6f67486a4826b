// Package admin is the admin panel: one page whose scripts work against the API
// in the user's own session. It has no data and no rights of its own. A second page of the
// same parts shows the API's description and lets one try a call.
package admin

import (
	"embed"
	"net/http"

	"golang.org/x/text/language"

	"github.com/medilab/webhooks/http/static"
)

//go:embed assets
var assets embed.FS

//go:embed shell.html
var shell string

//go:embed docs.html
var docs string

// Path is where the panel is, DocsPath where the API's description is.
const (
	Path     = "/admin"
	DocsPath = "/docs"
)

// policy lets the page load its own files and call its own server, nothing else;
// and scripts cannot turn any text into HTML (Trusted Types), so what a receiver
// answered stays text even where our code should be wrong.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"frame-ancestors 'none'; base-uri 'none'; form-action 'self'; require-trusted-types-for 'script'; trusted-types 'none'"

// languages are those of the panel; the first is the default.
var languages = []struct {
	tag      language.Tag
	noScript string
}{
	{language.Russian, "Панели нужен JavaScript."},
	{language.English, "The panel needs JavaScript."},
}

// Handler serves the panel, in the language that the browser asks for, and its files. The
// page is public: all that it does needs a session or a token of the API.
func Handler() http.Handler { return page(Path, shell) }

// Docs serves the API's description in the same way.
func Docs() http.Handler { return page(DocsPath, docs) }

func page(path, html string) http.Handler {
	return static.Handler(path, assets, policy, func(root string) static.Render {
		tags, pages := make([]language.Tag, len(languages)), make([][]byte, len(languages))
		for i, l := range languages {
			tags[i] = l.tag
			pages[i] = static.Execute(html, struct{ Language, Assets, NoScript string }{l.tag.String(), root, l.noScript})
		}
		matcher := language.NewMatcher(tags)
		return func(header http.Header, r *http.Request) []byte {
			_, chosen := language.MatchStrings(matcher, r.Header.Get("Accept-Language"))
			header.Set("Vary", "Accept-Language")
			header.Set("Content-Language", tags[chosen].String())
			return pages[chosen]
		}
	})
}
