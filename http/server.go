// Package http is the API. Statuses, headers and JSON shapes are here and nowhere else.
package http

import (
	"context"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/mux"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/semaphore"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/commands/receipts"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/http/identity"
	"github.com/medilab/webhooks/projections"
)

// Config is what a Server needs.
type Config struct {
	Commands *commands.Commands
	Queries  *projections.Projections
	Logger   *slog.Logger
	// Standby answers queries in place of the primary. Optional.
	Standby *projections.Standby
	// ReadOnly refuses what changes anything.
	ReadOnly bool
	// AdminToken is accepted as it is, with every right. Optional.
	AdminToken domain.Secret
	// AdminActor is the actor of the AdminToken; "" is commands.ActorAdmin.
	AdminActor string
	// Identity accepts the tokens of the clinic's identity provider. Optional.
	Identity *identity.Provider
	// SignIn signs people in at that provider. Optional.
	SignIn *identity.SignIn
	// PublicURL is where browsers reach this server. Optional: they say it in each request.
	PublicURL string
	// Receipts signs receipts. Optional: without it there are none.
	Receipts *receipts.Signer
	// ReasonRequired refuses to show payloads to those who do not say why (X-Access-Reason).
	ReasonRequired bool
	// Ready returns why the process cannot serve now: the database, the migrations,
	// shutting down. Optional.
	Ready func(ctx context.Context) error
	// Tracer makes a span of each request. Optional.
	Tracer trace.Tracer
	// Metrics answers GET /metrics. Optional.
	Metrics http.Handler
	// Observe is called after every answer; route is the path's pattern. Optional.
	Observe func(route, method string, status int, took time.Duration)
	// Proxies are trusted to name their clients in X-Forwarded-For. Optional.
	Proxies Proxies
	// Mount adds pages (the admin panel, the API's documentation) to the router; paths
	// arrive without their trailing slash. Optional.
	Mount func(root *mux.Router)
}

// Server answers HTTP requests. Safe for concurrent use.
type Server struct {
	config      Config
	commands    *commands.Commands
	queries     *projections.Projections
	logger      *slog.Logger
	operations  []*operation
	description []byte        // the OpenAPI document
	messages    func() []byte // the AsyncAPI document, made when somebody asks for it
	router      *mux.Router
	fixed       map[fixedRoute]http.HandlerFunc
	auth        authenticator
	ids         requestIDs
	logReads    *turns // whole readings of the log at once
	streams     *turns
	keys        inUse[string, *semaphore.Weighted] // idempotency keys: their requests go one after another
	shared      inUse[answerKey, *sharedAnswer]
	live        live
	scrapes     *turns // and of the metrics
	readiness   *commands.Refresher
	requests    sync.RWMutex    // each in flight holds it for reading
	stopping    context.Context //nolint:containedctx // ended by stop, see Drain
	stop        func()
	large       *answerBudget // for large answers
	small       *answerBudget
	patience    time.Duration // for clients that read answers
}

// apiRoot is where the API is.
const apiRoot = "/api/v1"

// NewServer returns a server with all operations. It does not listen: see Handler.
func NewServer(config Config) *Server {
	s := newServer(config)
	s.add(apiRoot, tagEvents, s.eventOperations(), s.eventQueryOperations(), s.parkedOperations())
	s.add(apiRoot, tagDeliveries, s.deliveryOperations(), s.callOperations(), s.feedOperations())
	s.add(apiRoot, tagOversight, s.alertOperations(), s.statsOperations(), s.webhookHealthOperations(), s.auditOperations(), s.streamOperations())
	s.add(apiRoot, tagOversight, s.subjectOperations(), s.searchOperations(), s.tokenOperations(), s.systemOperations())
	s.add(apiRoot, tagWebhooks, s.webhookOperations(), s.applyOperations(), s.testOperations(), s.historyOperations(), s.replayOperations())
	s.add(apiRoot, tagServer, s.descriptionOperations(), s.sessionOperations())
	s.add("", tagServer, s.healthOperations())
	if config.Receipts != nil {
		s.add(apiRoot, tagDeliveries, s.receiptOperations())
		s.add("", tagServer, s.receiptKeyOperations())
	}
	s.description = encode(s.describe())
	s.messages = sync.OnceValue(func() []byte { return encode(s.describeMessages()) })
	if config.Mount != nil {
		config.Mount(s.router)
	}
	return s
}

