package remote

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Error is a server's answer that does not accept events.
type Error struct {
	Status int    // of HTTP
	Detail string // what is wrong, in the server's words

	named      map[int][]string // what is wrong with events of a batch, by their index
	refuses    bool             // the events, whenever they are sent
	retryAfter time.Duration
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("the server answered %d %s", e.Status, e.Detail) }

var fieldOfEvent = regexp.MustCompile(`^events\[(\d{1,3})\]\.(.+)$`)

// newError reads an answer that does not accept n events. One of the server itself (RFC 9457) may be
// about the events; of others, only that they are too large.
func newError(resp *http.Response, body []byte, n int) *Error {
	var problem struct {
		Title, Detail string
		Errors        []struct{ Field, Message string }
	}
	own := strings.HasPrefix(resp.Header.Get("Content-Type"), "application/problem+json") && json.Unmarshal(body, &problem) == nil
	e := &Error{Status: resp.StatusCode, Detail: cmp.Or(problem.Detail, problem.Title), named: map[int][]string{}}
	switch resp.StatusCode {
	case http.StatusBadRequest, http.StatusConflict, http.StatusUnprocessableEntity:
		e.refuses = own
	case http.StatusRequestEntityTooLarge:
		e.refuses = true
	}
	for _, wrong := range problem.Errors {
		if match := fieldOfEvent.FindStringSubmatch(wrong.Field); match != nil {
			if i, err := strconv.Atoi(match[1]); err == nil && i < n {
				e.named[i] = append(e.named[i], match[2]+" "+wrong.Message)
			}
		}
	}
	e.retryAfter = retryAfter(resp.Header.Get("Retry-After"), time.Now())
	return e
}

// retryAfter returns what the header asks for: seconds, or a time.
func retryAfter(header string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(header, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil {
		return at.Sub(now)
	}
	return 0
}
