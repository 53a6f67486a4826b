package main

import (
	"context"
	"errors"
	"io"
	"log"
	"math"
	"net"
	nethttp "net/http"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/gorilla/mux"
	"github.com/pires/go-proxyproto"

	"github.com/medilab/webhooks/http"
	"github.com/medilab/webhooks/http/admin"
	"github.com/medilab/webhooks/http/fastpath"
	"github.com/medilab/webhooks/migrations"
)

// front answers requests: the API and the panel, or the probes alone.
func (s *server) front() *http.Server {
	config := http.Config{
		Commands: s.commands, Queries: s.queries, Standby: s.standby, ReadOnly: !s.settings.roles[roleAPI], Logger: s.logger, AdminToken: s.token.secret,
		Identity: s.settings.identity, SignIn: s.settings.signIn, PublicURL: s.settings.publicURL, ReasonRequired: s.settings.reason == reasonRequired, Receipts: s.receipts,
		Ready: s.ready, Tracer: s.tracer, Metrics: s.metrics.handler(s), Observe: s.metrics.answered, Mount: mountPages, Proxies: s.settings.proxies,
	}
	if s.settings.roles[roleAPI] || s.settings.roles[roleRead] {
		return http.NewServer(config)
	}
	return http.NewProbes(config)
}

// mountPages adds the pages for people, the panel and the API's description, also below the API's
// root.
func mountPages(root *mux.Router) {
	// A browser is led to the panel; others learn that there is nothing.
	root.Path("/").Methods("GET", "HEAD").HeadersRegexp("Accept", "text/html").Handler(nethttp.RedirectHandler(admin.Path, nethttp.StatusFound))
	for path, page := range map[string]nethttp.Handler{admin.Path: admin.Handler(), admin.DocsPath: admin.Docs()} {
		root.Handle(path, page)
		root.Handle("/api/v1"+path, page)
		root.PathPrefix(path + "/").Handler(page)
	}
}

// writeTimeout lets the longest response end: a test call may take five minutes.
const writeTimeout = 6 * time.Minute

func newWebServer(front *http.Server) *nethttp.Server {
	return &nethttp.Server{
		Handler:           front.Handler(),
		ConnState:         fastpath.ConnState,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       2 * time.Minute,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    http.MaxHeaderBytes,
		HTTP2:             &nethttp.HTTP2Config{MaxConcurrentStreams: 100, WriteByteTimeout: 30 * time.Second},
		ErrorLog:          log.New(io.Discard, "", 0),
	}
}

// maxConnections returns how many clients may be connected if so many descriptors may be
// open: what calls and the database need is kept for them, and what the limit says is not
// used up.
func maxConnections(descriptors, workers, connections int) int {
	const most, files = 8192, 64
	left := descriptors - workers - connections - files
	return min(most, max(descriptors/4, min(descriptors/2, left)))
}

// descriptorLimit returns how many files and connections this process may have open. At
// its start Go has raised the limit as far as it may.
func descriptorLimit() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1024 // the usual one
	}
	return int(min(uint64(limit.Cur), math.MaxInt32)) //nolint:unconvert // signed on some systems
}

// behindProxies returns a listener whose connections of trusted proxies begin with a PROXY
// header, which says who the client is. Others are as they were.
func behindProxies(raw net.Listener, trusted http.Proxies) net.Listener {
	const patience = 5 * time.Second
	return &proxyproto.Listener{Listener: raw, ReadHeaderTimeout: patience,
		ConnPolicy: func(conn proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
			if trusted.Trust(conn.Upstream) {
				return proxyproto.REQUIRE, nil
			}
			return proxyproto.SKIP, nil
		}}
}

// listen serves until web is shut down; front answers what web refuses.
func (s *server) listen(web *nethttp.Server, front *http.Server, raw net.Listener) error {
	config := fastpath.Config{
		MaxConns: maxConnections(descriptorLimit(), s.settings.workers, s.settings.connections), ReadTimeout: web.ReadHeaderTimeout, IdleTimeout: web.IdleTimeout, Handler: web.Handler, Refuse: front.Refuse,
	}
	if s.settings.roles[roleAPI] {
		config.Paths = http.FastPaths
	}
	if s.certificate != nil {
		web.TLSConfig = s.certificate.config()
		config.TLS = web.TLSConfig
	}
	if s.settings.proxyHeader == "on" {
		raw = behindProxies(raw, s.settings.proxies)
	}
	err := web.Serve(fastpath.NewListener(raw, config))
	if errors.Is(err, nethttp.ErrServerClosed) {
		return nil
	}
	return err
}

// ready returns why this process cannot serve now.
func (s *server) ready(ctx context.Context) error {
	if s.stopping.Load() {
		return errors.New("the server is shutting down")
	}
	pending, err := migrations.Pending(ctx, s.pool)
	if errors.Is(err, migrations.ErrNewer) {
		return err
	}
	if err != nil {
		return errors.New("the database cannot be reached")
	}
	if pending {
		return errors.New("migrations are not applied")
	}
	if !s.commands.Directory.IsRenewed() {
		return errors.New("the database lost the end of the log: erasures are compared with the file of anchors")
	}
	if s.saga.Node() == 0 {
		return errors.New("this node has not joined the others yet")
	}
	return nil
}

const welcome = `
MediLab Webhooks is ready.

  API     {base}/api/v1
  Panel   {base}/admin
  Token   {token}
          (an admin token, shown this once and kept in {file})

Try it:

  curl -sS -X POST {base}/api/v1/webhooks/events/trigger -H "Authorization: Bearer $(cat '{file}')" -H "Content-Type: application/json" -d '{"event_type": "patient.created", "event_data": {"patient_id": 123}}'

`

// announce logs where this process serves, and prints the first token on the start that made it.
func (s *server) announce(addr net.Addr) {
	base := "http://" + addr.String()
	if s.certificate != nil {
		base = "https://" + addr.String()
	}
	s.logger.Info("serving", "address", base, "panel", base+"/admin", "roles", s.settings.roles.String())
	if !s.token.isNew {
		return
	}
	file := filepath.Join(s.settings.database.dataDir, tokenFile)
	text := strings.NewReplacer("{base}", base, "{token}", s.token.secret.Reveal(), "{file}", file).Replace(welcome)
	if _, err := io.WriteString(s.out, text); err != nil {
		s.logger.Warn("the first token could not be shown; it is in the data folder", "error", err)
	}
}
