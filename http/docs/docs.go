// Package docs is the page that shows the API's description and lets one try a
// call. It is Swagger UI, embedded: nothing comes from another server.
package docs

import (
	"bytes"
	"embed"
	"html/template"
	"io/fs"
	"net/http"
	"strings"

	"github.com/medilab/webhooks/http/static"
)

//go:embed assets
var assets embed.FS

//go:embed page.html
var page string

// Path is where the page is.
const Path = "/docs"

// policy is as strict as the panel's but for Trusted Types: Swagger UI parses
// Markdown into (sanitised) HTML. The description it shows is our own.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"frame-ancestors 'none'; base-uri 'none'; form-action 'self'"

// Handler answers with the page at whatever path it is mounted, and with its
// files below Path. The page is for everybody; each call needs the caller's token.
func Handler() http.Handler {
	tree, err := fs.Sub(assets, "assets")
	if err != nil {
		panic(err) // the name is ours
	}
	files := static.Must(Path+"/assets", tree)
	var html bytes.Buffer
	if err := template.Must(template.New("page").Parse(page)).Execute(&html, files.Root()); err != nil {
		panic(err) // the template is ours
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, Path+"/assets/"):
			files.ServeHTTP(w, r)
		case !strings.HasSuffix(strings.TrimSuffix(r.URL.Path, "/"), Path):
			static.NotFound(w)
		case static.Reading(w, r):
			static.Page(w, r, policy, html.Bytes())
		}
	})
}
