package sender

import (
	"github.com/medilab/webhooks/domain"
)

// Outcome names how a call ended: a closed set of words that integrators read in
// the call log. Result.Error says the rest.
type Outcome = domain.Outcome

// Only Success is a success; after any other outcome the scheduler retries.
const (
	Success                = domain.OutcomeSuccess     // 200 to 299, and the answer ended in time
	HTTPStatus     Outcome = "http_status"             // any other status
	Timeout                = domain.OutcomeTimeout     // the call, body included, did not end within its timeout
	Interrupted            = domain.OutcomeInterrupted // the caller's context ended first: we are shutting down
	RefusedTarget  Outcome = "refused_target"          // webhooks may not call the address
	DNS            Outcome = "dns"                     // the host's name has no address
	Connect        Outcome = "connect"                 // nothing accepts connections at the address
	TLSExpired     Outcome = "tls_expired"             // the certificate has expired or is not valid yet
	TLSWrongHost   Outcome = "tls_wrong_host"          // the certificate is for another host
	TLSSelfSigned  Outcome = "tls_self_signed"         // the certificate is self-signed
	TLSUntrusted   Outcome = "tls_untrusted"           // no known authority signed the certificate
	TLSOldProtocol Outcome = "tls_old_protocol"        // the receiver supports nothing newer than TLS 1.1
	TLSFailed      Outcome = "tls_failed"              // any other failure to agree on TLS
	Reset          Outcome = "reset"                   // the connection ended before the answer was complete
	BadResponse    Outcome = "bad_response"            // the answer is not HTTP, or its headers do not end
	InvalidRequest Outcome = "invalid_request"         // the URL or a header cannot be sent at all
)

// Outcomes are all outcomes that a call log may have; lacks only of test calls.
var Outcomes = append([]Outcome{
	Success, HTTPStatus, Timeout, Interrupted, RefusedTarget, DNS, Connect,
	TLSExpired, TLSWrongHost, TLSSelfSigned, TLSUntrusted, TLSOldProtocol, TLSFailed,
	Reset, BadResponse, InvalidRequest,
}, domain.Lacks()...)
