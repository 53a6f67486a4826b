package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/medilab/webhooks/commands/mail"
	"github.com/medilab/webhooks/commands/sources"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/http"
	"github.com/medilab/webhooks/http/admin"
	"github.com/medilab/webhooks/http/identity"
	"github.com/medilab/webhooks/http/sender"
)

// The roles of a serving process: which parts of it run here.
const (
	roleAPI         = "api"
	roleSaga        = "saga"        // dispatch, alerts, the relay of emitted events
	roleWorker      = "worker"      // the calls
	roleProjections = "projections" // the read models
	roleRead        = "read"        // what of the API changes nothing, on a standby
)

var allRoles = []string{roleAPI, roleSaga, roleWorker, roleProjections}

type roles map[string]bool

func parseRoles(text string) (roles, error) {
	r := roles{}
	for name := range strings.SplitSeq(text, ",") {
		name = strings.TrimSpace(name)
		if !slices.Contains(allRoles, name) && name != roleRead {
			return nil, fmt.Errorf("unknown role %q: use %s, or %s", name, strings.Join(allRoles, ", "), roleRead)
		}
		r[name] = true
	}
	return r, nil
}

func (r roles) String() string {
	names := append(slices.Clone(allRoles), roleRead)
	return strings.Join(slices.DeleteFunc(names, func(name string) bool { return !r[name] }), ",")
}

// settings are those of serve. Fields that end in Text are resolved into others.
type settings struct {
	database    databaseOptions
	addr        string
	workers     int
	connections int
	grace       time.Duration
	caFile      string
	clientCert  string
	clientKey   string
	proxy       string
	resolver    string // host:port of a name server; empty: the system's
	certFile    string
	keyFile     string
	debugAddr   string
	proxyHeader string // "on": proxies send PROXY headers
	reason      reasonRule
	alerts      domain.AlertRules
	alertScan   time.Duration
	smtpURL     string
	sourcesText string
	alertEmail  string
	publicURL   string // of this service, without a slash at the end; empty: by addr

	tokenText, logText, rolesText, targetsText, proxiesText string
	jwt                                                     identity.Config
	jwtScopesText                                           string
	oidcID, oidcSecret, oidcScopes                          string

	token    domain.Secret // MEDILAB_TOKEN
	logger   *slog.Logger
	roles    roles
	targets  sender.Targets
	proxies  http.Proxies
	mail     *mail.Server // nil: no e-mail
	sources  []sources.Source
	identity *identity.Provider // nil: no tokens of an identity provider
	signIn   *identity.SignIn   // nil: nobody signs in there
}

const (
	leastTokenLength = 32
	tokenRule        = "32 characters or more, on one line"
	// leastConnections are what lives as long as the process (two consumers of the log, the
	// listener and the relay), twice: what holds one may need another.
	leastConnections = 8
)

// canBeToken reports whether the text is long enough, and fits into a header.
func canBeToken(text string) bool {
	return len(text) >= leastTokenLength && !strings.ContainsFunc(text, unicode.IsControl)
}

// isListenAddress reports whether the text names a port, with or without a host.
func isListenAddress(text string) bool {
	_, port, err := net.SplitHostPort(text)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	return err == nil
}

