package domain

import (
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// Header is one header of a call, named with the letter case it is sent in.
type Header struct{ Name, Value string }

// Names of the headers that every call has, or those of signed ones.
const (
	HeaderSignature         = "X-Webhook-Signature"
	HeaderSignaturePrevious = "X-Webhook-Signature-Previous"
	HeaderStandardID        = "webhook-id"
	HeaderStandardTimestamp = "webhook-timestamp"
	HeaderStandardSignature = "webhook-signature"
	HeaderTraceparent       = "traceparent"
	HeaderTracestate        = "tracestate"
	HeaderAuthorization     = "Authorization" // of webhooks with auth of the type oauth2
)

// UserAgent is how the service names itself to receivers (the guide's section "Заголовки").
const UserAgent = "MediLab-Webhook/1.0"

// NamesTrace reports whether the header is one of the two that a trace is sent in.
func (h Header) NamesTrace() bool {
	return strings.EqualFold(h.Name, HeaderTraceparent) || strings.EqualFold(h.Name, HeaderTracestate)
}

// Headers are the service's own headers of one attempt, over the exact bytes of body:
// the guide's six in its order, then what the contract adds (section 3). Those of
// signatures are there when the webhook has a secret, and that of an event's id unless it is a
// batch. The webhook's own headers are not among them, and cannot take the place of any
// (CheckHeaders).
func Headers(v PayloadVersion, p Payload, body []byte, signer Signer) []Header {
	contentType, cloudEvents := "application/json", "application/cloudevents+json"
	if p.Events != nil {
		p.PayloadEvent, cloudEvents = PayloadEvent{EventType: BatchEventType, Trace: CommonTrace(p.Events)}, "application/cloudevents-batch+json"
	}
	if v == PayloadCloudEvents {
		contentType = cloudEvents
	}
	delivery := p.DeliveryID.String()
	headers := make([]Header, 0, 15)
	headers = append(headers,
		Header{"Content-Type", contentType},
		Header{"User-Agent", UserAgent},
		Header{"X-Webhook-Event", string(p.EventType)},
		Header{"X-Webhook-ID", p.WebhookID.String()},
		Header{"X-Webhook-Attempt", strconv.Itoa(p.Attempt)},
	)
	if signer.Current != nil && !signer.Current.Asymmetric() {
		headers = append(headers, Header{HeaderSignature, string(signer.Current.AppendGuide(nil, body))})
	}
	if at := slices.IndexFunc(signer.Previous, func(k *SigningKey) bool { return !k.Asymmetric() }); at >= 0 {
		headers = append(headers, Header{HeaderSignaturePrevious, string(signer.Previous[at].AppendGuide(nil, body))})
	}
	if p.EventID != uuid.Nil {
		headers = append(headers, Header{"X-Webhook-Event-ID", p.EventID.String()})
	}
	headers = append(headers,
		Header{"X-Webhook-Delivery-ID", delivery},
		Header{"X-Webhook-Payload-Version", string(v)},
	)
	if p.Sequence != 0 {
		headers = append(headers, Header{"X-Webhook-Sequence", strconv.FormatInt(p.Sequence, 10)})
	}
	if p.ReplayID != (ReplayID{}) {
		headers = append(headers, Header{"X-Webhook-Replay", p.ReplayID.String()})
	}
	if p.Trace.Traceparent != "" {
		headers = append(headers, Header{HeaderTraceparent, p.Trace.Traceparent})
	}
	if p.Trace.Tracestate != "" {
		headers = append(headers, Header{HeaderTracestate, p.Trace.Tracestate})
	}
	if signer.Current != nil {
		signatures := signer.Current.AppendStandard(nil, delivery, p.Timestamp, body)
		for _, previous := range signer.Previous {
			signatures = previous.AppendStandard(append(signatures, ' '), delivery, p.Timestamp, body)
		}
		headers = append(headers,
			Header{HeaderStandardID, delivery},
			Header{HeaderStandardTimestamp, strconv.FormatInt(p.Timestamp.Unix(), 10)},
			Header{HeaderStandardSignature, string(signatures)},
		)
	}
	return headers
}
