// Package http is everything that is seen over HTTP: the API, and beneath it the
// outbound sender. Statuses, headers and JSON shapes are here and nowhere else.
package http

import (
	"context"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/http/identity"
	"github.com/medilab/webhooks/projections"
)

// Config is what a Server needs. What is optional says so.
type Config struct {
	Commands *commands.Commands
	Queries  *projections.Projections
	Logger   *slog.Logger
	// AdminToken is accepted as it is, with every right. Optional.
	AdminToken domain.Secret
	// Identity accepts the tokens of the clinic's identity provider. Optional.
	Identity *identity.Provider
	// Ready says why the process cannot serve now: the database, the migrations,
	// shutting down.
	Ready func(ctx context.Context) error
	// Metrics answers GET /metrics. Optional.
	Metrics http.Handler
	// Observe is told of every answer; route is the path's pattern. Optional.
	Observe func(route, method string, status int, took time.Duration)
	// Mount adds what is no API (the admin panel, the page to try the API) to the
	// router; paths arrive without their trailing slash. Optional.
	Mount func(root *mux.Router)
}

// Server answers HTTP requests. Safe for concurrent use.
type Server struct {
	config   Config
	commands *commands.Commands
	queries  *projections.Projections
	logger   *slog.Logger
	router   *mux.Router
	fixed    map[fixedRoute]http.HandlerFunc // routes without variables
	auth     authenticator
	ids      requestIDs
	readings chan struct{} // holds a token for each reading of the whole log under way
	scrapes  chan struct{} // and of the metrics

	readiness *refresher
	door      *door
}

// apiRoot is where the API is.
const apiRoot = "/api/v1"

// NewServer gives a server with all its routes. It listens nowhere: see Handler.
func NewServer(config Config) *Server {
	s := newServer(config)
	// The first route that matches answers, so the busiest stand first, and fixed
	// paths before those with an id in the same place.
	s.eventRoutes()
	s.deliveryRoutes()
	s.alertRoutes()
	s.statsRoutes()
	s.callRoutes()
	s.webhookRoutes()
	s.replayRoutes()
	s.auditRoutes()
	s.openAPIRoutes()
	s.healthRoutes()
	if config.Mount != nil {
		config.Mount(s.router)
	}
	return s
}

func newServer(config Config) *Server {
	s := &Server{config: config, commands: config.Commands, queries: config.Queries, logger: config.Logger, router: mux.NewRouter(), fixed: map[fixedRoute]http.HandlerFunc{}, ids: newRequestIDs(), readings: make(chan struct{}, maxReadings), scrapes: make(chan struct{}, maxScrapes), readiness: new(refresher), door: newDoor()}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	s.auth = newAuthenticator(config)

	// A path is matched as it came: cleaning it would answer with a redirect.
	s.router.SkipClean(true)
	s.router.NotFoundHandler = http.HandlerFunc(s.handleNoSuchPath)
	s.router.MethodNotAllowedHandler = http.HandlerFunc(s.handleWrongMethod)
	return s
}

// NewProbes gives a server that answers only for its health: a process without
// the API has it too.
func NewProbes(config Config) *Server {
	s := newServer(config)
	s.healthRoutes()
	return s
}

// Handler gives what answers requests.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.serve) }

// handler answers one request, or returns why it cannot: nothing is written then.
type handler func(x *exchange, r *http.Request) error

// public marks a route that needs no token; anyToken one that any token may use.
const (
	public   domain.Scope = ""
	anyToken domain.Scope = "any"
)

// api adds a route below apiRoot whose answers take no longer than answerTimeout.
func (s *Server) api(methods, path string, scope domain.Scope, h handler) {
	s.long(methods, path, scope, func(x *exchange, r *http.Request) error {
		ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
		defer cancel()
		return h(x, r.WithContext(ctx))
	})
}

// long adds a route below apiRoot that has its own bounds, or may take as long as
// its caller waits.
func (s *Server) long(methods, path string, scope domain.Scope, h handler) {
	s.route(methods, apiRoot+path, scope, h)
}

// answerTimeout is when a caller is told to come again rather than kept waiting
// for a database that does not answer.
const answerTimeout = 30 * time.Second

// fixedRoute is a route whose path has no variable: it is found at once, where the
// router matches one expression after the other and copies the request.
type fixedRoute struct{ method, path string }

