package main

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/http/identity"
	"github.com/medilab/webhooks/http/sender"
)

// The roles of a serving process: what of it runs here.
const (
	roleAPI         = "api"
	roleSaga        = "saga"        // dispatch, alerts, the relay of emitted events
	roleWorker      = "worker"      // the calls
	roleProjections = "projections" // the read models
)

type roles map[string]bool

func (r roles) String() string {
	var names []string
	for _, name := range allRoles {
		if r[name] {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

var allRoles = []string{roleAPI, roleSaga, roleWorker, roleProjections}

// serveOptions are the settings of serve as they were given: the environment, and
// flags of the same meaning that override it.
type serveOptions struct {
	database     *databaseOptions
	addr         string
	allowTargets string
	keys         string
	workers      int
	log          string
	grace        time.Duration
	eventTypes   string
	roles        string
	caFile       string
	clientCert   string
	clientKey    string
	proxy        string
	resolver     string
	certFile     string
	keyFile      string
	debugAddr    string
	jwt          jwtOptions
	alerts       alertOptions
	invalid      error // a value of the environment that cannot be read
}

func newServeOptions(db *databaseOptions) *serveOptions { return &serveOptions{database: db} }

func (o *serveOptions) register(f *pflag.FlagSet) {
	f.StringVar(&o.addr, "addr", fromEnvironment("MEDILAB_ADDR", "127.0.0.1:8000"), "listen address (MEDILAB_ADDR)")
	f.StringVar(&o.allowTargets, "allow-targets", fromEnvironment("MEDILAB_ALLOW_TARGETS", ""), "private networks that webhooks may call: CIDRs, loopback, private, all, none (MEDILAB_ALLOW_TARGETS; default: loopback with an embedded database, else none)")
	f.StringVar(&o.keys, "keys", fromEnvironment("MEDILAB_KEYS", ""), "keyset file that encrypts secrets at rest (MEDILAB_KEYS; default: keys.json in the data folder)")
	f.IntVar(&o.workers, "workers", o.intFromEnvironment("MEDILAB_WORKERS", 512), "deliveries in flight at once (MEDILAB_WORKERS)")
	f.StringVar(&o.log, "log", fromEnvironment("MEDILAB_LOG", ""), "log format and level, as json,debug (MEDILAB_LOG; default: text on a terminal, else json; info)")
	f.DurationVar(&o.grace, "shutdown-timeout", o.durationFromEnvironment("MEDILAB_SHUTDOWN_TIMEOUT", 30*time.Second), "how long a stop waits for calls in flight (MEDILAB_SHUTDOWN_TIMEOUT)")
	f.StringVar(&o.eventTypes, "event-types", fromEnvironment("MEDILAB_EVENT_TYPES", ""), "file that adds event types (MEDILAB_EVENT_TYPES)")
	f.StringVar(&o.roles, "roles", fromEnvironment("MEDILAB_ROLES", strings.Join(allRoles, ",")), "what of the server runs here (MEDILAB_ROLES)")
	f.StringVar(&o.caFile, "ca-file", fromEnvironment("MEDILAB_CA_FILE", ""), "PEM bundle trusted for calls beside the system's (MEDILAB_CA_FILE)")
	f.StringVar(&o.clientCert, "client-cert", fromEnvironment("MEDILAB_CLIENT_CERT_FILE", ""), "certificate shown to receivers that ask (MEDILAB_CLIENT_CERT_FILE)")
	f.StringVar(&o.clientKey, "client-key", fromEnvironment("MEDILAB_CLIENT_KEY_FILE", ""), "its key (MEDILAB_CLIENT_KEY_FILE)")
	f.StringVar(&o.proxy, "proxy", fromEnvironment("MEDILAB_PROXY", ""), "forward proxy for calls (MEDILAB_PROXY; default: none)")
	f.StringVar(&o.resolver, "resolver", fromEnvironment("MEDILAB_RESOLVER", ""), "name server for calls, as 10.0.0.53:53 (MEDILAB_RESOLVER; default: the system's)")
	f.StringVar(&o.certFile, "tls-cert", fromEnvironment("MEDILAB_TLS_CERT_FILE", ""), "certificate to serve HTTPS with (MEDILAB_TLS_CERT_FILE)")
	f.StringVar(&o.keyFile, "tls-key", fromEnvironment("MEDILAB_TLS_KEY_FILE", ""), "its key (MEDILAB_TLS_KEY_FILE)")
	f.StringVar(&o.debugAddr, "debug-addr", fromEnvironment("MEDILAB_DEBUG_ADDR", ""), "loopback address to serve Go profiles at (MEDILAB_DEBUG_ADDR; default: none)")
	o.jwt.register(f)
	o.alerts.register(f, o)
}

func (o *serveOptions) intFromEnvironment(name string, otherwise int) int {
	text := fromEnvironment(name, "")
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		o.invalid = fmt.Errorf("%s: %q is no whole number", name, text)
	}
	return n
}

func (o *serveOptions) floatFromEnvironment(name string, otherwise float64) float64 {
	text := fromEnvironment(name, "")
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		o.invalid = fmt.Errorf("%s: %q is no number", name, text)
	}
	return n
}

func (o *serveOptions) durationFromEnvironment(name string, otherwise time.Duration) time.Duration {
	text := fromEnvironment(name, "")
	if text == "" {
		return otherwise
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		o.invalid = fmt.Errorf("%s: %q is no duration, as 30s", name, text)
	}
	return d
}

// settings are serve's options, read and checked.
type settings struct {
	database    databaseOptions
	addr        string
	token       domain.Secret // MEDILAB_TOKEN
	targets     sender.Targets
	keys        string
	workers     int
	connections int
	logger      *slog.Logger
	grace       time.Duration
	eventTypes  string
	roles       roles
	caFile      string
	clientCert  string
	clientKey   string
	proxy       string
	resolver    string // host:port of a name server; "": the system's
	certFile    string
	keyFile     string
	debugAddr   string
	identity    *identity.Provider
	alerts      domain.AlertRules
	alertScan   time.Duration
}

// serverConnections are enough for the appender, the readers, the claims and the
// API's queries.
const serverConnections = 24

const leastTokenLength = 32

func (o *serveOptions) settings(notes io.Writer) (settings, error) {
	if o.invalid != nil {
		return settings{}, usageError{o.invalid}
	}
	s := settings{
		database: *o.database, addr: o.addr, keys: o.keys, workers: o.workers, connections: serverConnections, grace: o.grace,
		eventTypes: o.eventTypes, caFile: o.caFile, clientCert: o.clientCert, clientKey: o.clientKey, proxy: o.proxy, resolver: o.resolver,
		certFile: o.certFile, keyFile: o.keyFile, debugAddr: o.debugAddr,
	}
	var err error
	if s.logger, err = newLogger(o.log, notes); err != nil {
		return settings{}, usageError{err}
	}
	if s.roles, err = parseRoles(o.roles); err != nil {
		return settings{}, usageError{err}
	}
	allow := o.allowTargets
	if allow == "" && s.database.external() == "" {
		allow = "loopback"
	}
	if s.targets, err = sender.ParseTargets(allow); err != nil {
		return settings{}, usageError{err}
	}
	if s.keys == "" {
		s.keys = filepath.Join(s.database.dataDir, keysFile)
	}
	if s.workers < 1 {
		return settings{}, usageError{fmt.Errorf("MEDILAB_WORKERS: %d is less than 1", s.workers)}
	}
	if _, err := netip.ParseAddrPort(s.resolver); s.resolver != "" && err != nil {
		return settings{}, usageError{fmt.Errorf("MEDILAB_RESOLVER: %q is no address and port, as 10.0.0.53:53", s.resolver)}
	}
	if (s.certFile == "") != (s.keyFile == "") {
		return settings{}, usageError{fmt.Errorf("MEDILAB_TLS_CERT_FILE and MEDILAB_TLS_KEY_FILE go together")}
	}
	if s.alerts, s.alertScan, err = o.alerts.check(); err != nil {
		return settings{}, usageError{err}
	}
	if s.identity, err = o.jwt.provider(o.caFile); err != nil {
		return settings{}, usageError{err}
	}
	if token := fromEnvironment("MEDILAB_TOKEN", ""); token != "" {
		if len(token) < leastTokenLength {
			return settings{}, usageError{fmt.Errorf("MEDILAB_TOKEN is shorter than %d characters", leastTokenLength)}
		}
		s.token = domain.NewSecret(token)
	}
	return s, nil
}

func parseRoles(text string) (roles, error) {
	r := roles{}
	for name := range strings.SplitSeq(text, ",") {
		name = strings.TrimSpace(name)
		if !slices.Contains(allRoles, name) {
			return nil, fmt.Errorf("unknown role %q: use %s", name, strings.Join(allRoles, ", "))
		}
		r[name] = true
	}
	return r, nil
}

// newLogger reads a setting like "json,debug".
func newLogger(setting string, out io.Writer) (*slog.Logger, error) {
	text, level := isTerminal(out), slog.LevelInfo
	for word := range strings.SplitSeq(setting, ",") {
		switch word = strings.TrimSpace(word); word {
		case "":
		case "text":
			text = true
		case "json":
			text = false
		default:
			if err := level.UnmarshalText([]byte(word)); err != nil {
				return nil, fmt.Errorf("MEDILAB_LOG: %q is neither text, json nor a level (debug, info, warn, error)", word)
			}
		}
	}
	options := &slog.HandlerOptions{Level: level}
	if text {
		return slog.New(slog.NewTextHandler(out, options)), nil
	}
	return slog.New(slog.NewJSONHandler(out, options)), nil
}
