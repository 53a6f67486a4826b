package http

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/mux"

	"github.com/medilab/webhooks/domain"
)

// webhookPath matches a webhook's id in a path: its UUID or its short number.
const webhookPath = "/webhooks/{webhook:[0-9A-Fa-f-]+}"

func (s *Server) webhookRoutes() {
	s.api("POST", "/webhooks", domain.ScopeWebhooksWrite, s.handleWebhookRegister)
	s.api("GET", "/webhooks", domain.ScopeWebhooksRead, s.handleWebhookList)
	s.api("GET", webhookPath, domain.ScopeWebhooksRead, s.handleWebhookGet)
	s.api("PUT PATCH", webhookPath, domain.ScopeWebhooksWrite, s.handleWebhookChange)
	s.api("DELETE", webhookPath, domain.ScopeWebhooksWrite, s.handleWebhookDelete)
	s.api("POST", webhookPath+"/activate", domain.ScopeWebhooksWrite, s.handleWebhookActivate)
	s.api("POST", webhookPath+"/deactivate", domain.ScopeWebhooksWrite, s.handleWebhookDeactivate)
	s.api("POST", webhookPath+"/rotate-secret", domain.ScopeWebhooksWrite, s.handleSecretRotate)
	s.long("POST", webhookPath+"/test", domain.ScopeWebhooksWrite, s.handleWebhookTest)
	s.api("GET", webhookPath+"/history", domain.ScopeWebhooksRead, s.handleWebhookHistory)
}

func (s *Server) handleWebhookRegister(x *exchange, r *http.Request) error {
	spec, err := s.readSpec(r, true)
	if err != nil {
		return err
	}
	w, err := s.commands.RegisterWebhook(r.Context(), x.caller, spec)
	if err != nil {
		return err
	}
	x.Header().Set("Location", apiRoot+"/webhooks/"+w.ID.String())
	return answerWebhook(x, http.StatusCreated, w)
}

// handleWebhookList lists webhooks out of the directory, once that has what other
// processes appended too.
func (s *Server) handleWebhookList(x *exchange, r *http.Request) error {
	q := readQuery(r)
	status := q.choice("status", "all", "active", "inactive")
	eventType := q.eventType(s.commands.Catalog)
	words := strings.ToLower(q.text("q"))
	limit, before := q.limit(), q.cursor()
	if err := q.done(); err != nil {
		return err
	}
	if before == 0 {
		before = math.MaxInt64
	}
	if err := s.auth.refresh.since(r.Context(), s.commands.Directory.CatchUp); err != nil {
		return err
	}
	items, next := []webhookView{}, ""
	for w := range s.commands.Directory.Newest() {
		if w.Number >= before || !w.Exists() || status != "all" && w.Active != (status == "active") ||
			eventType != "" && !asksFor(w, eventType) || words != "" && !speaksOf(w, words) {
			continue
		}
		if len(items) == limit {
			next = newCursor(items[limit-1].Number)
			break
		}
		items = append(items, viewOf(w))
	}
	return x.answer(http.StatusOK, newPage(items, next))
}

// asksFor tells whether events of the type go to the webhook, by type alone.
func asksFor(w domain.Webhook, t domain.EventType) bool {
	for _, s := range w.Events {
		if domain.Subscription(s).Matches(t) {
			return true
		}
	}
	return false
}

func speaksOf(w domain.Webhook, words string) bool {
	for _, text := range []string{w.Name, w.Description, w.URL} {
		if strings.Contains(strings.ToLower(text), words) {
			return true
		}
	}
	return false
}

// handleWebhookGet answers with the webhook as it is, or as it was at a time: then
// also when it is deleted by now.
func (s *Server) handleWebhookGet(x *exchange, r *http.Request) error {
	q := readQuery(r)
	at := q.time("as_of")
	if err := q.done(); err != nil {
		return err
	}
	w, err := s.anyWebhookInPath(r)
	if err != nil {
		return err
	}
	if !at.IsZero() {
		if w, err = s.queries.WebhookAt(r.Context(), w.ID, at); err != nil {
			return err
		}
	}
	if !w.Exists() {
		return domain.NotFound("webhook")
	}
	return answerWebhook(x, http.StatusOK, w)
}

func (s *Server) handleWebhookChange(x *exchange, r *http.Request) error {
	w, err := s.webhookInPath(r)
	if err != nil {
		return err
	}
	ifVersion, err := ifMatch(r)
	if err != nil {
		return err
	}
	spec, err := s.readSpec(r, false)
	if err != nil {
		return err
	}
	w, err = s.commands.ChangeWebhook(r.Context(), x.caller, w.ID, spec, ifVersion)
	if err != nil {
		return err
	}
	return answerWebhook(x, http.StatusOK, w)
}

