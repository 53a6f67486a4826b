package http

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/mux"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

var (
	webhookStatus = choiceParam("status", "which webhooks", "all", "all", "active", "inactive")
	webhookWords  = textParam("q", "text in the name, description or url")
	asOf          = param[pointInLog]{
		name: "as_of", text: "the time, or the position in the log, at which the webhook was as answered",
		schema: schema{"type": "string"}, parse: parsePointInLog,
	}
)

// pointInLog is a time, or the position if that is not 0.
type pointInLog struct {
	at       time.Time
	position projections.Position
}

func parsePointInLog(value string, catalog domain.Catalog) (p pointInLog, problem string) {
	if n, err := strconv.ParseInt(value, 10, 64); err == nil && n > 0 {
		return pointInLog{position: projections.Position(n)}, ""
	}
	if p.at, problem = from.parse(value, catalog); problem != "" {
		problem += ", or a position in the log"
	}
	return p, problem
}

func (s *Server) webhookOperations() []operation {
	change := operation{
		method: "PUT", path: "/webhooks/{webhook}", id: "changeWebhook", summary: "Change the fields given; null clears", scope: domain.ScopeWebhooksWrite,
		header: []headerParam{ifMatch}, body: webhookChange, answer: answerOf[webhookView], conflicts: true, serve: s.ofWebhook(s.changeWebhook),
	}
	patch := change
	patch.method, patch.id, patch.summary = "PATCH", "patchWebhook", "The same as PUT"
	return []operation{{
		method: "POST", path: "/webhooks", id: "registerWebhook", summary: "Register a webhook", scope: domain.ScopeWebhooksWrite,
		body: newWebhook, status: http.StatusCreated, answer: answerOf[webhookView], serve: s.registerWebhook,
	}, {
		method: "GET", path: "/webhooks", id: "listWebhooks", summary: "List webhooks, newest first", scope: domain.ScopeWebhooksRead,
		query: []queryParam{webhookStatus, eventType, webhookWords, limit, cursor}, answer: listOf[webhookView], serve: s.listWebhooks,
	}, {
		method: "GET", path: "/webhooks/{webhook}", id: "getWebhook", summary: "A webhook as it is, or as it was", scope: domain.ScopeWebhooksRead,
		query: []queryParam{asOf}, answer: answerOf[webhookView], serve: s.ofWebhook(s.getWebhook),
	}, change, patch, {
		method: "DELETE", path: "/webhooks/{webhook}", id: "deleteWebhook", summary: "Delete a webhook; pending deliveries are cancelled", scope: domain.ScopeWebhooksWrite,
		header: []headerParam{ifMatch}, status: http.StatusNoContent, conflicts: true, serve: s.ofWebhook(s.deleteWebhook),
	}, {
		method: "POST", path: "/webhooks/{webhook}/activate", id: "activateWebhook", summary: "Let deliveries go on", scope: domain.ScopeWebhooksWrite,
		header: []headerParam{ifMatch}, answer: answerOf[webhookView], conflicts: true, serve: s.ofWebhook(s.changeState(s.commands.ActivateWebhook)),
	}, {
		method: "POST", path: "/webhooks/{webhook}/deactivate", id: "deactivateWebhook", summary: "Make deliveries wait", scope: domain.ScopeWebhooksWrite,
		header: []headerParam{ifMatch}, answer: answerOf[webhookView], conflicts: true, serve: s.ofWebhook(s.changeState(s.commands.DeactivateWebhook)),
	}, {
		method: "POST", path: "/webhooks/{webhook}/rotate-secret", id: "rotateSecret", summary: "Replace the secret, with an overlap", scope: domain.ScopeWebhooksWrite,
		header: []headerParam{ifMatch}, body: rotation, answer: answerOf[rotatedSecretView], conflicts: true, serve: s.ofWebhook(s.rotateSecret),
	}}
}

func (s *Server) registerWebhook(x *request, r *http.Request) error {
	var spec domain.WebhookSpec
	if err := newWebhook.read(x, r, &spec, s.specRules(r.Context(), &spec, true)); err != nil {
		return err
	}
	w, err := s.commands.RegisterWebhook(r.Context(), x.caller, spec)
	if err != nil {
		return err
	}
	x.Header().Set("Location", apiRoot+"/webhooks/"+w.ID.String())
	return x.respondWebhook(w, nil)
}