// table declares every setting of serve but the database's.
func (s *settings) table() []setting {
	usual, alerts := domain.DefaultAlertRules, &s.alerts
	return []setting{
		{env: "MEDILAB_ADDR", flag: "addr", value: &s.addr, usual: "127.0.0.1:8000", usage: "listen address",
			rule: "an address and port, as 127.0.0.1:8000", valid: func() bool { return isListenAddress(s.addr) }},
		{env: "MEDILAB_TOKEN", value: &s.tokenText,
			rule:  tokenRule,
			valid: func() bool { return s.tokenText == "" || canBeToken(s.tokenText) }},
		{env: "MEDILAB_ALLOW_TARGETS", flag: "allow-targets", value: &s.targetsText, usage: "private networks that webhooks may call: CIDRs, loopback, private, all, none", unset: "loopback with an embedded database, else none"},
		{env: "MEDILAB_WORKERS", flag: "workers", value: &s.workers, usual: "512", usage: "deliveries in flight at once",
			rule: "1 or more", valid: func() bool { return s.workers >= 1 }},
		{env: "MEDILAB_DB_CONNECTIONS", flag: "db-connections", value: &s.connections, usual: "24", usage: "the most connections to Postgres",
			rule: fmt.Sprintf("%d or more", leastConnections), valid: func() bool { return s.connections >= leastConnections }},
		{env: "MEDILAB_LOG", flag: "log", value: &s.logText, usage: "log format and level, as json,debug", unset: "text on a terminal, else json; info"},
		{env: "MEDILAB_SHUTDOWN_TIMEOUT", flag: "shutdown-timeout", value: &s.grace, usual: "30s", usage: "how long a stop waits for calls in flight",
			rule: "0s or more", valid: func() bool { return s.grace >= 0 }},
		{env: "MEDILAB_ROLES", flag: "roles", value: &s.rolesText, usual: strings.Join(allRoles, ","), usage: "what of the server runs here"},

		{env: "MEDILAB_CA_FILE", flag: "ca-file", value: &s.caFile, usage: "PEM bundle trusted for calls in addition to the system's"},
		{env: "MEDILAB_CLIENT_CERT_FILE", flag: "client-cert", value: &s.clientCert, usage: "certificate shown to receivers that ask"},
		{env: "MEDILAB_CLIENT_KEY_FILE", flag: "client-key", value: &s.clientKey, usage: "its key"},
		{env: "MEDILAB_PROXY", flag: "proxy", value: &s.proxy, usage: "forward proxy for calls", unset: "none",
			rule: "an http, https or socks5 URL, as http://proxy.local:3128",
			valid: func() bool {
				_, err := sender.ParseProxy(s.proxy)
				return s.proxy == "" || err == nil
			}},
		{env: "MEDILAB_RESOLVER", flag: "resolver", value: &s.resolver, usage: "name server for calls, as 10.0.0.53:53", unset: "the system's",
			rule: "an address and port, as 10.0.0.53:53",
			valid: func() bool {
				_, err := netip.ParseAddrPort(s.resolver)
				return s.resolver == "" || err == nil
			}},
		{env: "MEDILAB_TLS_CERT_FILE", flag: "tls-cert", value: &s.certFile, usage: "certificate to serve HTTPS with",
			rule: "given together with MEDILAB_TLS_KEY_FILE", valid: func() bool { return (s.certFile == "") == (s.keyFile == "") }},
		{env: "MEDILAB_TLS_KEY_FILE", flag: "tls-key", value: &s.keyFile, usage: "its key"},
		{env: "MEDILAB_TRUSTED_PROXIES", flag: "trusted-proxies", value: &s.proxiesText, usage: "networks of load balancers in front, whose X-Forwarded-For names the client", unset: "none"},
		{env: "MEDILAB_PROXY_PROTOCOL", flag: "proxy-protocol", value: &s.proxyHeader, usual: "off", usage: "on: connections of trusted proxies begin with a PROXY header",
			rule: "on or off, and on only with MEDILAB_TRUSTED_PROXIES", valid: func() bool { return s.proxyHeader == "off" || s.proxyHeader == "on" && s.proxiesText != "" }},
		{env: "MEDILAB_DEBUG_ADDR", flag: "debug-addr", value: &s.debugAddr, usage: "loopback address to serve Go profiles at", unset: "none",
			rule: "a loopback address: profiles need no token", valid: func() bool {
				addr, err := net.ResolveTCPAddr("tcp", s.debugAddr)
				return s.debugAddr == "" || err == nil && addr.IP.IsLoopback()
			}},

		accessReasonSetting(&s.reason),

		{env: "MEDILAB_JWT_ISSUER", flag: "jwt-issuer", value: &s.jwt.Issuer, usage: "accept JSON Web Tokens of this issuer"},
		{env: "MEDILAB_JWT_AUDIENCE", flag: "jwt-audience", value: &s.jwt.Audience, usage: "that are made for this audience"},
		{env: "MEDILAB_JWT_JWKS", flag: "jwt-jwks", value: &s.jwt.Keys, usage: "signed by a key of this JWKS: a file or an https URL"},
		{env: "MEDILAB_JWT_CLAIM", flag: "jwt-claim", value: &s.jwt.Claim, usual: "scope", usage: "claim with the rights, as scope or realm_access.roles"},
		{env: "MEDILAB_JWT_SCOPES", flag: "jwt-scopes", value: &s.jwtScopesText, usage: `what its values allow, as "clinic-admin=admin; crm=webhooks:read events:write"`, unset: "values that are scopes"},
		{env: "MEDILAB_OIDC_CLIENT_ID", flag: "oidc-client-id", value: &s.oidcID, usage: "let people sign in to the panel at that issuer (OpenID Connect), as this client"},
		{env: "MEDILAB_OIDC_CLIENT_SECRET", value: &s.oidcSecret, rule: "given with MEDILAB_OIDC_CLIENT_ID", valid: func() bool { return s.oidcSecret == "" || s.oidcID != "" }},
		{env: "MEDILAB_OIDC_SCOPES", flag: "oidc-scopes", value: &s.oidcScopes, usual: "profile", usage: "what to ask the issuer for besides openid"},

		{env: "MEDILAB_ALERT_INACTIVE", flag: "alert-inactive", value: &alerts.InactiveAfter, usual: usual.InactiveAfter.String(), usage: "alert when an active webhook had no call, or one was deactivated, for this long",
			rule: "more than 0", valid: func() bool { return alerts.InactiveAfter > 0 }},
		{env: "MEDILAB_ALERT_SUCCESS_RATE", flag: "alert-success-rate", value: &alerts.SuccessRate, usual: fmt.Sprint(usual.SuccessRate), usage: "alert when a smaller percentage of calls succeeds",
			rule: "between 0 and 100", valid: func() bool { return 0 <= alerts.SuccessRate && alerts.SuccessRate <= 100 }},
		{env: "MEDILAB_ALERT_SUCCESS_RATE_WINDOW", flag: "alert-success-rate-window", value: &alerts.RateWindow, usual: usual.RateWindow.String(), usage: "of the calls within this time, 1m to 1h",
			rule: "between 1m and 1h", valid: func() bool { return time.Minute <= alerts.RateWindow && alerts.RateWindow <= domain.AlertWindowMost }},
		{env: "MEDILAB_ALERT_SUCCESS_RATE_CALLS", flag: "alert-success-rate-calls", value: &alerts.RateCalls, usual: fmt.Sprint(usual.RateCalls), usage: "when there are at least this many",
			rule: "1 or more", valid: func() bool { return alerts.RateCalls >= 1 }},
		{env: "MEDILAB_ALERT_CONSECUTIVE_FAILURES", flag: "alert-consecutive-failures", value: &alerts.Failures, usual: fmt.Sprint(usual.Failures), usage: "alert when more calls than these fail in a row",
			rule: "0 or more", valid: func() bool { return alerts.Failures >= 0 }},
		{env: "MEDILAB_ALERT_SCAN_INTERVAL", flag: "alert-scan-interval", value: &s.alertScan, usual: "15s", usage: "how often to look for alerts that only time raises",
			rule: "10ms or more", valid: func() bool { return s.alertScan >= 10*time.Millisecond }},
		{env: "MEDILAB_SOURCES", flag: "sources", value: &s.sourcesText, usage: "brokers to take events from, with commas between them", unset: "none", secret: true},
		{env: "MEDILAB_SMTP_URL", value: &s.smtpURL, rule: "given together with MEDILAB_ALERT_EMAIL", valid: func() bool { return (s.smtpURL == "") == (s.alertEmail == "") }},
		{env: "MEDILAB_ALERT_EMAIL", flag: "alert-email", value: &s.alertEmail, usage: "addresses that get alerts, with commas between them", unset: "none"},
		{env: "MEDILAB_PUBLIC_URL", flag: "public-url", value: &s.publicURL, usage: "where people reach this server, for links in e-mails and signing in", unset: "by the listen address",
			rule: "an http or https URL", valid: func() bool { return s.publicURL == "" || len(domain.FieldsOf(domain.CheckURL(s.publicURL))) == 0 }},
	}
}