// NewProbes returns a server that only answers for its health, for a process without the
// API.
func NewProbes(config Config) *Server {
	s := newServer(config)
	s.add("", tagServer, s.healthOperations())
	return s
}

func newServer(config Config) *Server {
	s := &Server{
		config: config, commands: config.Commands, queries: config.Queries, logger: config.Logger,
		router: mux.NewRouter(), fixed: map[fixedRoute]http.HandlerFunc{}, auth: newAuthenticator(config), ids: newRequestIDs(),
		logReads: newTurns(maxLogReads, "looking through the log"), streams: newTurns(maxStreams, "reading the stream"), scrapes: newTurns(maxScrapes, "reading the metrics"),
		readiness: &commands.Refresher{Run: config.Ready, Timeout: readyTimeout},
		large:     newAnswerBudget(largeAnswers), small: newAnswerBudget(smallAnswers), patience: answerPatience,
	}
	if config.ReadOnly { // a sign-in goes on record
		s.config.SignIn = nil
	}
	s.live.server = s
	s.stopping, s.stop = context.WithCancel(context.Background())
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	// A path is matched as it came: cleaning it would answer with a redirect.
	s.router.SkipClean(true)
	s.router.NotFoundHandler = http.HandlerFunc(s.handleNoSuchPath)
	s.router.MethodNotAllowedHandler = http.HandlerFunc(s.handleWrongMethod)
	return s
}

// pastCatalog is the catalogue of what can be asked for: types that left the file of event
// types are in the log.
func (s *Server) pastCatalog(ctx context.Context) (domain.Catalog, error) {
	types, err := s.queries.EventTypes(ctx)
	return s.commands.Catalog.With(types), err
}

// query asks the read models where that is cheapest: see projections.Ask.
func query[T any](ctx context.Context, s *Server, ask func(context.Context, *projections.Projections) (T, error)) (T, error) {
	return projections.Ask(ctx, s.queries, s.config.Standby, ask)
}

// answer answers with what the read models say: see query.
func (s *Server) answer(x *request, r *http.Request, ask func(context.Context, *projections.Projections) (any, error)) error {
	return x.respond(query(r.Context(), s, ask))
}

// turns bounds how many do something at once, and shares the turns by caller: one who has
// some gets another only while more are free than that, so that others find one.
type turns struct {
	what string // is done, as in "too many others are ..."
	mu   sync.Mutex
	free int
	held map[string]int
}

func newTurns(n int, what string) *turns { return &turns{what: what, free: n, held: map[string]int{}} }

// acquire lets the caller do it until release is called, or refuses it. Nobody in particular
// ("") may have all turns.
func (t *turns) acquire(caller string) (release func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.free == 0:
		return nil, domain.Throttled("too many others are " + t.what + "; try again")
	case caller != "" && t.held[caller] >= t.free:
		return nil, domain.Throttled("too many of your requests are " + t.what + "; try again when one has ended")
	}
	t.free--
	t.held[caller]++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.free++
		if t.held[caller]--; t.held[caller] == 0 {
			delete(t.held, caller)
		}
	}, nil
}

// Handler returns what answers requests.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.serve) }

// serve wraps the whole router, which calls no middleware for paths and methods that it
// does not know.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	x := s.begin(w, r)
	if s.config.Proxies != nil {
		defer s.config.Proxies.client(r)()
	}
	defer s.finish(x, r)
	withoutTrailingSlash(r)
	if !isProbe(r.URL.Path) {
		if s.stopping.Err() != nil || !s.requests.TryRLock() {
			x.Header().Set("Connection", "close") // the client goes to another node, or to our next start
			s.fail(x, r, domain.Unavailable("the service is shutting down", nil))
			return
		}
		defer s.requests.RUnlock()
	}
	if serve := s.fixed[fixedRoute{r.Method, r.URL.Path}]; serve != nil {
		serve(x, r)
		return
	}
	s.router.ServeHTTP(x, r)
}

