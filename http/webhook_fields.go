package http

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/medilab/webhooks/domain"
)

var (
	newWebhook    = object[domain.WebhookSpec]{name: "NewWebhook", what: "a webhook", limit: maxManagementBody, fields: webhookFields, readOnly: webhookReadOnly}
	webhookChange = object[domain.WebhookSpec]{name: "WebhookChange", what: "a webhook", limit: maxManagementBody, fields: webhookFields, readOnly: webhookReadOnly, partial: true}

	webhookReadOnly = []string{"id", "number", "has_secret", "public_key", "previous_secret_until", "status", "version", "created_at", "updated_at"}
)

// The schemas of fields that a backtest proposes too.
var (
	eventsSchema = schema{
		"minItems": 1, "examples": [][]string{{"patient.created", "visit.*"}}, "description": "event types, groups (`patient.*`), or `*` for every event of the clinic",
	}
	filtersSchema = schema{
		"examples": []schema{{"department": "cardiology", "amount_min": 1000}},
		"description": "conditions on event_data that must all hold: paths with plain values, lists, `x_min`, `x_max`, " +
			"or operators ($eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, $exists, $prefix, $regex, $or). Dots of a path descend; " +
			"a key of the event that holds the dots itself is taken before the path. Texts are compared without Unicode normalisation",
	}
)

// webhookFields are the fields of a webhook that callers set.
var webhookFields = []field[domain.WebhookSpec]{
	asked("name", jsonText, func(w *domain.WebhookSpec) *domain.Asked[string] { return &w.Name },
		schema{"minLength": 1, "maxLength": domain.MaxNameLength}).must(),
	asked("description", jsonText, func(w *domain.WebhookSpec) *domain.Asked[string] { return &w.Description }, nil),
	asked("url", jsonText, func(w *domain.WebhookSpec) *domain.Asked[string] { return &w.URL },
		schema{"format": "uri", "description": "http or https, without user info or fragment"}).must(),
	asked("events", jsonTexts, func(w *domain.WebhookSpec) *domain.Asked[[]string] { return &w.Events }, eventsSchema).must(),
	asked("headers", jsonHeaders, func(w *domain.WebhookSpec) *domain.Asked[[]domain.Header] { return &w.Headers }, schema{
		"maxProperties": domain.MaxHeaders,
		"description":   fmt.Sprintf("sent with every call; answers show %q for every value, and sending that keeps what is stored", domain.Masked),
	}),
	asked("secret", jsonSecret, func(w *domain.WebhookSpec) *domain.Asked[domain.Secret] { return &w.Secret },
		schema{"maxLength": domain.MaxSecretBytes, "writeOnly": true, "description": "signs every call; none: calls are unsigned. After whsec_ and whsk_ (an ed25519 private key) base64 follows, as Standard Webhooks says"}),
	asked("max_retries", jsonWhole, func(w *domain.WebhookSpec) *domain.Asked[int] { return &w.MaxRetries },
		within(domain.MaxRetriesRange, "retries after the first attempt")),
	asked("retry_delay", jsonWhole, func(w *domain.WebhookSpec) *domain.Asked[int] { return &w.RetryDelay },
		within(domain.RetryDelayRange, "seconds before the second attempt; doubled before each that follows")),
	asked("timeout", jsonWhole, func(w *domain.WebhookSpec) *domain.Asked[int] { return &w.Timeout },
		within(domain.TimeoutRange, "seconds, for the whole call")),
	asked("filters", jsonFilters, func(w *domain.WebhookSpec) *domain.Asked[json.RawMessage] { return &w.Filters }, filtersSchema),
	asked("batch", batch.jsonType(), func(w *domain.WebhookSpec) *domain.Asked[domain.Batch] { return &w.Batch },
		schema{"description": "several events in one call; null: each has its own"}),
	asked("order_by", jsonText, func(w *domain.WebhookSpec) *domain.Asked[string] { return &w.OrderBy }, schema{
		"maxLength": 256, "examples": []string{"patient_id"},
		"description": "a path in event_data, as in filters: events that hold the same value there are delivered one after another; `*`: all of them; null: in any order",
	}),
	asked("order_on_failure", textType[domain.OrderOnFailure](), func(w *domain.WebhookSpec) *domain.Asked[domain.OrderOnFailure] { return &w.OrderOnFailure },
		schema{"enum": []any{domain.OrderSkip, domain.OrderBlock, nil}, "description": "what follows a delivery that is given up: skip goes on (default), block waits until it is retried with success or cancelled"}),
	asked("sequence", jsonBool, func(w *domain.WebhookSpec) *domain.Asked[bool] { return &w.Sequence },
		schema{"description": "whether deliveries are numbered, by X-Webhook-Sequence (default false)"}),
	asked("payload_version", textType[domain.PayloadVersion](), func(w *domain.WebhookSpec) *domain.Asked[domain.PayloadVersion] { return &w.PayloadVersion },
		schema{"enum": []any{domain.PayloadV1, domain.PayloadV2, domain.PayloadCloudEvents, nil}, "description": "the format of bodies (default 1)"}),
	asked("max_concurrent", jsonWhole, func(w *domain.WebhookSpec) *domain.Asked[int] { return &w.MaxConcurrent },
		within(domain.MaxConcurrentRange, "calls in flight at once, on all nodes together; null: no limit")),
	asked("rate_limit", jsonNumber, func(w *domain.WebhookSpec) *domain.Asked[float64] { return &w.RateLimit }, schema{
		"minimum": domain.MinRateLimit, "maximum": domain.MaxRateLimit,
		"description": "calls a second, of all nodes together: in any T seconds at most rate x T + max(1, rate); null: no limit",
	}),
	asked("fields", jsonTexts, func(w *domain.WebhookSpec) *domain.Asked[[]string] { return &w.Fields }, schema{
		"minItems": 1, "maxItems": domain.MaxFields, "examples": [][]string{{"patient_id", "visit.doctor"}},
		"description": "paths of event_data: only these parts are sent (filters see all of it); null: all",
	}),
	asked("recipient", recipient.jsonType(), func(w *domain.WebhookSpec) *domain.Asked[domain.DataRecipient] { return &w.Recipient },
		schema{"description": "who receives the data, for those who account for it"}),
	asked("auth", auth.jsonType(), func(w *domain.WebhookSpec) *domain.Asked[domain.AuthSpec] { return &w.Auth }, schema{
		"description": fmt.Sprintf("who makes the calls: an access token for client credentials, or a client certificate; answers show %q for secrets, and sending that keeps what is stored", domain.Masked),
	}),
	asked("auto_deactivate_after", jsonWhole, func(w *domain.WebhookSpec) *domain.Asked[int] { return &w.AutoDeactivateAfter },
		within(domain.AutoDeactivateRange, "seconds of nothing but failures, of ten calls at least, after which the system deactivates the webhook; null: never")),
	asked("is_active", jsonBool, func(w *domain.WebhookSpec) *domain.Asked[bool] { return &w.Active },
		schema{"description": "whether it gets events (default true)"}).notNull(),
}

