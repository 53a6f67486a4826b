// Package admin is the admin panel: one page whose scripts work against the API
// with the user's own token. It has no data and no rights of its own.
package admin

import (
	"bytes"
	"embed"
	"html/template"
	"io/fs"
	"net/http"
	"strings"

	"golang.org/x/text/language"

	"github.com/medilab/webhooks/http/static"
)

//go:embed assets
var assets embed.FS

//go:embed shell.html
var shell string

// Path is where the panel is.
const Path = "/admin"

// policy lets the page load its own files and call its own server, nothing else;
// and scripts cannot turn any text into HTML (Trusted Types), so what a receiver
// answered stays text even where our code should be wrong.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"frame-ancestors 'none'; base-uri 'none'; form-action 'self'; require-trusted-types-for 'script'; trusted-types 'none'"

// languages are those of the panel; the first is for who asks for no other.
var languages = []struct {
	tag      language.Tag
	noScript string
}{
	{language.Russian, "Панели нужен JavaScript."},
	{language.English, "The panel needs JavaScript."},
}

// Handler answers with the page at whatever path ending in Path it is mounted, and
// with its files below Path. The page itself is for
// everybody: all it can do needs a token of the API.
func Handler() http.Handler {
	tree, err := fs.Sub(assets, "assets")
	if err != nil {
		panic(err) // the name is ours
	}
	files := static.Must(Path+"/assets", tree)
	pages := shells(files.Root())
	tags := make([]language.Tag, len(languages))
	for i, l := range languages {
		tags[i] = l.tag
	}
	matcher := language.NewMatcher(tags)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, Path+"/assets/"):
			files.ServeHTTP(w, r)
		case !strings.HasSuffix(strings.TrimSuffix(r.URL.Path, "/"), Path):
			static.NotFound(w)
		case static.Reading(w, r):
			_, chosen := language.MatchStrings(matcher, r.Header.Get("Accept-Language"))
			w.Header().Set("Vary", "Accept-Language")
			w.Header().Set("Content-Language", tags[chosen].String())
			static.Page(w, r, policy, pages[chosen])
		}
	})
}

// shells are the page in each language.
func shells(root string) [][]byte {
	page := template.Must(template.New("shell").Parse(shell))
	pages := make([][]byte, len(languages))
	for i, l := range languages {
		var b bytes.Buffer
		err := page.Execute(&b, struct{ Language, Assets, NoScript string }{l.tag.String(), root, l.noScript})
		if err != nil {
			panic(err) // the template is ours
		}
		pages[i] = b.Bytes()
	}
	return pages
}