// specRules returns the rules of a spec that is yet to be read.
func (s *Server) specRules(ctx context.Context, spec *domain.WebhookSpec, creating bool) func() []domain.FieldError {
	return func() []domain.FieldError {
		_, err := s.commands.CheckSpec(ctx, *spec, creating)
		return domain.FieldsOf(err)
	}
}

// listWebhooks lists webhooks of the directory, once it has what other processes appended.
func (s *Server) listWebhooks(x *request, r *http.Request) error {
	if limit.of(x) > defaultLimit {
		if err := s.expectLarge(r.Context(), x, 0); err != nil {
			return err
		}
	}
	matches := askedWebhooks(x)
	if err := s.commands.Directory.CatchUp(r.Context()); err != nil {
		return err
	}
	l := x.list(r.Context(), nil)
	defer l.task.End()
	var last, next projections.Cursor
	for w := range s.commands.Directory.Newest() {
		if err := l.spend(len(w.Description)); err != nil {
			return err
		}
		if w.Number >= cursor.of(x).Below() || !matches(w) {
			continue
		}
		if l.isFull(limit.of(x)) {
			next = last
			break
		}
		if err := l.spend(len(w.Filters)); err != nil {
			return err
		}
		l.add(viewOf(w))
		last = projections.Cursor(w.Number)
	}
	return l.respond(x, next)
}

// askedWebhooks returns what reports whether a webhook is one of those that a list is asked for.
func askedWebhooks(x *request) func(domain.Webhook) bool {
	status, eventType, words := webhookStatus.of(x), eventType.of(x), strings.ToLower(webhookWords.of(x))
	return func(w domain.Webhook) bool {
		return w.Exists() && (status == "all" || status == statusOf(w)) && (eventType == "" || subscribes(w, eventType)) && (words == "" || mentions(w, words))
	}
}

// subscribes reports whether the webhook gets events of the type, filters aside.
func subscribes(w domain.Webhook, t domain.EventType) bool {
	return slices.ContainsFunc(w.Events, func(s string) bool { return domain.Subscription(s).Matches(t) })
}

func mentions(w domain.Webhook, words string) bool {
	return slices.ContainsFunc([]string{w.Name, w.Description, w.URL}, func(text string) bool {
		return strings.Contains(strings.ToLower(text), words)
	})
}

// getWebhook answers with the webhook as it is, or as it was then, also if it was
// deleted since.
func (s *Server) getWebhook(x *request, r *http.Request, w domain.Webhook) (err error) {
	switch then := asOf.of(x); {
	case then.position > 0:
		w, err = s.queries.WebhookAsOf(r.Context(), w.ID, then.position)
	case !then.at.IsZero():
		w, err = s.queries.WebhookAt(r.Context(), w.ID, then.at)
	}
	if err != nil {
		return err
	}
	if !w.Exists() {
		return domain.NotFound("webhook")
	}
	return x.respondWebhook(w, nil)
}

func (s *Server) changeWebhook(x *request, r *http.Request, w domain.Webhook) error {
	w, err := s.commands.WebhookOf(r.Context(), w.ID, x.versions)
	if err != nil {
		return err
	}
	change := webhookChange
	change.current = members(viewOf(w))
	delete(change.current, "previous_secret_until") // it goes by the time of the answer
	var spec domain.WebhookSpec
	if err := change.read(x, r, &spec, s.specRules(r.Context(), &spec, false)); err != nil {
		return err
	}
	return x.respondWebhook(s.commands.ChangeWebhook(r.Context(), x.caller, w.ID, spec, x.versions))
}

func (s *Server) deleteWebhook(x *request, r *http.Request, w domain.Webhook) error {
	return x.respond(nil, s.commands.DeleteWebhook(r.Context(), x.caller, w.ID, x.versions))
}

// changeState activates or deactivates a webhook.
func (s *Server) changeState(change func(context.Context, commands.Caller, domain.WebhookID, commands.Versions) (domain.Webhook, error)) webhookHandler {
	return func(x *request, r *http.Request, w domain.Webhook) error {
		return x.respondWebhook(change(r.Context(), x.caller, w.ID, x.versions))
	}
}

var rotation = object[commands.Rotation]{name: "SecretRotation", optional: true, limit: maxManagementBody, fields: []field[commands.Rotation]{
	plain("secret", jsonSecret, func(p *commands.Rotation) *domain.Secret { return &p.Secret }, schema{"description": "left out: a random one is made"}),
	plain("overlap_seconds", jsonSeconds, func(p *commands.Rotation) *time.Duration { return &p.Overlap }, schema{
		"minimum": 0, "maximum": int(domain.MaxOverlap / time.Second), "default": int(domain.DefaultOverlap / time.Second), "description": "how long the secret before signs too",
	}),
}}

