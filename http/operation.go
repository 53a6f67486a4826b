package http

import (
	"context"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore/cpulimit"
)

// operation declares one method of one path: the router, the token check, the reading of
// parameters and the API's description all go by it. Each file declares its operations at
// its head.
type operation struct {
	method, path string // variables of the path are those of pathVariables
	id, summary  string
	scope        domain.Scope // of tokens; or public, anyToken
	orScope      domain.Scope // one that suffices too; "": none
	alsoScope    domain.Scope // one that is needed besides; "": none
	private      string       // what of a request needs payloads:read besides; "": nothing
	query        []queryParam
	header       []headerParam
	body         requestBody // nil: none
	status       int         // of a successful answer; 0: 200
	answer       answer      // nil: no body
	media        string      // of the answer; "": JSON
	conflicts    bool        // may answer 409
	goes         bool        // may answer 410
	unbounded    bool        // has its own bounds instead of answerTimeout
	light        bool        // the answer is no more than a connection costs anyway
	large        bool        // the answer may be several MB
	identifies   bool        // a public one that looks at who asks
	payloads     bool        // the answer may hold payloads, see payloadGuard
	verbatim     bool        // the texts of the answer are those of people
	reads        bool        // changes nothing, though the method is not GET
	deleted      bool        // finds a deleted webhook too, though the method is not GET
	serve        handler

	tag     string // the group of the description that it belongs to
	pattern string // the path as the router matches it
}

// handler answers one request, or returns why it cannot, having written nothing.
type handler func(x *request, r *http.Request) error

// public marks an operation that needs no token, anyToken one that any token may use.
const (
	public   domain.Scope = "none"
	anyToken domain.Scope = "any"
)

// answerTimeout is when a caller is told to retry rather than kept waiting.
const answerTimeout = 30 * time.Second

// pathVariables are the variables of paths: what they match, and their description.
var pathVariables = map[string]struct{ pattern, text string }{
	"webhook":  {"[0-9A-Fa-f-]+", "the webhook's UUID or its short number"},
	"call":     {"[0-9A-Fa-f-]+", "the call's id"},
	"event":    {"[0-9A-Fa-f-]+", "the event's id"},
	"delivery": {"[0-9A-Fa-f-]+", "the delivery's id"},
	"replay":   {"[0-9A-Fa-f-]+", "the replay's id"},
	"alert":    {"[0-9A-Fa-f-]+", "the alert's id"},
	"token":    {"[0-9A-Fa-f-]+", "the id of a token or a session"},
	"model":    {"[a-z_]+", "the name of a read model"},
	"subject":  {".+", "the patient's id, as events have it"},
	"parked":   {"[0-9]+", "the parked event's id in their list"},
}

// pathVariable matches a variable of an operation's path.
var pathVariable = regexp.MustCompile(`\{(\w+)\}`)

// byID is a handler that gets the id that the variable of the path is.
func byID[T ~[16]byte](variable string, serve func(*request, *http.Request, T) error) handler {
	return ofNoWebhook(ofWebhookByID(variable, func(x *request, r *http.Request, _ domain.Webhook, id T) error { return serve(x, r, id) }))
}

// ofWebhookByID is byID for what is of one webhook.
func ofWebhookByID[T ~[16]byte](variable string, serve func(*request, *http.Request, domain.Webhook, T) error) webhookHandler {
	return func(x *request, r *http.Request, w domain.Webhook) error {
		id, ok := parseUUID(mux.Vars(r)[variable])
		if !ok { // it names what is not found
			return domain.NotFound(variable)
		}
		return serve(x, r, w, T(id))
	}
}

// add routes and describes operations, whose paths are below root.
func (s *Server) add(root, tag string, operations ...[]operation) {
	for _, o := range slices.Concat(operations...) {
		if o.scope == "" {
			panic("http: the operation " + o.id + " says nothing of its scope")
		}
		o.path, o.tag = root+o.path, tag
		o.pattern = pathVariable.ReplaceAllStringFunc(o.path, func(variable string) string {
			name := strings.Trim(variable, "{}")
			return "{" + name + ":" + pathVariables[name].pattern + "}"
		})
		if o.payloads {
			o.header = append(slices.Clip(o.header), accessReason)
		}
		if o.status == 0 {
			o.status = http.StatusOK
		}
		if o.acts() && !slices.Contains(o.header, idempotencyKey) {
			o.header, o.conflicts, o.serve = append(slices.Clip(o.header), idempotencyKey), true, s.once(o.serve)
		}
		s.operations = append(s.operations, &o)
		s.route(&o)
	}
}