// route adds a route: methods are separated by spaces, and GET brings HEAD. (There
// are no subrouters: mux answers 404 where a subrouter's path lacks the method.)
func (s *Server) route(methods, path string, scope domain.Scope, h handler) {
	list := strings.Fields(methods)
	if list[0] == http.MethodGet {
		list = append(list, http.MethodHead)
	}
	answer := func(w http.ResponseWriter, r *http.Request) {
		x := exchangeOf(w)
		x.route = path
		if scope != public {
			caller, err := s.auth.authorize(r, scope)
			x.caller.Actor = caller
			if err != nil {
				s.fail(x, r, err)
				return
			}
		}
		if err := h(x, r); err != nil {
			s.fail(x, r, err)
		}
	}
	s.router.HandleFunc(path, answer).Methods(list...).Name(path)
	if !strings.ContainsRune(path, '{') {
		for _, method := range list {
			s.fixed[fixedRoute{method, path}] = answer
		}
	}
}

// serve wraps the whole router, which calls no middleware of its own for paths
// and methods that it does not know.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	x := &exchange{ResponseWriter: w, started: time.Now()}
	x.caller.RequestID = s.ids.of(r)
	header := w.Header()
	header["X-Request-Id"] = []string{x.caller.RequestID}
	header["X-Content-Type-Options"] = noSniff
	header["Cache-Control"] = noStore
	defer s.finish(x, r)
	withoutTrailingSlash(r)
	if !isProbe(r.URL.Path) {
		if !s.door.enter() {
			s.refuse(x, r)
			return
		}
		defer s.door.leave()
	}
	if answer := s.fixed[fixedRoute{r.Method, r.URL.Path}]; answer != nil {
		answer(x, r)
		return
	}
	s.router.ServeHTTP(x, r)
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

// finish ends every request: a panic becomes a problem, and one line tells all.
func (s *Server) finish(x *exchange, r *http.Request) {
	if problem := recover(); problem != nil {
		if problem == http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
			panic(problem)
		}
		s.logger.Error("panic", "path", r.URL.Path, "request_id", x.caller.RequestID, "panic", problem, "stack", string(debug.Stack()))
		if x.status != 0 {
			panic(http.ErrAbortHandler) // half an answer is out: cut it off visibly
		}
		writeProblem(x, http.StatusInternalServerError, problemOf(domain.KindInternal), "", nil)
	}
	took := time.Since(x.started)
	s.log(x, r, took)
	if s.config.Observe != nil {
		s.config.Observe(x.route, r.Method, x.status, took)
	}
}

// log writes one wide line a request, without the query, which may hold what is
// somebody's. Events that were accepted, which come by the ten thousand a second,
// and the questions of machines are for those who look closely.
func (s *Server) log(x *exchange, r *http.Request, took time.Duration) {
	level := slog.LevelInfo
	switch {
	case x.status == http.StatusAccepted, x.status < http.StatusBadRequest && !strings.HasPrefix(x.route, apiRoot), x.route == readyPath:
		level = slog.LevelDebug // who asks whether we are ready acts on the answer itself
	case x.status >= http.StatusInternalServerError:
		level = slog.LevelError
	}
	if !s.logger.Enabled(r.Context(), level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Int("status", x.status),
		slog.Float64("took_ms", float64(took.Microseconds())/1000), slog.Int64("bytes", x.written), slog.String("actor", x.caller.Actor),
		slog.String("remote", r.RemoteAddr), slog.String("request_id", x.caller.RequestID),
	}
	if x.err != nil {
		attrs = append(attrs, slog.Any("error", x.err))
	}
	s.logger.LogAttrs(r.Context(), level, "request", attrs...)
}

func (s *Server) handleNoSuchPath(w http.ResponseWriter, r *http.Request) {
	s.fail(exchangeOf(w), r, domain.NotFound("path"))
}

// handleWrongMethod answers 405 and says which methods the path has.
func (s *Server) handleWrongMethod(w http.ResponseWriter, r *http.Request) {
	x := exchangeOf(w)
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
	writeProblem(x, http.StatusMethodNotAllowed, problem{"method_not_allowed", "The path does not have this method"},
		"use "+strings.Join(allowed, ", "), nil)
}