// rotatedSecretView shows a new secret, here and never again.
type rotatedSecretView struct {
	WebhookID     domain.WebhookID `json:"webhook_id"`
	Secret        string           `json:"secret"`
	PreviousUntil moment           `json:"previous_until"` // null: there was no secret before
	Version       int64            `json:"version"`
}

func (s *Server) rotateSecret(x *request, r *http.Request, w domain.Webhook) error {
	in := commands.Rotation{Overlap: domain.DefaultOverlap, Versions: x.versions}
	if err := rotation.read(x, r, &in, noRules); err != nil {
		return err
	}
	w, fresh, err := s.commands.RotateSecret(r.Context(), x.caller, w.ID, in)
	if err != nil {
		return err
	}
	view := rotatedSecretView{WebhookID: w.ID, Secret: fresh.Reveal(), Version: w.Version}
	if len(w.Previous) > 0 {
		view.PreviousUntil = moment(w.Previous[0].Until)
	}
	x.Header().Set("ETag", etag(w))
	return x.respond(view, nil)
}

// webhookHandler is the handler of an operation on one webhook.
type webhookHandler func(x *request, r *http.Request, w domain.Webhook) error

// ofWebhook is a handler that gets the webhook that the path names. It reads the header If-Match if
// the operation has it. Operations that only read, or say so, find
// deleted webhooks too.
func (s *Server) ofWebhook(h webhookHandler) handler {
	return func(x *request, r *http.Request) error {
		w, err := s.namedWebhook(r.Context(), mux.Vars(r)["webhook"])
		if err != nil {
			return err
		}
		if w.Deleted && x.operation.method != http.MethodGet && !x.operation.deleted {
			return domain.NotFound("webhook")
		}
		if slices.Contains(x.operation.header, ifMatch) {
			if x.versions, err = readIfMatch(r); err != nil {
				return err
			}
		}
		return h(x, r, w)
	}
}

// namedWebhook reads what other processes appended first; while the log cannot be reached,
// what is known here is good enough.
func (s *Server) namedWebhook(ctx context.Context, name string) (domain.Webhook, error) {
	unread := s.commands.Directory.CatchUp(ctx)
	w, ok := FindWebhook(s.commands.Directory, name)
	switch {
	case ok:
		return w, nil
	case unread != nil:
		return domain.Webhook{}, unread
	}
	return domain.Webhook{}, domain.NotFound("webhook")
}

// FindWebhook returns the webhook with the UUID or short number, deleted or not.
func FindWebhook(directory *commands.Directory, name string) (domain.Webhook, bool) {
	if id, err := uuid.Parse(name); err == nil {
		return directory.Webhook(domain.WebhookID(id))
	}
	number, err := strconv.ParseInt(name, 10, 64)
	id, ok := directory.Number(number)
	if err != nil || !ok {
		return domain.Webhook{}, false
	}
	return directory.Webhook(id)
}

// readIfMatch returns the versions that the caller wants to change (RFC 9110, section 13.1.1).
// A tag that is no version of ours matches nothing.
func readIfMatch(r *http.Request) (versions commands.Versions, err error) {
	tags := strings.TrimSpace(strings.Join(r.Header.Values(ifMatch.name), ","))
	if tags == "" || tags == "*" {
		return nil, nil
	}
	quoted := false
	for tag := range strings.FieldsFuncSeq(tags, func(r rune) bool {
		quoted = quoted != (r == '"')
		return r == ',' && !quoted
	}) {
		version, err := strconv.ParseInt(strings.Trim(strings.TrimPrefix(strings.TrimSpace(tag), "W/"), `"`), 10, 64)
		if err == nil {
			versions = append(versions, version)
		}
	}
	if versions == nil {
		return nil, domain.Stale(`If-Match is not a version of this webhook: send its ETag, like "3"`)
	}
	return versions, nil
}

func etag(w domain.Webhook) string { return `"` + strconv.FormatInt(w.Version, 10) + `"` }

func (x *request) respondWebhook(w domain.Webhook, err error) error {
	if err != nil {
		return err
	}
	x.Header().Set("ETag", etag(w))
	return x.respond(viewOf(w), nil)
}
