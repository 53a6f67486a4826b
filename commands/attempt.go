package commands

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/trace"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/envelope"
	"github.com/medilab/webhooks/eventstore"
)

// Outgoing is one call to make: always a POST.
type Outgoing struct {
	URL string
	// Header is sent as it is, in this order, with Accept-Encoding: identity and
	// without the headers that callers may not set.
	Header []domain.Header
	// Body must not be changed, not even after Send has returned: the transport
	// may still be writing a request whose answer came early.
	Body    []byte
	Timeout time.Duration // for the whole call, including the answer's body; 0 means 30 s
	// Fresh asks for a connection that no call over HTTP/1.1 has used before, so that
	// it cannot end as the last one may have: closed by the receiver when it was idle.
	Fresh bool
	// Allowed is asked as late as possible before the request is sent. If it says no,
	// nothing is sent, and the outcome is OutcomeWithheld. Nil allows.
	Allowed func() bool
}

// Answer says how a call ended; see the sender for how much is kept of a response.
type Answer struct {
	Outcome    domain.Outcome
	Status     int // 0 if no headers of an answer arrived
	Header     http.Header
	Body       []byte // the beginning of the answer as it came, cut on a character boundary
	Truncated  bool   // there was more
	Duration   time.Duration
	Error      string // empty on success, else one sentence, safe to show, for the call log
	RetryAfter string // that header of a 429 or 503 answer, unparsed
}

// Sender makes calls. Whatever a receiver does ends in an Answer.
type Sender interface {
	Send(ctx context.Context, call Outgoing) Answer
}

// Decrypter decrypts a field of a webhook.
type Decrypter interface {
	Decrypt(webhook domain.WebhookID, field string, encrypted domain.Sealed) (string, error)
}

// SecretField, HeaderField and AuthField name the fields that are sealed: what is sealed
// for one opens for no other.
const SecretField = "secret"

// AuthField is the sealed field of a secret of credentials.
func AuthField(name string) string { return "auth." + name }

// HeaderField is the sealed field of a header's value.
func HeaderField(name string) string { return "headers." + strings.ToLower(name) }

// Attempter makes the one attempt that deliveries, tests and alerts all are.
type Attempter struct {
	Sender Sender
	// WithCertificate returns a sender that presents the client certificate, over
	// connections that it shares with no other. Nil: it makes no calls with one.
	WithCertificate func(tls.Certificate) Sender
	Decrypter       Decrypter
	Clock           *eventstore.Clock
	Tracer          trace.Tracer // nil: no spans are made

	mu    sync.RWMutex
	ready map[domain.WebhookID]*prepared
}

// prepared is what a version of a webhook needs for every call, made once.
type prepared struct {
	version int64
	current *domain.SigningKey
	former  []*domain.SigningKey // of the webhook's previous secrets
	header  []domain.Header      // the webhook's own
	fields  *domain.Selection
	timeout time.Duration
	redact  redactor
	access  *access // nil: calls do not say who makes them
	traces  bool    // the webhook's own headers name a trace
}

// Attempt is what one attempt sends: an event, or a batch.
type Attempt struct {
	Webhook    domain.Webhook
	Delivery   domain.DeliveryID
	Number     int
	EventID    domain.EventID // of a batch: its first event
	Event      domain.EventTriggered
	OccurredAt time.Time
	// Fields are the parts of event_data that are sent; nil: all.
	Fields *domain.Selection
	// Batch is the events of a batch, nil when it is none. Then Event and
	// OccurredAt are not used.
	Batch    []domain.PayloadEvent
	LeftOut  []domain.LeftOut // of its events, as they are erased
	Sequence int64            // of an event; 0: none
	Replay   domain.ReplayID  // that asked for it; zero: none
	// Allowed is asked right before the call leaves. When it says no, nothing is
	// sent and the outcome is OutcomeWithheld. Nil allows.
	Allowed func() bool
}

// format names what the attempt carries: its event's type, and the version of
// the body.
func (at *Attempt) format() (string, domain.PayloadVersion) {
	if at.Batch != nil {
		return string(domain.BatchEventType), at.Webhook.PayloadVersion.BatchVersion()
	}
	return at.Event.EventType, at.Webhook.PayloadVersion
}

// keys are those of all that the attempt carries.
func (at *Attempt) keys() envelope.Keys {
	if at.Batch == nil {
		return at.Event.Keys
	}
	all := make([]envelope.Keys, len(at.Batch))
	for i := range at.Batch {
		all[i] = at.Batch[i].Keys
	}
	return envelope.Join(all...)
}