// fixedRoute is a route whose path has no variable. It is looked up in a map, where the
// router would match one expression after another and copy the request.
type fixedRoute struct{ method, path string }

// route adds the operation to the routes; GET brings HEAD. (There are no subrouters: mux
// answers 404 where a subrouter's path lacks the method.)
func (s *Server) route(o *operation) {
	methods := []string{o.method}
	if o.method == http.MethodGet {
		methods = append(methods, http.MethodHead)
	}
	serve := func(w http.ResponseWriter, r *http.Request) {
		x := w.(*request) // which serve made
		x.operation = o
		if s.config.Tracer != nil {
			r = s.startSpan(x, r)
		}
		if err := s.perform(o, x, r); err != nil {
			s.fail(x, r, err)
		}
	}
	s.router.HandleFunc(o.pattern, serve).Methods(methods...)
	if o.path == o.pattern {
		for _, method := range methods {
			s.fixed[fixedRoute{method, o.path}] = serve
		}
	}
}

func (s *Server) perform(o *operation, x *request, r *http.Request) (err error) {
	if s.config.ReadOnly && o.method != http.MethodGet && !o.reads {
		return domain.Forbidden("this server only reads; send this to one with the role api")
	}
	var token domain.Token
	if o.scope != public {
		requestID := x.caller.RequestID
		x.caller, token, err = s.auth.authorize(r, o)
		if x.caller.RequestID = requestID; err != nil {
			return err
		}
		x.limiter = s.commands.Log.Limiter
	}
	ctx := cpulimit.WithCaller(r.Context(), x.caller.Actor)
	if o.scope != public && !o.light {
		if o.large {
			err = s.expectLarge(ctx, x, 0)
		} else {
			x.held, err = s.small.acquire(ctx, x.caller.Actor, smallAnswer)
			if !o.unbounded { // that holds little of what it reads at a time
				ctx = s.withRoom(ctx, x)
			}
		}
		if err != nil {
			return err
		}
	}
	if !o.unbounded {
		var cancel func()
		ctx, cancel = context.WithTimeout(ctx, answerTimeout)
		defer cancel()
	}
	r = r.WithContext(ctx)
	if o.readsQuery(r) {
		x.query, err = readQuery(r, o.query, s.commands.Catalog)
		if refusesType(err) {
			var past domain.Catalog
			if past, err = s.pastCatalog(ctx); err == nil {
				x.query, err = readQuery(r, o.query, past)
			}
		}
		if err != nil {
			return err
		}
	}
	if o.payloads {
		if x.payloads, err = s.guardPayloads(x, r, token.Allows(domain.ScopePayloadsRead)); err != nil {
			return err
		}
	}
	if o.body == nil && o.method != http.MethodGet && r.ContentLength != 0 {
		if err := checkNoFields(x, r); err != nil {
			return err
		}
	}
	return o.serve(x, r)
}

// checkNoFields refuses what somebody asks for in the body of an operation that takes none, so that
// it does not pass silently.
func checkNoFields(x *request, r *http.Request) error {
	data, err := x.readJSON(r, maxManagementBody, true)
	if err != nil || isNull(data) {
		return err
	}
	refused, err := object[struct{}]{}.parse(data, nil)
	if err != nil {
		return err
	}
	return domain.CheckFields(refused)
}

// acts reports whether a repetition of the request may do something again. Checks and rebuilds,
// which answer with lines of progress, do no more the second time.
func (o *operation) acts() bool {
	return o.media == "" && o.method != http.MethodGet && o.scope != public && o.scope != anyToken && o.scope != domain.ScopeWebhooksRead
}

// readsQuery reports whether the request may have parameters, of which the operation refuses those that
// it does not have.
func (o *operation) readsQuery(r *http.Request) bool {
	return o.scope != public && (o.method == http.MethodGet || r.URL.RawQuery != "")
}
