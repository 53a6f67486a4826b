package domain

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain/filter"
)

// A replay is a job that sends again: history to one webhook (the events of a range that
// match it as it was when that was asked for), or what failed for good, of one webhook or
// all. Each delivery is asked for as a retry is (DeliveryRetryRequested), under the
// delivery id that it has.
//
// Its rules (contract section 8):
//   - it counts first, and then asks for a few deliveries at a time, so that it never has
//     more of a webhook's under way than leave room for live events;
//   - events that share a key (ReplayKeys) go one after another, in the order of the log;
//   - a paused one asks for nothing more until it is resumed, and what it asked for is not
//     attempted, but for calls that are under way;
//   - of a cancelled one, what was asked for and waits ends: cancelled, or of a retry
//     failed as it was;
//   - it is completed when all that it asked for has ended.

// ReplayID names one replay.
type ReplayID uuid.UUID

// Stream names the log's stream of the replay.
func (id ReplayID) Stream() string { return "replay-" + uuid.UUID(id).String() }

func (id ReplayID) String() string                { return uuid.UUID(id).String() }
func (id ReplayID) MarshalText() ([]byte, error)  { return uuid.UUID(id).MarshalText() }
func (id *ReplayID) UnmarshalText(b []byte) error { return (*uuid.UUID)(id).UnmarshalText(b) }

// ReplayKind says what a replay sends.
type ReplayKind string

// The kinds of replays.
const (
	KindReplay ReplayKind = "replay" // events of a range
	KindRetry  ReplayKind = "retry"  // deliveries that failed
)

// ReplayRequested starts a replay's stream.
type ReplayRequested struct {
	ID         ReplayID  `json:"id"`
	WebhookID  WebhookID `json:"webhook_id,omitzero"` // of a retry, zero: of all webhooks
	From       time.Time `json:"from,omitzero"`
	To         time.Time `json:"to,omitzero"`
	EventTypes []string  `json:"event_types,omitempty"` // types, groups or *; none: any
	OnlyFailed bool      `json:"only_failed,omitempty"`
	Matched    int       `json:"matched,omitempty"` // as counted by releases that did so first
	// WebhookVersion is whose events and filters decide. 0, of no kind: an earlier release
	// wrote this, which queued a replay within its request and never went on with one.
	WebhookVersion int64      `json:"webhook_version,omitempty"`
	Kind           ReplayKind `json:"kind,omitempty"` // "": a replay of a release that counted first
	ResponseStatus string     `json:"response_status,omitempty"`
	Rate           float64    `json:"rate,omitempty"` // deliveries a second; 0: as the receiver takes them
}

// ReplayCounted says how many deliveries a replay is to send.
type ReplayCounted struct {
	Matched int `json:"matched"`
}

// ReplayQueued says that the next of a replay's deliveries were asked for, in the same
// transaction.
type ReplayQueued struct {
	Deliveries []DeliveryID `json:"deliveries,omitempty"` // of a replay of no kind
	Count      int          `json:"count,omitempty"`
	Matched    int          `json:"matched,omitempty"` // as ReplayCounted said
	// Next is a position below which all that the replay sends has ended.
	Next int64 `json:"next,omitempty"`
}

// ReplayPaused stops a replay until it is resumed.
type ReplayPaused struct{}

// ReplayResumed lets a paused replay go on.
type ReplayResumed struct{}

// ReplayCancelled makes a replay ask for nothing more.
type ReplayCancelled struct{}

// ReplayCompleted ends a replay's stream: all that it asked for has ended.
type ReplayCompleted struct{}

func (ReplayRequested) ChangeType() string { return "replay.requested" }
func (ReplayCounted) ChangeType() string   { return "replay.counted" }
func (ReplayQueued) ChangeType() string    { return "replay.queued" }
func (ReplayPaused) ChangeType() string    { return "replay.paused" }
func (ReplayResumed) ChangeType() string   { return "replay.resumed" }
func (ReplayCancelled) ChangeType() string { return "replay.cancelled" }
func (ReplayCompleted) ChangeType() string { return "replay.completed" }

var _ = register(ReplayRequested{}, ReplayCounted{}, ReplayQueued{}, ReplayPaused{}, ReplayResumed{}, ReplayCancelled{}, ReplayCompleted{})

// ReplayState is what a replay does.
type ReplayState string

// The states of a replay.
const (
	ReplayStateCounting  ReplayState = "counting"
	ReplayStateRunning   ReplayState = "running"
	ReplayStatePaused    ReplayState = "paused"
	ReplayStateCancelled ReplayState = "cancelled"
	ReplayStateCompleted ReplayState = "completed"
)

// Replay is the state of one replay: the fold of its stream, or of its first event and
// those from any ReplayQueued on.
type Replay struct {
	Request   ReplayRequested
	Counted   bool
	Matched   int // once it has counted
	Next      int64
	LastCount int       // of the latest ReplayQueued
	QueuedAt  time.Time // of the latest ReplayQueued
	Paused    bool
	Cancelled bool
	Completed bool
}