// within is the schema of a number in the range. The default is said in words: generators
// take a field that has a default for one that is always there.
func within(r domain.Range, text string) schema {
	if r.Default != 0 {
		text += fmt.Sprintf(" (default %d)", r.Default)
	}
	return schema{"minimum": r.Min, "maximum": r.Max, "description": text}
}

var jsonSecret = jsonType[domain.Secret]{schema{"type": "string"}, func(raw []byte) (domain.Secret, faults) {
	text, wrong := jsonText.read(raw)
	return domain.NewSecret(text), wrong
}}

var jsonHeaders = jsonType[[]domain.Header]{
	schema{"type": "object", "additionalProperties": schema{"type": "string", "maxLength": domain.MaxHeaderValue}},
	func(raw []byte) (_ []domain.Header, wrong faults) {
		headers := map[string]string{}
		err := domain.ObjectFields(raw, func(name string, raw []byte) error {
			value, refused := jsonText.read(raw)
			wrong = append(wrong, refused.within("."+shown(name))...)
			headers[name] = value
			return nil
		})
		if err != nil {
			return nil, fault(mustBeObject)
		}
		return domain.SortedHeaders(headers), wrong
	},
}

var batch = object[domain.Batch]{fields: []field[domain.Batch]{
	plain("max_events", jsonWhole, func(b *domain.Batch) *int { return &b.MaxEvents }, within(domain.BatchEventsRange, "most events of a call")).must(),
	plain("max_wait", jsonWhole, func(b *domain.Batch) *int { return &b.MaxWait }, within(domain.BatchWaitRange, "seconds, at most, that an event waits for others")).must(),
}}

var recipient = object[domain.DataRecipient]{fields: []field[domain.DataRecipient]{
	plain("name", jsonText, func(r *domain.DataRecipient) *string { return &r.Name }, schema{"minLength": 1, "maxLength": domain.MaxNameLength}).must(),
	plain("country", jsonText, func(r *domain.DataRecipient) *string { return &r.Country }, nil),
	plain("purpose", jsonText, func(r *domain.DataRecipient) *string { return &r.Purpose }, nil),
}}

