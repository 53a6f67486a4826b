package domain

// unsent are the outcomes of calls that ended before anything was sent.
var unsent = map[Outcome]bool{
	"refused_target": true, "dns": true, "connect": true, "invalid_request": true, "unreadable_event": true, "withheld": true, "auth_failed": true,
	"tls_expired": true, "tls_wrong_host": true, "tls_self_signed": true, "tls_untrusted": true, "tls_old_protocol": true, "tls_failed": true,
}

// SentNothing reports whether a call with the outcome cannot have shown the receiver
// anything of the event.
func (o Outcome) SentNothing() bool { return unsent[o] || o.IsLack() }