// resolve fills in what the settings mean. Its errors are mistakes in them.
func (s *settings) resolve(notes io.Writer) (err error) {
	if s.logger, err = newLogger(s.logText, notes); err != nil {
		return err
	}
	if s.roles, err = parseRoles(s.rolesText); err != nil {
		return err
	}
	if s.roles[roleRead] && s.database.readURL == "" {
		return errors.New("the role read needs MEDILAB_READ_URL: the standby to read from")
	}
	if s.targetsText == "" && s.database.url == "" {
		s.targetsText = "loopback"
	}
	if s.targets, err = sender.ParseTargets(s.targetsText); err != nil {
		return err
	}
	if s.proxies, err = http.ParseProxies(s.proxiesText); err != nil {
		return fmt.Errorf("MEDILAB_TRUSTED_PROXIES: %w", err)
	}
	s.token = domain.NewSecret(s.tokenText)
	if s.mail, err = s.mailServer(); err != nil {
		return err
	}
	if s.sources, err = sources.Parse(s.sourcesText); err != nil {
		return fmt.Errorf("MEDILAB_SOURCES: %w", err)
	}
	if s.identity, err = s.identityProvider(); err != nil || s.oidcID == "" {
		return err
	}
	s.signIn, err = identity.NewSignIn(identity.SignInConfig{Config: s.jwt, ClientID: s.oidcID, ClientSecret: domain.NewSecret(s.oidcSecret), Ask: s.oidcScopes})
	return err
}