func (s *Server) handleWebhookDelete(x *exchange, r *http.Request) error {
	w, err := s.webhookInPath(r)
	if err != nil {
		return err
	}
	ifVersion, err := ifMatch(r)
	if err != nil {
		return err
	}
	if err := s.commands.DeleteWebhook(r.Context(), x.caller, w.ID, ifVersion); err != nil {
		return err
	}
	x.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) handleWebhookActivate(x *exchange, r *http.Request) error {
	w, err := s.webhookInPath(r)
	if err != nil {
		return err
	}
	if w, err = s.commands.ActivateWebhook(r.Context(), x.caller, w.ID); err != nil {
		return err
	}
	return answerWebhook(x, http.StatusOK, w)
}

func (s *Server) handleWebhookDeactivate(x *exchange, r *http.Request) error {
	w, err := s.webhookInPath(r)
	if err != nil {
		return err
	}
	if w, err = s.commands.DeactivateWebhook(r.Context(), x.caller, w.ID); err != nil {
		return err
	}
	return answerWebhook(x, http.StatusOK, w)
}

// handleSecretRotate shows the new secret, here and never again.
func (s *Server) handleSecretRotate(x *exchange, r *http.Request) error {
	w, err := s.webhookInPath(r)
	if err != nil {
		return err
	}
	b, err := readOptionalJSON(r, maxManagementBody)
	if err != nil {
		return err
	}
	defer b.release()
	var secret string
	overlap := domain.Ask(int(domain.DefaultOverlap / time.Second))
	refused, err := fields{
		"secret":          text(&secret),
		"overlap_seconds": asked(&overlap, readWhole),
	}.read(b.data)
	if err == nil {
		err = domain.CheckFields(refused)
	}
	if err != nil {
		return err
	}
	if overlap.Null {
		overlap.Value = int(domain.DefaultOverlap / time.Second)
	}
	signed := w.Secret != ""
	w, fresh, err := s.commands.RotateSecret(r.Context(), x.caller, w.ID, domain.NewSecret(secret), time.Duration(overlap.Value)*time.Second)
	if err != nil {
		return err
	}
	until := moment{}
	if signed {
		until = moment(w.PreviousUntil)
	}
	x.Header().Set("ETag", etag(w))
	return x.answer(http.StatusOK, rotatedView{w.ID, fresh.Reveal(), until, w.Version})
}

// rotatedView shows a new secret.
type rotatedView struct {
	WebhookID     domain.WebhookID `json:"webhook_id"`
	Secret        string           `json:"secret"`
	PreviousUntil moment           `json:"previous_until"` // null: there was no secret before
	Version       int64            `json:"version"`
}

// webhookInPath gives the webhook that the path names, if it exists.
func (s *Server) webhookInPath(r *http.Request) (domain.Webhook, error) {
	w, err := s.anyWebhookInPath(r)
	if err == nil && w.Deleted {
		err = domain.NotFound("webhook")
	}
	return w, err
}

// anyWebhookInPath is webhookInPath, for deleted webhooks too. Another process may
// have just registered or changed it, so the log is asked first; while that cannot
// be reached, what is known here is good enough.
func (s *Server) anyWebhookInPath(r *http.Request) (domain.Webhook, error) {
	unread := s.auth.refresh.since(r.Context(), s.commands.Directory.CatchUp)
	w, ok := s.findWebhook(mux.Vars(r)["webhook"])
	switch {
	case ok:
		return w, nil
	case unread != nil:
		return domain.Webhook{}, unread
	default:
		return domain.Webhook{}, domain.NotFound("webhook")
	}
}

func (s *Server) findWebhook(name string) (domain.Webhook, bool) {
	if id, err := uuid.Parse(name); err == nil {
		return s.commands.Directory.Webhook(domain.WebhookID(id))
	}
	number, err := strconv.ParseInt(name, 10, 64)
	if err != nil {
		return domain.Webhook{}, false
	}
	id, ok := s.commands.Directory.Number(number)
	if !ok {
		return domain.Webhook{}, false
	}
	return s.commands.Directory.Webhook(id)
}

// ifMatch gives the version that the caller wants to change; nil: any. A tag that
// is no version of ours matches nothing.
func ifMatch(r *http.Request) (*int64, error) {
	tag := strings.TrimSpace(r.Header.Get("If-Match"))
	if tag == "" || tag == "*" {
		return nil, nil
	}
	version, err := strconv.ParseInt(strings.Trim(strings.TrimPrefix(tag, "W/"), `"`), 10, 64)
	if err != nil {
		return nil, domain.Stale(`If-Match is not a version of this webhook: send its ETag, like "3"`)
	}
	return &version, nil
}

func etag(w domain.Webhook) string { return `"` + strconv.FormatInt(w.Version, 10) + `"` }

func answerWebhook(x *exchange, status int, w domain.Webhook) error {
	x.Header().Set("ETag", etag(w))
	return x.answer(status, viewOf(w))
}

// readOnly are the fields of a webhook that callers see and do not set.
const readOnly = "is read-only; leave it out"

func refuseReadOnly([]byte) string { return readOnly }

