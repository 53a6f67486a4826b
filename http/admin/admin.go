// Package admin is the admin panel: one page whose scripts work against the API
// in the user's own session. It has no data and no rights of its own. A second page of the
// same parts shows the API's description and lets one try a call.
package admin

import (
	"bytes"
	"embed"
	"html/template"
	"io/fs"
	"net/http"
	"strings"

	"golang.org/x/text/language"
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
	tree, err := fs.Sub(assets, "assets")
	if err != nil {
		panic(err) // the name is ours
	}
	files := newFiles(path+"/assets", tree)
	parsed := template.Must(template.New("page").Parse(html))
	tags, pages := make([]language.Tag, len(languages)), make([]bytes.Buffer, len(languages))
	for i, l := range languages {
		tags[i] = l.tag
		if err := parsed.Execute(&pages[i], struct{ Language, Assets, NoScript string }{l.tag.String(), files.root, l.noScript}); err != nil {
			panic(err) // the template is ours
		}
	}
	matcher := language.NewMatcher(tags)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, path+"/assets/"):
			files.ServeHTTP(w, r)
		case !strings.HasSuffix(strings.TrimSuffix(r.URL.Path, "/"), path):
			refuse(w, http.StatusNotFound)
		case reading(w, r):
			_, chosen := language.MatchStrings(matcher, r.Header.Get("Accept-Language"))
			w.Header().Set("Content-Language", tags[chosen].String())
			for name, value := range pageHeaders {
				w.Header().Set(name, value)
			}
			write(w, r, pages[chosen].Bytes())
		}
	})
}

// pageHeaders are those of a page. It is not cached: it names the files of one version of the
// program.
var pageHeaders = map[string]string{
	"Vary":                       "Accept-Language",
	"Content-Type":               "text/html; charset=utf-8",
	"Cache-Control":              "no-store",
	"Content-Security-Policy":    policy,
	"Referrer-Policy":            "no-referrer",
	"X-Content-Type-Options":     "nosniff",
	"X-Frame-Options":            "DENY",
	"Cross-Origin-Opener-Policy": "same-origin",
	"Permissions-Policy":         "camera=(), geolocation=(), microphone=()",
}
