package domain

import (
	"slices"
	"strconv"
	"time"

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

// Headers are the service's own headers of one attempt, over the exact bytes of body:
// the guide's six in its order, then what the contract adds (section 3). Those of
// signatures are there when the webhook has a secret. The webhook's own headers are not
// among them, and cannot take the place of any (CheckHeaders).
func Headers(v PayloadVersion, p Payload, body []byte, signer Signer) []Header {
	contentType := "application/json"
	if v == PayloadCloudEvents {
		contentType = "application/cloudevents+json"
	}
	return callHead{
		contentType: contentType,
		event:       string(p.EventType),
		eventID:     p.EventID,
		webhookID:   p.WebhookID,
		deliveryID:  p.DeliveryID,
		attempt:     p.Attempt,
		at:          p.Timestamp,
		version:     v,
		sequence:    p.Sequence,
		replayID:    p.ReplayID,
		trace:       p.Trace,
	}.headers(body, signer)
}

// BatchHeaders are Headers for a batch, which has no one event's id.
func BatchHeaders(v PayloadVersion, p BatchPayload, body []byte, signer Signer) []Header {
	contentType := "application/json"
	if v == PayloadCloudEvents {
		contentType = "application/cloudevents-batch+json"
	}
	return callHead{
		trace:       CommonTrace(p.Events),
		contentType: contentType,
		event:       string(BatchEventType),
		webhookID:   p.WebhookID,
		deliveryID:  p.DeliveryID,
		attempt:     p.Attempt,
		at:          p.Timestamp,
		version:     v,
		replayID:    p.ReplayID,
	}.headers(body, signer)
}

// callHead is what the headers of a single event's attempt and of a batch's have in common.
type callHead struct {
	contentType string
	event       string
	eventID     uuid.UUID // zero: none
	webhookID   uuid.UUID
	deliveryID  uuid.UUID
	attempt     int
	at          time.Time
	version     PayloadVersion
	sequence    int64    // 0: none
	replayID    ReplayID // zero: none
	trace       Trace
}

func (c callHead) headers(body []byte, signer Signer) []Header {
	delivery := c.deliveryID.String()
	headers := make([]Header, 0, 15)
	headers = append(headers,
		Header{"Content-Type", c.contentType},
		Header{"User-Agent", UserAgent},
		Header{"X-Webhook-Event", c.event},
		Header{"X-Webhook-ID", c.webhookID.String()},
		Header{"X-Webhook-Attempt", strconv.Itoa(c.attempt)},
	)
	if signer.Current != nil && !signer.Current.Asymmetric() {
		headers = append(headers, Header{HeaderSignature, string(signer.Current.AppendGuide(nil, body))})
	}
	if at := slices.IndexFunc(signer.Previous, func(k *SigningKey) bool { return !k.Asymmetric() }); at >= 0 {
		headers = append(headers, Header{HeaderSignaturePrevious, string(signer.Previous[at].AppendGuide(nil, body))})
	}
	if c.eventID != uuid.Nil {
		headers = append(headers, Header{"X-Webhook-Event-ID", c.eventID.String()})
	}
	headers = append(headers,
		Header{"X-Webhook-Delivery-ID", delivery},
		Header{"X-Webhook-Payload-Version", string(c.version)},
	)
	if c.sequence != 0 {
		headers = append(headers, Header{"X-Webhook-Sequence", strconv.FormatInt(c.sequence, 10)})
	}
	if c.replayID != (ReplayID{}) {
		headers = append(headers, Header{"X-Webhook-Replay", c.replayID.String()})
	}
	if c.trace.Traceparent != "" {
		headers = append(headers, Header{HeaderTraceparent, c.trace.Traceparent})
	}
	if c.trace.Tracestate != "" {
		headers = append(headers, Header{HeaderTracestate, c.trace.Tracestate})
	}
	if signer.Current != nil {
		signatures := signer.Current.AppendStandard(nil, delivery, c.at, body)
		for _, previous := range signer.Previous {
			signatures = previous.AppendStandard(append(signatures, ' '), delivery, c.at, body)
		}
		headers = append(headers,
			Header{HeaderStandardID, delivery},
			Header{HeaderStandardTimestamp, strconv.FormatInt(c.at.Unix(), 10)},
			Header{HeaderStandardSignature, string(signatures)},
		)
	}
	return headers
}
