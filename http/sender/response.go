package sender

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"
)

// readResponse reads what is kept of an answer.
func readResponse(resp *http.Response) Result {
	res := Result{Status: resp.StatusCode, Header: boundHeaders(resp.Header)}
	if resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable {
		res.RetryAfter = res.Header.Get("Retry-After")
	}
	var err error
	// After 101 the connection speaks another protocol, and there is no body.
	if resp.StatusCode != http.StatusSwitchingProtocols && resp.ContentLength != 0 {
		res.Body, res.Truncated, err = readBody(resp.Body)
	}
	switch ok := resp.StatusCode >= 200 && resp.StatusCode <= 299; {
	case ok && err == nil:
		res.Outcome = Success
	case ok:
		res.Outcome, res.Error = explain(err)
		res.Truncated = true
	default:
		res.Outcome, res.Error = HTTPStatus, explainStatus(resp.StatusCode)
		res.Truncated = res.Truncated || err != nil
	}
	return res
}

func explainStatus(status int) string {
	switch {
	case status == http.StatusSwitchingProtocols:
		return "the receiver answered 101: a webhook call cannot switch protocols"
	case status >= 300 && status <= 399 && status != http.StatusNotModified:
		return fmt.Sprintf("the receiver answered %d: redirects are never followed; give the final address as the webhook's url", status)
	case status == http.StatusGone:
		return "the receiver answered 410: it wants this delivery no more"
	}
	return fmt.Sprintf("the receiver answered %d", status)
}

// readBody reads at most MaxBody bytes and the next one, which shows whether there
// is more and whether the last character is complete.
func readBody(r io.Reader) (body []byte, truncated bool, err error) {
	body, err = io.ReadAll(io.LimitReader(r, MaxBody+1))
	if len(body) > MaxBody {
		body, truncated, err = body[:cut(body, MaxBody)], true, nil
	}
	return bytes.Clone(body), truncated, err // it is kept for a while, without the room that it was read into
}

// cut returns the end of the last character that ends at or before limit, or limit
// if the text is not UTF-8.
func cut(b []byte, limit int) int {
	for n := limit; n > limit-utf8.UTFMax && n > 0; n-- {
		if utf8.RuneStart(b[n]) {
			return n
		}
	}
	return limit
}

// boundHeaders returns h if it is within MaxHeaders and MaxHeaderBytes, else the
// values that fit: first of the headers that matter most, then by name. Values are
// made valid UTF-8, so that they can be stored as text.
func boundHeaders(h http.Header) http.Header {
	count, size, valid := 0, 0, true
	for name, values := range h {
		count += len(values)
		for _, v := range values {
			size += len(name) + len(v)
			valid = valid && utf8.ValidString(v)
		}
	}
	if count <= MaxHeaders && size <= MaxHeaderBytes && valid {
		return h
	}
	kept := make(http.Header)
	count, size = 0, 0
	for _, name := range slices.Concat([]string{"Retry-After", "Location", "Content-Type"}, slices.Sorted(maps.Keys(h))) {
		if kept[name] != nil {
			continue
		}
		for _, v := range h[name] {
			v = strings.ToValidUTF8(v, "\ufffd")
			if count < MaxHeaders && size+len(name)+len(v) <= MaxHeaderBytes {
				kept[name] = append(kept[name], v)
				count++
				size += len(name) + len(v)
			}
		}
	}
	return kept
}
