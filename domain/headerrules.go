package domain

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/medilab/webhooks/domain/strictjson"
)

// Rules for a webhook's own headers and its URL (contract section 2).
const (
	MaxHeaders     = 50
	maxHeaderName  = 200
	MaxHeaderValue = 4096
	maxURLBytes    = 2048
)

// reservedHeaders cannot be set: the service or the connection sets them, or they would
// change how the call is read. Lower case.
var reservedHeaders = map[string]string{
	"host":                "is set from the url",
	"cookie":              "cannot be sent by a webhook",
	"expect":              "cannot be sent by a webhook",
	"user-agent":          "is set by the service",
	"connection":          hopByHop,
	"keep-alive":          hopByHop,
	"proxy-connection":    hopByHop,
	"proxy-authenticate":  hopByHop,
	"proxy-authorization": hopByHop,
	"te":                  hopByHop,
	"trailer":             hopByHop,
	"transfer-encoding":   hopByHop,
	"upgrade":             hopByHop,
	"http2-settings":      hopByHop,
}

const hopByHop = "belongs to the connection, not to the call"

// CheckHeaders returns every reason why a webhook cannot have these headers of its own:
// more than 50; a name that is not an HTTP token, occurs twice in any letter case, or is
// reserved (Host, Content-*, Cookie, Expect, User-Agent, X-Webhook-*, webhook-*,
// *Idempotency-Key and the hop-by-hop headers); a value over 4 KB or beyond printable
// ASCII. Fields are named `headers.<name>`; values are never repeated in a message.
func CheckHeaders(headers []Header) []FieldError {
	if len(headers) > MaxHeaders {
		return []FieldError{{Field: "headers", Message: fmt.Sprintf("must be at most %d", MaxHeaders)}}
	}
	var refused []FieldError
	seen := make(map[string]bool, len(headers))
	for _, h := range headers {
		lower := strings.ToLower(h.Name)
		message := checkHeaderName(lower)
		switch {
		case message != "":
		case seen[lower]:
			message = "is there twice; letter case makes no difference in a header's name"
		case len(h.Value) > MaxHeaderValue:
			message = fmt.Sprintf("must have a value of at most %d bytes", MaxHeaderValue)
		case strings.ContainsFunc(h.Value, func(r rune) bool { return r < ' ' || r > '~' }):
			message = "must have a value of printable ASCII characters"
		}
		seen[lower] = true
		if message != "" {
			refused = append(refused, FieldError{Field: "headers." + strictjson.Shorten(h.Name, 100), Message: message})
		}
	}
	return refused
}

// SortedHeaders lists headers by name, so that a map of them has one order.
func SortedHeaders(headers map[string]string) []Header {
	list := make([]Header, 0, len(headers))
	for name, value := range headers {
		list = append(list, Header{name, value})
	}
	slices.SortFunc(list, func(a, b Header) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

func checkHeaderName(lower string) string {
	switch {
	case lower == "" || strings.Trim(lower, tokenCharacters) != "":
		return "must have a name of letters, digits and -_.!#$%&'*+^`|~"
	case len(lower) > maxHeaderName:
		return fmt.Sprintf("must have a name of at most %d characters", maxHeaderName)
	case reservedHeaders[lower] != "":
		return reservedHeaders[lower]
	case strings.HasPrefix(lower, "content-"):
		return "describes the body, which the service writes"
	case strings.HasPrefix(lower, "x-webhook-"), strings.HasPrefix(lower, "webhook-"):
		return "is set by the service"
	case strings.HasSuffix(lower, "idempotency-key"):
		return "is reserved; receivers tell repeated calls by X-Webhook-Delivery-ID"
	}
	return ""
}

// tokenCharacters, and letters, are what a token of RFC 9110 section 5.6.2 has, which header
// names are.
const tokenCharacters = "abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~"

// CheckURL refuses a webhook's url, naming the field `url`, unless it is an absolute http
// or https URL with a host, without user info (it would be a secret in the open) and
// without a fragment (it is never sent: a page's address was pasted, not a receiver's).
// Whether the host may be called is decided when it is called. The message never repeats
// the url.
func CheckURL(text string) error {
	if message := checkURL(text); message != "" {
		return Invalid("url", message)
	}
	return nil
}

func checkURL(text string) string {
	switch {
	case text == "":
		return "is required"
	case len(text) > maxURLBytes:
		return fmt.Sprintf("must be at most %d bytes", maxURLBytes)
	case !utf8.ValidString(text):
		return "must be UTF-8"
	case strings.ContainsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || IsUnshowable(r) }):
		return "must not contain spaces or control characters"
	}
	u, err := url.Parse(text)
	if err != nil {
		return "cannot be read as a URL"
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return "must begin with http:// or https://"
	case u.User != nil:
		return "must not contain a user name or password; use a header"
	case u.Hostname() == "":
		return "must name a host"
	case strings.Contains(text, "#"):
		return "must not have a fragment (#...), which is never sent"
	}
	// An empty port ("host:") is the scheme's own.
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "must have a port between 1 and 65535"
		}
	}
	return ""
}