// InBatch returns the attempt with its event as a batch of one.
func (at Attempt) InBatch() Attempt {
	at.Batch = []domain.PayloadEvent{at.Event.Sent(at.EventID, at.OccurredAt, at.Sequence)}
	return at
}

// OutcomeWithheld: nothing was sent, as Attempt.Allowed said no. It is no call.
const OutcomeWithheld domain.Outcome = "withheld"

// Make makes the attempt and returns what the receiver asks of later ones.
func (a *Attempter) Make(ctx context.Context, at Attempt) (domain.Call, domain.Backoff) {
	if a.Tracer != nil {
		return a.traceMake(ctx, at)
	}
	return a.make(ctx, at)
}

func (a *Attempter) make(ctx context.Context, at Attempt) (domain.Call, domain.Backoff) {
	now := a.Clock.Now()
	w := &at.Webhook
	eventType, version := at.format()
	call := domain.Call{
		EventID: at.EventID, EventType: eventType, WebhookID: w.ID, WebhookVersion: w.Version,
		PayloadVersion: version, Attempt: at.Number, URL: w.URL, StartedAt: now, Sequence: at.Sequence, ReplayID: at.Replay, LeftOut: at.LeftOut,
		System:  at.Batch != nil && !slices.ContainsFunc(at.Batch, func(e domain.PayloadEvent) bool { return !e.EventType.IsSystem() }),
		Content: domain.Content{Keys: at.keys()},
	}
	ready, err := a.prepare(at.Webhook)
	if err != nil {
		call.Outcome, call.Error = domain.LacksKey, "nothing was sent: "+err.Error()
		return call, domain.Backoff{}
	}
	by, failed := ready.grant(ctx, a.Sender)
	if failed.Outcome != "" {
		call.Outcome, call.Error, call.Duration = failed.Outcome, failed.Error, failed.Duration.Microseconds()
		return call, domain.Backoff{}
	}
	if by.token != "" { // which may have taken its time
		now = a.Clock.Now()
		call.StartedAt = now
	}
	at.Fields = ready.fields
	body, header := Compose(at, now, ready.signer(*w, now))
	if ready.traces {
		header = slices.DeleteFunc(header, domain.Header.NamesTrace)
	}
	answer := by.sender.Send(ctx, Outgoing{
		URL: w.URL, Header: append(append(header, ready.header...), by.header...), Body: body, Timeout: by.timeout, Fresh: at.Number > 1, Allowed: at.Allowed,
	})
	if by.token != "" && answer.Status == http.StatusUnauthorized {
		ready.access.drop(by.token)
	}
	if answer.Outcome.WasSent() {
		sum := sha256.Sum256(body)
		call.BodyHash = sum[:]
	}
	call.Duration = answer.Duration.Microseconds()
	call.Outcome, call.Error, call.Status = answer.Outcome, string(by.redact.body([]byte(answer.Error), false)), answer.Status
	answered := keptHeader(answer.Header)
	call.Header, call.Body, call.Truncated = by.redact.header(answered), by.redact.answer(answered, answer.Body, answer.Truncated), answer.Truncated
	return call, backoffOf(answer, a.Clock.Now())
}

// backoffOf reads the answer's header by the names as net/http has them.
func backoffOf(answer Answer, now time.Time) domain.Backoff {
	header := answer.Header
	retryAfter, _ := domain.ParseRetryAfter(answer.RetryAfter, now)
	return domain.BackoffOf(retryAfter, domain.RateLimitHeader{
		RateLimit: strings.Join(header["Ratelimit"], ","),
		Remaining: cmp.Or(header.Get("Ratelimit-Remaining"), header.Get("X-Ratelimit-Remaining")),
		Reset:     cmp.Or(header.Get("Ratelimit-Reset"), header.Get("X-Ratelimit-Reset")),
	}, now)
}