// begin names the request, and sets what every answer has.
func (s *Server) begin(w http.ResponseWriter, r *http.Request) *request {
	x := &request{ResponseWriter: w, started: time.Now(), patience: s.patience, sent: r.Header}
	x.caller.RequestID = s.ids.of(r)
	header := w.Header()
	header["X-Request-Id"] = []string{x.caller.RequestID}
	header["X-Content-Type-Options"] = noSniff
	header["Cache-Control"] = noStore
	return x
}

var (
	noSniff = []string{"nosniff"}
	noStore = []string{"no-store"}
)

// withoutTrailingSlash makes /webhooks/ the same as /webhooks, with no redirect.
func withoutTrailingSlash(r *http.Request) {
	if n := len(r.URL.Path); n > 1 && r.URL.Path[n-1] == '/' {
		r.URL.Path = r.URL.Path[:n-1]
		r.URL.RawPath = strings.TrimSuffix(r.URL.RawPath, "/")
	}
}

// finish ends every request: a panic becomes a problem, or where half an answer is out cuts it off,
// visibly. What the request holds is released, and one line is logged.
func (s *Server) finish(x *request, r *http.Request) {
	problem := recover()
	if problem != nil && problem != http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
		s.logger.Error("panic", "path", loggedPath(x, r), "request_id", x.caller.RequestID, "panic", problem, "stack", string(debug.Stack()))
		if problem = http.ErrAbortHandler; x.status == 0 {
			x.respondProblem(problems[domain.KindInternal], "", nil, 0)
			problem = nil
		}
	}
	if x.body != nil {
		x.body.release()
	}
	x.held.release()
	if x.release != nil {
		x.release()
	}
	x.endSpan()
	took := time.Since(x.started)
	s.log(x, r, took)
	if s.config.Observe != nil {
		s.config.Observe(x.route(), r.Method, x.status, took)
	}
	if problem != nil {
		panic(problem)
	}
}

// loggedPath returns the path as it may be logged: it may name a patient.
func loggedPath(x *request, r *http.Request) string {
	if x.operation != nil && strings.Contains(x.operation.path, "{subject}") || strings.HasPrefix(r.URL.Path, apiRoot+"/subjects/") {
		return apiRoot + "/subjects/..."
	}
	return r.URL.Path
}

// maxLoggedError is how many bytes of an error a request's line has.
const maxLoggedError = 1000

// log writes one wide line a request, without the query, which may hold personal data.
// Accepted events, which come by the ten thousand a second, and probes are for debugging.
func (s *Server) log(x *request, r *http.Request, took time.Duration) {
	level := slog.LevelInfo
	switch {
	case x.status == http.StatusAccepted, x.status < http.StatusBadRequest && !strings.HasPrefix(x.route(), apiRoot), x.route() == readyPath:
		level = slog.LevelDebug // those who ask for readiness act on the answer
	case x.status >= http.StatusInternalServerError && r.Context().Err() == nil: // else the caller left
		level = slog.LevelError
	}
	if !s.logger.Enabled(r.Context(), level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("method", r.Method), slog.String("path", loggedPath(x, r)), slog.Int("status", x.status),
		slog.Float64("took_ms", float64(took.Microseconds())/1000), slog.Int64("bytes", x.written), slog.String("actor", x.caller.Actor),
		slog.String("remote", r.RemoteAddr), slog.String("request_id", x.caller.RequestID),
	}
	if x.err != nil {
		said := x.err.Error() // of a batch, what is wrong with hundreds of events
		attrs = append(attrs, slog.String("error", strings.ToValidUTF8(said[:min(len(said), maxLoggedError)], "")))
	}
	s.logger.LogAttrs(r.Context(), level, "request", attrs...)
}

func (s *Server) handleNoSuchPath(w http.ResponseWriter, r *http.Request) {
	s.fail(w.(*request), r, domain.NotFound("path"))
}

// handleWrongMethod answers 405 and says which methods the path has.
func (s *Server) handleWrongMethod(w http.ResponseWriter, r *http.Request) {
	x := w.(*request)
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		other := *r
		other.Method = method
		var match mux.RouteMatch
		if s.router.Match(&other, &match) && match.MatchErr == nil {
			allowed = append(allowed, method)
		}
	}
	x.Header().Set("Allow", strings.Join(allowed, ", "))
	s.fail(x, r, &refusal{methodNotAllowed, "use " + strings.Join(allowed, ", ")})
}
