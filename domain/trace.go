package domain

import (
	"regexp"
	"slices"
	"strings"
)

// Trace is the trace that an event is part of (W3C Trace Context); zero: none.
type Trace struct {
	Traceparent string `json:"traceparent,omitempty"`
	Tracestate  string `json:"tracestate,omitempty"`
}

// Bounds of W3C Trace Context, in members and characters.
const (
	maxTracestateMembers = 32
	maxTracestate        = 512
	longTracestateMember = 128
)

var (
	traceparent      = regexp.MustCompile(`^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`)
	tracestateMember = regexp.MustCompile(`^(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})` +
		`=[ -+\--<>-~]{0,255}[!-+\--<>-~]$`)
)

// ValidTraceparent reports whether the text is a traceparent of W3C Trace Context, of
// version 00 or a later one of the same form.
func ValidTraceparent(text string) bool {
	if !traceparent.MatchString(text) || text[:2] == "ff" {
		return false
	}
	trace, parent := text[3:35], text[36:52]
	return strings.Trim(trace, "0") != "" && strings.Trim(parent, "0") != ""
}

// NewTrace returns the trace of a traceparent, or none if that is invalid. A malformed
// tracestate is dropped.
func NewTrace(parent, state string) Trace {
	if !ValidTraceparent(parent) {
		return Trace{}
	}
	return Trace{Traceparent: parent, Tracestate: normalTracestate(state)}
}

// Or returns t as by NewTrace, or other if t has no traceparent.
func (t Trace) Or(other Trace) Trace {
	if t.Traceparent == "" {
		return other
	}
	return NewTrace(t.Traceparent, t.Tracestate)
}

// normalTracestate returns a valid list of at most maxTracestate characters. Of a longer one it
// drops whole members: long ones first, then from the end.
func normalTracestate(state string) string {
	var members []string
	keys := map[string]bool{}
	for member := range strings.SplitSeq(state, ",") {
		if member = strings.Trim(member, " \t"); member == "" {
			continue
		}
		key, _, _ := strings.Cut(member, "=")
		if !tracestateMember.MatchString(member) || keys[key] || len(members) == maxTracestateMembers {
			return ""
		}
		keys[key], members = true, append(members, member)
	}
	kept := strings.Join(members, ",")
	if len(kept) > maxTracestate {
		members = slices.DeleteFunc(members, func(m string) bool { return len(m) > longTracestateMember })
		kept = strings.Join(members, ",")
	}
	for ; len(kept) > maxTracestate; kept = strings.Join(members, ",") {
		members = members[:len(members)-1]
	}
	return kept
}

// CommonTrace returns the trace that all the events are part of, if they have one.
func CommonTrace(events []PayloadEvent) (common Trace) {
	for i, e := range events {
		switch {
		case i == 0:
			common = e.Trace
		case e.Traceparent != common.Traceparent:
			return Trace{}
		case e.Tracestate != common.Tracestate:
			common.Tracestate = ""
		}
	}
	return common
}