// Compose returns the exact bytes and our own headers of an attempt made at the
// time: a pure function, so that the call log need not keep them.
func Compose(at Attempt, now time.Time, signer domain.Signer) ([]byte, []domain.Header) {
	_, version := at.format()
	payload := domain.Payload{
		Events: at.Batch, WebhookID: uuid.UUID(at.Webhook.ID), DeliveryID: uuid.UUID(at.Delivery), Timestamp: now, Attempt: at.Number, ReplayID: at.Replay,
	}
	switch {
	case at.Batch == nil:
		payload.PayloadEvent = at.Event.Sent(at.EventID, at.OccurredAt, at.Sequence)
		payload.EventData = at.Fields.Of(payload.EventData)
	case at.Fields != nil:
		payload.Events = slices.Clone(at.Batch) // the caller sends it again
		for i := range payload.Events {
			payload.Events[i].EventData = at.Fields.Of(payload.Events[i].EventData)
		}
	}
	size := domain.BatchMemberBytes + len(payload.EventData)
	for i := range payload.Events {
		size += len(payload.Events[i].EventData) + domain.BatchMemberBytes
	}
	body := domain.AppendPayload(make([]byte, 0, size), version, payload)
	return body, domain.Headers(version, payload, body, signer)
}

func (p *prepared) signer(w domain.Webhook, now time.Time) domain.Signer {
	s := domain.Signer{Current: p.current}
	for i, key := range p.former {
		again := key.Equal(s.Current) || slices.ContainsFunc(s.Previous, key.Equal) // a secret that was rotated back to
		if !again && now.Before(w.Previous[i].Until) {
			s.Previous = append(s.Previous, key)
		}
	}
	return s
}

// Signer returns the webhook's signatures as they were at the time.
func (a *Attempter) Signer(w domain.Webhook, at time.Time) (domain.Signer, error) {
	ready, err := a.prepare(w)
	if err != nil {
		return domain.Signer{}, err
	}
	return ready.signer(w, at), nil
}

func (a *Attempter) prepare(w domain.Webhook) (*prepared, error) {
	a.mu.RLock()
	ready := a.ready[w.ID]
	a.mu.RUnlock()
	if ready != nil && ready.version == w.Version {
		return ready, nil
	}
	before := ready
	ready = &prepared{version: w.Version, timeout: time.Duration(w.Timeout) * time.Second, fields: domain.NewSelection(w.Fields)}
	var err error
	if ready.current, err = a.key(w.ID, w.Secret, &ready.redact); err != nil {
		return nil, err
	}
	for _, previous := range w.Previous {
		key, err := a.key(w.ID, previous.Secret, &ready.redact)
		if err != nil {
			return nil, err
		}
		ready.former = append(ready.former, key)
	}
	for _, h := range w.Headers {
		value, err := a.Decrypter.Decrypt(w.ID, HeaderField(h.Name), h.Value)
		if err != nil {
			return nil, fmt.Errorf("the header %s cannot be decrypted: is the key set (MEDILAB_KEYS) the right one?", h.Name)
		}
		ready.redact.addHeader(h.Name, value)
		// What may not be set was refused when it was saved; a log of an older
		// version may hold it all the same.
		if header := (domain.Header{Name: h.Name, Value: value}); len(domain.CheckHeaders([]domain.Header{header})) == 0 {
			ready.header = append(ready.header, header)
		}
	}
	ready.traces = slices.ContainsFunc(ready.header, domain.Header.NamesTrace)
	if ready.access, err = a.access(w, before); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ready == nil {
		a.ready = map[domain.WebhookID]*prepared{}
	}
	switch have := a.ready[w.ID]; {
	case have == nil, have.version < w.Version:
		a.ready[w.ID] = ready
	case have.version == w.Version:
		return have, nil // another call was first: its token is for all
	}
	return ready, nil
}

// Forget forgets what was made of webhooks: the log may have lost these versions of them.
func (a *Attempter) Forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.ready)
}

func (a *Attempter) key(id domain.WebhookID, sealed domain.Sealed, redact *redactor) (*domain.SigningKey, error) {
	if sealed == "" {
		return nil, nil
	}
	clear, err := a.Decrypter.Decrypt(id, SecretField, sealed)
	if err != nil {
		return nil, fmt.Errorf("the secret cannot be decrypted: is the key set (MEDILAB_KEYS) the right one?")
	}
	redact.add(clear)
	return domain.NewSigningKey(domain.NewSecret(clear)), nil
}

func keptHeader(h http.Header) []domain.HeaderField {
	if len(h) == 0 {
		return nil
	}
	kept := make([]domain.HeaderField, 0, len(h))
	for name, values := range h {
		for _, value := range values {
			kept = append(kept, domain.HeaderField{Name: name, Value: value})
		}
	}
	slices.SortFunc(kept, func(a, b domain.HeaderField) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Value, b.Value))
	})
	return kept
}