// Evolve returns the replay after a change that the log recorded at the time.
func (r Replay) Evolve(change Change, at time.Time) Replay {
	switch c := change.(type) {
	case ReplayRequested:
		r.Request = c
		r.Counted, r.Matched = c.Kind == "", c.Matched
		r.Completed = c.Kind == "" && c.WebhookVersion == 0
	case ReplayCounted:
		r.Counted, r.Matched = true, c.Matched
	case ReplayQueued:
		r.Counted, r.Paused = r.Counted || c.Matched > 0, false
		r.Matched = max(r.Matched, c.Matched)
		r.Next, r.LastCount, r.QueuedAt = c.Next, c.Count, at
	case ReplayPaused:
		r.Paused = true
	case ReplayResumed:
		r.Paused = false
	case ReplayCancelled:
		r.Cancelled = true
	case ReplayCompleted:
		r.Completed = true
	}
	return r
}

// State returns what the replay does.
func (r Replay) State() ReplayState {
	switch {
	case r.Cancelled:
		return ReplayStateCancelled
	case r.Completed:
		return ReplayStateCompleted
	case r.Paused:
		return ReplayStatePaused
	case !r.Counted && r.QueuedAt.IsZero():
		return ReplayStateCounting
	}
	return ReplayStateRunning
}

// Stopped reports whether nothing of the replay is to be sent now.
func (r Replay) Stopped() bool { return r.Paused || r.Cancelled }

// Pause, Resume and Cancel decide what is asked of a replay. Repeating it changes nothing.

// Pause stops a replay that has not ended.
func (r Replay) Pause() ([]Change, error) { return r.decide(r.Paused, ReplayPaused{}) }

// Resume lets a paused replay go on.
func (r Replay) Resume() ([]Change, error) { return r.decide(!r.Paused, ReplayResumed{}) }

// Cancel ends a replay.
func (r Replay) Cancel() ([]Change, error) {
	if r.Cancelled {
		return nil, nil
	}
	return r.decide(false, ReplayCancelled{})
}

// Withdraw ends a delivery that a cancelled replay has asked for. Of a retry it is failed, as before,
// and blocks its line if that is so.
func (r Replay) Withdraw(webhook WebhookID, event EventID, blocks, waiting bool) Change {
	if r.Request.Kind == KindRetry {
		return DeliveryRetryCancelled{EventID: event, WebhookID: webhook, ReplayID: r.Request.ID, Blocks: blocks, Waiting: waiting}
	}
	return DeliveryCancelled{EventID: event, WebhookID: webhook, Reason: CancelReplay, ReplayID: r.Request.ID, Waiting: waiting}
}

func (r Replay) decide(already bool, change Change) ([]Change, error) {
	switch {
	case r.Cancelled || r.Completed:
		return nil, Conflict("the replay is " + string(r.State()) + " already")
	case already:
		return nil, nil
	}
	return []Change{change}, nil
}

// Pace returns how many deliveries a replay of the rate asks for at once, at most most, and
// when the next may follow those that it asked for last. These were due at the time, if that is
// not zero: who asked late, but by less than a chunk, makes up for it.
func (r Replay) Pace(most int, due time.Time) (count int, next time.Time) {
	const chunksASecond = 10
	rate := r.Request.Rate
	if rate == 0 {
		return most, time.Time{}
	}
	if early := r.QueuedAt.Add(-time.Second / chunksASecond); due.IsZero() {
		due = r.QueuedAt
	} else if due.Before(early) {
		due = early
	}
	next = due.Add(time.Duration(float64(r.LastCount) / rate * float64(time.Second)))
	return min(most, max(1, int(rate/chunksASecond))), next
}

// ReplayKeys returns the keys of an event for the webhook: what shares one is sent in the log's
// order. They are its line or, if it has none, the subjects that it tells of.
func ReplayKeys(w Webhook, e EventTriggered) (keys []string) {
	if line := w.LineOf(e.EventData); line != NoLine {
		return []string{strconv.FormatInt(int64(line), 36)}
	}
	for _, owner := range SubjectsOf(e) {
		keys = append(keys, string(owner[:]))
	}
	if len(e.Keys) > 0 || e.Erased {
		return keys
	}
	// What older versions wrote in clear names no subject.
	var object map[string]json.RawMessage
	if json.Unmarshal(e.EventData, &object) != nil {
		return nil
	}
	key := string(bytes.TrimSpace(object["patient_id"]))
	if key == "" || key == "null" || key[0] == '{' || key[0] == '[' {
		return nil
	}
	return []string{key}
}

// ReplaySpec is what a caller asks to be sent again.
type ReplaySpec struct {
	Kind           ReplayKind
	WebhookID      WebhookID // zero: all, of KindRetry
	From, To       time.Time // recorded, of KindRetry occurred, at or after, before; zero: any, of KindRetry
	EventTypes     []string  // nil: any
	OnlyFailed     bool      // of KindReplay: only deliveries that failed for good
	ResponseStatus string    // of KindRetry: 404 or 5xx; "": any
	Rate           *float64  // deliveries a second; nil: as the receiver takes them
}

