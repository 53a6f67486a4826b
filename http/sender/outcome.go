package sender

// Outcome names how a call ended. The set is closed; the words are what an
// integrator reads in the call log, and Result.Error says the rest.
type Outcome string

// Only Success is a success; everything else is retried by whoever schedules.
const (
	// Success: the receiver answered 200 to 299 and the answer ended in time.
	Success Outcome = "success"
	// HTTPStatus: the receiver answered with any other status.
	HTTPStatus Outcome = "http_status"
	// Timeout: the whole call, body included, did not end within its timeout.
	Timeout Outcome = "timeout"
	// Interrupted: the caller's context ended first (we are shutting down).
	Interrupted Outcome = "interrupted"
	// RefusedTarget: the address is one that webhooks may not call.
	RefusedTarget Outcome = "refused_target"
	// DNS: the host's name has no address.
	DNS Outcome = "dns"
	// Connect: nothing accepts connections at the address.
	Connect Outcome = "connect"
	// TLSExpired: the certificate is expired or not valid yet.
	TLSExpired Outcome = "tls_expired"
	// TLSWrongHost: the certificate is for another host.
	TLSWrongHost Outcome = "tls_wrong_host"
	// TLSSelfSigned: the certificate vouches for itself.
	TLSSelfSigned Outcome = "tls_self_signed"
	// TLSUntrusted: no known authority signed the certificate.
	TLSUntrusted Outcome = "tls_untrusted"
	// TLSOldProtocol: the receiver speaks nothing newer than TLS 1.1.
	TLSOldProtocol Outcome = "tls_old_protocol"
	// TLSFailed: any other failure to agree on TLS.
	TLSFailed Outcome = "tls_failed"
	// Reset: the connection ended before the answer was complete.
	Reset Outcome = "reset"
	// BadResponse: the answer is not HTTP, or its headers have no end.
	BadResponse Outcome = "bad_response"
	// InvalidRequest: the URL or a header cannot be sent at all.
	InvalidRequest Outcome = "invalid_request"
)

// Withheld: nothing was sent, as Request.Allowed said no. It is told to the caller
// and no call, so it is never in a call log.
const Withheld Outcome = "withheld"

// Outcomes is the closed set of how calls end, for metrics and documentation.
var Outcomes = []Outcome{
	Success, HTTPStatus, Timeout, Interrupted, RefusedTarget, DNS, Connect,
	TLSExpired, TLSWrongHost, TLSSelfSigned, TLSUntrusted, TLSOldProtocol, TLSFailed,
	Reset, BadResponse, InvalidRequest,
}
