package http

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/medilab/webhooks/domain"
)

// ownRequest is the header of all requests by cookie that change something: a page of
// another site cannot set it.
var ownRequest = headerParam{"X-Requested-With", "any text; required of requests with the cookie of a session"}

// sessionActor is the header by which a page says whose session it takes itself to be in, as the
// cookie may be another user's by the time that a request is sent.
var sessionActor = headerParam{"X-Session-Actor", "percent-encoded; a request with the cookie of another actor's session is 401"}

// cookies are those of browsers that reach this server at the address.
type cookies struct {
	public string // where browsers reach this server; "": as they say
	cross  *http.CrossOriginProtection
}

func newCookies(public string) cookies {
	c := cookies{strings.TrimSuffix(public, "/"), http.NewCrossOriginProtection()}
	if u, err := url.Parse(public); err == nil && u.Host != "" {
		_ = c.cross.AddTrustedOrigin(u.Scheme + "://" + u.Host) // it is of that form
	}
	return c
}

// checkOwn refuses requests that change something and were made by pages of other sites.
func (c cookies) checkOwn(r *http.Request) error {
	switch {
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		return nil
	case r.Header.Get(ownRequest.name) == "":
		return domain.Forbidden("a request by cookie needs the header X-Requested-With")
	case c.cross.Check(r) != nil:
		return domain.Forbidden("a request by cookie must come from this server's own pages")
	}
	return nil
}

// origin returns the address of this server for the browser.
func (c cookies) origin(r *http.Request) string {
	switch {
	case c.public != "":
		return c.public
	case isSecure(r):
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// isSecure reports whether the browser came by https, perhaps to a proxy. One that lies about
// that harms its own cookies alone.
func isSecure(r *http.Request) bool {
	return r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https"
}

// secure reports whether the browser sends cookies by https only.
func (c cookies) secure(r *http.Request) bool { return isSecure(r) || c.public == "https://"+r.Host }

// name returns a name by which only this very host can set the cookie, where there is one.
func (c cookies) name(r *http.Request, name string) string {
	if c.secure(r) {
		return "__Host-" + name
	}
	return name
}

func (c cookies) read(r *http.Request, name string) string {
	cookie, err := r.Cookie(c.name(r, name))
	if err != nil {
		return ""
	}
	return cookie.Value
}

// set sets a cookie that lasts for the time, or as long as the browser runs if it is 0. An
// empty value deletes it.
func (c cookies) set(w http.ResponseWriter, r *http.Request, name, value string, lasts time.Duration) {
	cookie := &http.Cookie{
		Name: c.name(r, name), Value: value, Path: "/", MaxAge: int(lasts / time.Second), HttpOnly: true, Secure: c.secure(r), SameSite: http.SameSiteStrictMode,
	}
	if name == flowCookie { // the provider's page leads back with it
		cookie.SameSite = http.SameSiteLaxMode
	}
	if value == "" {
		cookie.MaxAge = -1
	}
	http.SetCookie(w, cookie)
}
