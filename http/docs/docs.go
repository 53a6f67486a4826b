// Package docs is the page that shows the API's description and lets one try a
// call. It is Swagger UI, embedded: nothing comes from another server.
package docs

import (
	"embed"
	"net/http"

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

// Handler serves the page and its files. The page is public; each call it makes needs the
// caller's token.
func Handler() http.Handler {
	return static.Handler(Path, assets, policy, func(root string) static.Render {
		html := static.Execute(page, root)
		return func(http.Header, *http.Request) []byte { return html }
	})
}