// readSpec reads what the body asks of a webhook. Values of a wrong type are
// refused here, together with what the rules refuse of the rest.
func (s *Server) readSpec(r *http.Request, creating bool) (domain.WebhookSpec, error) {
	b, err := readJSON(r, maxManagementBody)
	if err != nil {
		return domain.WebhookSpec{}, err
	}
	defer b.release()
	var spec domain.WebhookSpec
	var nested []domain.FieldError
	refused, err := fields{
		"name":            asked(&spec.Name, readText),
		"description":     asked(&spec.Description, readText),
		"url":             asked(&spec.URL, readText),
		"events":          asked(&spec.Events, readTexts),
		"headers":         asked(&spec.Headers, func(raw []byte) ([]domain.Header, string) { return readHeaders(raw, &nested) }),
		"secret":          asked(&spec.Secret, readSecret),
		"max_retries":     asked(&spec.MaxRetries, readWhole),
		"retry_delay":     asked(&spec.RetryDelay, readWhole),
		"timeout":         asked(&spec.Timeout, readWhole),
		"filters":         asked(&spec.Filters, readFilters),
		"batch":           asked(&spec.Batch, func(raw []byte) (domain.Batch, string) { return readBatchSpec(raw, &nested) }),
		"payload_version": asked(&spec.PayloadVersion, readPayloadVersion),
		"is_active":       asked(&spec.Active, readBool),

		"id": refuseReadOnly, "number": refuseReadOnly, "has_secret": refuseReadOnly, "status": refuseReadOnly,
		"version": refuseReadOnly, "created_at": refuseReadOnly, "updated_at": refuseReadOnly,
	}.read(b.data)
	if err != nil {
		return domain.WebhookSpec{}, err
	}
	if refused = append(refused, nested...); len(refused) > 0 {
		_, rules := domain.CheckSpec(s.commands.Catalog, spec, creating)
		return domain.WebhookSpec{}, domain.InvalidFields(withRules(refused, domain.FieldsOf(rules)))
	}
	return spec, nil
}

func readSecret(raw []byte) (domain.Secret, string) {
	s, message := readText(raw)
	return domain.NewSecret(s), message
}

func readPayloadVersion(raw []byte) (domain.PayloadVersion, string) {
	s, message := readText(raw)
	return domain.PayloadVersion(s), message
}

func readFilters(raw []byte) (json.RawMessage, string) {
	if raw[0] != '{' {
		return nil, mustBeObject
	}
	return json.RawMessage(strings.Clone(string(raw))), ""
}

func readHeaders(raw []byte, nested *[]domain.FieldError) ([]domain.Header, string) {
	headers := map[string]string{}
	err := domain.ObjectFields(raw, func(name string, raw []byte) error {
		value, message := readText(raw)
		if message != "" {
			*nested = append(*nested, domain.FieldError{Field: "headers." + shown(name), Message: message})
		}
		headers[name] = value
		return nil
	})
	if err != nil {
		return nil, mustBeObject
	}
	return domain.SortedHeaders(headers), ""
}

func readBatchSpec(raw []byte, nested *[]domain.FieldError) (batch domain.Batch, message string) {
	number := func(to *int) func([]byte) string {
		return func(raw []byte) (message string) {
			*to, message = readWhole(raw)
			return message
		}
	}
	refused, err := fields{"max_events": number(&batch.MaxEvents), "max_wait": number(&batch.MaxWait)}.read(raw)
	if err != nil {
		return batch, mustBeObject
	}
	for _, f := range refused {
		*nested = append(*nested, domain.FieldError{Field: "batch." + f.Field, Message: f.Message})
	}
	return batch, ""
}

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
	MaxRetries     int                   `json:"max_retries"`
	RetryDelay     int                   `json:"retry_delay"`
	Timeout        int                   `json:"timeout"`
	Filters        json.RawMessage       `json:"filters"`
	Batch          *domain.Batch         `json:"batch"`
	PayloadVersion domain.PayloadVersion `json:"payload_version"`
	IsActive       bool                  `json:"is_active"`
	Status         string                `json:"status"`
	Version        int64                 `json:"version"`
	CreatedAt      moment                `json:"created_at"`
	UpdatedAt      moment                `json:"updated_at"`
}

func viewOf(w domain.Webhook) webhookView {
	headers := make(map[string]string, len(w.Headers))
	for _, h := range w.Headers {
		headers[h.Name] = domain.Masked
	}
	return webhookView{
		ID: w.ID, Number: w.Number, Name: w.Name, Description: w.Description, URL: w.URL, Events: w.Events, Headers: headers,
		HasSecret: w.Secret != "", MaxRetries: w.MaxRetries, RetryDelay: w.RetryDelay, Timeout: w.Timeout,
		Filters: w.Filters, Batch: w.Batch, PayloadVersion: w.PayloadVersion, IsActive: w.Active, Status: statusOf(w),
		Version: w.Version, CreatedAt: moment(w.CreatedAt), UpdatedAt: moment(w.UpdatedAt),
	}
}

func statusOf(w domain.Webhook) string {
	if w.Active {
		return "active"
	}
	return "inactive"
}