// Requested returns the request of the replay, without what names it.
func (s ReplaySpec) Requested() ReplayRequested {
	r := ReplayRequested{WebhookID: s.WebhookID, From: s.From, To: s.To, EventTypes: s.EventTypes, OnlyFailed: s.OnlyFailed, Kind: s.Kind, ResponseStatus: s.ResponseStatus}
	if s.Rate != nil {
		r.Rate = *s.Rate
	}
	return r
}

// The bounds of a replay's rate.
const (
	minRate = 0.01
	maxRate = 10_000
)

// CheckReplay checks what a replay is to send: times in their order, which a replay of
// history needs, known types, a status and a rate.
func CheckReplay(catalog Catalog, spec ReplaySpec) error {
	var refused []FieldError
	if spec.Kind != KindRetry {
		refused = append(required("from", spec.From), required("to", spec.To)...)
	}
	if refused == nil && !spec.From.IsZero() && !spec.To.IsZero() && !spec.From.Before(spec.To) {
		refused = append(refused, FieldError{Field: "to", Message: "must be after from"})
	}
	if spec.EventTypes != nil {
		_, unknown := catalog.ParseSubscriptions("event_types", spec.EventTypes)
		refused = append(refused, unknown...)
	}
	if _, ok := ParseStatuses(spec.ResponseStatus); !ok {
		refused = append(refused, FieldError{Field: "response_status", Message: "must be a status like 404, or a class like 5xx"})
	}
	if r := spec.Rate; r != nil && !(*r >= minRate && *r <= maxRate) {
		refused = append(refused, FieldError{Field: "rate", Message: fmt.Sprintf("must be from %v to %v deliveries a second", minRate, maxRate)})
	}
	return CheckFields(refused)
}

func required(field string, at time.Time) []FieldError {
	if at.IsZero() {
		return []FieldError{{Field: field, Message: "is required"}}
	}
	return nil
}

// Statuses are the statuses that a text like 404 or 5xx stands for; the zero value is any.
type Statuses struct{ From, To int } // both ends included

// ParseStatuses reads the text, in any letter case, of which "" is any status, and reports whether
// it is one.
func ParseStatuses(text string) (Statuses, bool) {
	if text == "" {
		return Statuses{}, true
	}
	digits, class := strings.CutSuffix(strings.ToLower(text), "xx")
	n, err := strconv.Atoi(digits)
	switch {
	case err != nil:
		return Statuses{}, false
	case class && len(digits) == 1 && 1 <= n && n <= 5:
		return Statuses{100 * n, 100*n + 99}, true
	}
	return Statuses{n, n}, !class && 100 <= n && n <= 599
}

// Has reports whether the status, 0 for no answer, is one of them.
func (s Statuses) Has(status int) bool {
	return s == Statuses{} || s.From <= status && status <= s.To
}

// FailedDelivery is a delivery that failed for good.
type FailedDelivery struct {
	ID        DeliveryID
	WebhookID WebhookID
	EventID   EventID // of a batch: its first member's, as are the rest
	Event     EventTriggered
	Position  int64 // of the event
	Size      int   // bytes of event_data, of a batch all of it
}

// ReplayWants reports whether a replay sends the delivery again: any that has ended, or
// only a failed one. Pending deliveries are left alone.
func (d Delivery) ReplayWants(onlyFailed bool) bool {
	return d.State == DeliveryFailed || !onlyFailed && d.State != DeliveryPending
}

// Matcher decides, outside of the registry, which events a webhook with these
// subscriptions and this filter would get.
type Matcher struct {
	subscriptions Subscriptions
	filter        *filter.Filter
}

// NewMatcher prepares subscriptions and a filter, which were checked before.
func NewMatcher(events []string, filters json.RawMessage) (m Matcher, err error) {
	m = Matcher{subscriptions: SubscriptionsOf(events)}
	if m.filter, err = compileFilter(filters); err != nil {
		return Matcher{}, fmt.Errorf("prepare a filter: %w", err)
	}
	return m, nil
}

// Match reports whether an event of the type with the data matches.
func (m Matcher) Match(t EventType, doc *filter.Doc) bool {
	return m.subscriptions.Match(t) && m.filter.Match(doc)
}

// Subscribes reports whether the subscriptions have the type.
func (m Matcher) Subscribes(t EventType) bool { return m.subscriptions.Match(t) }

// Explain returns whether the filter matches the data, and why not.
func (m Matcher) Explain(doc *filter.Doc) filter.Verdict { return m.filter.Explain(doc) }

// compileFilter compiles a webhook's filters; what is wrong with them is Invalid.
func compileFilter(raw json.RawMessage) (*filter.Filter, error) {
	compiled, problems := filter.Compile(raw)
	var refused []FieldError
	for _, p := range problems {
		refused = append(refused, FieldError{Field: p.Field, Message: p.Message})
	}
	return compiled, CheckFields(refused)
}