var auth = object[domain.AuthSpec]{fields: []field[domain.AuthSpec]{
	plain("type", textType[domain.AuthType](), func(a *domain.AuthSpec) *domain.AuthType { return &a.Type },
		schema{"enum": []any{domain.AuthOAuth2, domain.AuthCertificate}}).must(),
	plain("token_url", jsonText, func(a *domain.AuthSpec) *string { return &a.TokenURL }, schema{"description": "of oauth2: called as receivers are"}),
	plain("client_id", jsonText, func(a *domain.AuthSpec) *string { return &a.ClientID }, schema{"description": "of oauth2"}),
	plain("client_secret", jsonSecret, func(a *domain.AuthSpec) *domain.Secret { return &a.ClientSecret }, schema{"description": "of oauth2"}),
	plain("scope", jsonText, func(a *domain.AuthSpec) *string { return &a.Scope }, schema{"description": "of oauth2, if the token server wants one"}),
	plain("certificate", jsonSecret, func(a *domain.AuthSpec) *domain.Secret { return &a.Certificate },
		schema{"description": "of certificate: PEM, the client's own first, then those that lead to its authority"}),
	plain("private_key", jsonSecret, func(a *domain.AuthSpec) *domain.Secret { return &a.PrivateKey },
		schema{"description": "of certificate: PEM, without a passphrase"}),
}}

// webhookView is a webhook as callers see it: secrets are masked.
type webhookView struct {
	ID             domain.WebhookID      `json:"id"`
	Number         int64                 `json:"number"`
	Name           string                `json:"name"`
	Description    string                `json:"description"`
	URL            string                `json:"url"`
	Events         []string              `json:"events"`
	Headers        map[string]string     `json:"headers"`
	HasSecret      bool                  `json:"has_secret"`
	PublicKey      *string               `json:"public_key"` // of a whsk_ secret
	MaxRetries     int                   `json:"max_retries"`
	RetryDelay     int                   `json:"retry_delay"`
	Timeout        int                   `json:"timeout"`
	Filters        json.RawMessage       `json:"filters" schema:"object,null"`
	Batch          *domain.Batch         `json:"batch"`
	OrderBy        *string               `json:"order_by"`
	OrderOnFailure domain.OrderOnFailure `json:"order_on_failure"`
	Sequence       bool                  `json:"sequence"`
	PayloadVersion domain.PayloadVersion `json:"payload_version"`
	MaxConcurrent  *int                  `json:"max_concurrent"`
	RateLimit      *float64              `json:"rate_limit"`
	Fields         []string              `json:"fields" schema:"null"`
	Recipient      *domain.DataRecipient `json:"recipient"`
	Auth           *domain.Auth          `json:"auth"` // secrets are masked
	IsActive       bool                  `json:"is_active"`
	Status         string                `json:"status"`
	Version        int64                 `json:"version"`
	CreatedAt      moment                `json:"created_at"`
	UpdatedAt      moment                `json:"updated_at"`

	AutoDeactivateAfter *int `json:"auto_deactivate_after"` // null: never

	PreviousSecretUntil moment `json:"previous_secret_until"` // until when a secret from before signs too; null: none does
}

func viewOf(w domain.Webhook) webhookView {
	headers := make(map[string]string, len(w.Headers))
	for _, h := range w.Headers {
		headers[h.Name] = domain.Masked
	}
	var previous moment
	for _, p := range w.Previous {
		if p.Until.After(time.Now()) && p.Until.After(time.Time(previous)) {
			previous = moment(p.Until)
		}
	}
	return webhookView{
		ID: w.ID, Number: w.Number, Name: w.Name, Description: w.Description, URL: w.URL, Events: w.Events, Headers: headers,
		HasSecret: w.Secret != "", PublicKey: orNull(w.PublicKey), MaxRetries: w.MaxRetries, RetryDelay: w.RetryDelay, Timeout: w.Timeout,
		Filters: w.Filters, Batch: w.Batch, OrderBy: orNull(w.OrderBy), OrderOnFailure: w.OrderOnFailure, Sequence: w.SequenceSince > 0,
		PayloadVersion: w.PayloadVersion, MaxConcurrent: orNull(w.MaxConcurrent), RateLimit: orNull(w.RateLimit),
		Fields: w.Fields, Recipient: w.Recipient, Auth: domain.MaskedAuth(w.Auth), AutoDeactivateAfter: orNull(w.AutoDeactivateAfter), IsActive: w.Active, Status: statusOf(w),
		Version: w.Version, CreatedAt: moment(w.CreatedAt), UpdatedAt: moment(w.UpdatedAt), PreviousSecretUntil: previous,
	}
}

// orNull returns nil for the zero value.
func orNull[T comparable](value T) *T {
	if value == *new(T) {
		return nil
	}
	return &value
}

func statusOf(w domain.Webhook) string {
	switch {
	case w.Deleted: // shown by the stream alone
		return "deleted"
	case w.Active:
		return "active"
	}
	return "inactive"
}