// mailServer returns nil when none is configured.
func (s *settings) mailServer() (*mail.Server, error) {
	if s.smtpURL == "" {
		return nil, nil
	}
	server, err := mail.ParseServer(s.smtpURL, s.alertEmail)
	if err != nil {
		return nil, fmt.Errorf("MEDILAB_SMTP_URL %w", err)
	}
	authorities, err := sender.RootCAs(s.caFile)
	if err == nil && authorities != nil {
		server.Trust(authorities)
	}
	return server, err
}

// panelURL is where people reach the admin panel.
func (s *settings) panelURL() string {
	switch {
	case s.publicURL != "":
		return strings.TrimSuffix(s.publicURL, "/") + admin.Path
	case s.certFile != "":
		return "https://" + s.addr + admin.Path
	}
	return "http://" + s.addr + admin.Path
}

// identityProvider returns nil when none is configured.
func (s *settings) identityProvider() (_ *identity.Provider, err error) {
	if s.jwtScopesText != "" && s.jwt.Issuer == "" {
		return nil, errors.New("MEDILAB_JWT_SCOPES is given, and no MEDILAB_JWT_ISSUER")
	}
	if s.jwt.Scopes, err = identity.ParseScopes(s.jwtScopesText); err != nil {
		return nil, fmt.Errorf("MEDILAB_JWT_SCOPES: %w", err)
	}
	s.jwt.CAFile = s.caFile
	if s.jwt.Audience == "" && s.jwt.Keys == "" && (s.jwt.Issuer == "" || s.oidcID != "") {
		return nil, nil
	}
	return identity.New(s.jwt)
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
