package domain

import (
	"maps"
	"slices"
	"strings"
)

// Outcomes of calls that were not made, because this server lacked something of its own.
// They are no failure of the receiver: the delivery waits and uses up no attempt. Only
// test calls are recorded with them.
const (
	LacksDescriptors Outcome = "no_descriptors"
	LacksPorts       Outcome = "no_ports"
	LacksMemory      Outcome = "no_memory"
	LacksNameServer  Outcome = "no_name_server"
	LacksProxy       Outcome = "no_proxy"
	LacksKey         Outcome = "unreadable_secret" // in logs before 2026-11-28 a failed attempt
)

// lackTexts are the words for what is lacking.
var lackTexts = map[Outcome]string{
	LacksDescriptors: "free file descriptors",
	LacksPorts:       "free local ports",
	LacksMemory:      "memory for connections",
	LacksNameServer:  "a name server that answers",
	LacksProxy:       "a proxy that works (MEDILAB_PROXY)",
	LacksKey:         "the key of a secret (MEDILAB_KEYS)",
}

// Lacks lists what a server can lack.
func Lacks() []Outcome { return slices.Sorted(maps.Keys(lackTexts)) }

// IsLack reports whether the call was not made because this server lacked something.
func (o Outcome) IsLack() bool { return lackTexts[o] != "" }

// OutcomeAuthFailed: nothing was sent, as the webhook's token server gave no access token.
// Unlike a lack, it is a failure of the receiver's side.
const OutcomeAuthFailed Outcome = "auth_failed"

// WasSent reports whether the receiver may have been called.
func (o Outcome) WasSent() bool { return o != OutcomeAuthFailed && !o.IsLack() }

// NodeLack is what a node lacks for its calls.
type NodeLack struct {
	Node  string  `json:"node"`
	Lacks Outcome `json:"lacks"`
}

// JudgeNodes returns the finding about what the live nodes lack.
func JudgeNodes(lacks []NodeLack) Finding {
	texts := make([]string, len(lacks))
	for i, l := range lacks {
		texts[i] = "the server " + l.Node + " lacks " + lackTexts[l.Lacks]
	}
	finding := judged(AlertNode, len(lacks) > 0, 0, 0, "no running server lacks anything", strings.Join(texts, "; ")+": deliveries wait")
	finding.Nodes = lacks
	return finding
}

// unsent are the outcomes of calls that ended before anything was sent.
var unsent = map[Outcome]bool{
	"refused_target": true, "dns": true, "connect": true, "invalid_request": true, "unreadable_event": true, "withheld": true, "auth_failed": true,
	"tls_expired": true, "tls_wrong_host": true, "tls_self_signed": true, "tls_untrusted": true, "tls_old_protocol": true, "tls_failed": true,
}

// SentNothing reports whether a call with the outcome cannot have shown the receiver
// anything of the event.
func (o Outcome) SentNothing() bool { return unsent[o] || o.IsLack() }
