package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/text/language"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	api "github.com/medilab/webhooks/http"
	"github.com/medilab/webhooks/http/sender"
	"github.com/medilab/webhooks/http/texts"
)

// apiOptions say which server's API a command uses: one on the network or, without, this
// process, which answers from the database as a server would. So each command is written once.
type apiOptions struct {
	database              *databaseOptions
	server, token, caFile string
	reason                string // why payloads are read
	rule                  reasonRule
}

func (o *apiOptions) table() []setting {
	return []setting{
		{env: "MEDILAB_SERVER", flag: "server", value: &o.server, usage: "ask this server, as https://webhooks.clinic.example, instead of the database"},
		{env: "MEDILAB_TOKEN", flag: "token", value: &o.token, usage: "token for the server", secret: true},
		{env: "MEDILAB_CA_FILE", flag: "ca-file", value: &o.caFile, usage: "PEM bundle trusted in addition to the system's"},
		o.database.eventTypesSetting(),
	}
}

// readingTable are the settings of a command that shows payloads too.
func (o *apiOptions) readingTable() []setting {
	return append(o.table(), reasonSetting(&o.reason), accessReasonSetting(&o.rule))
}

// apiClient asks an API.
type apiClient struct {
	http    *http.Client
	root    string // with /api/v1
	token   string
	reason  string   // see X-Access-Reason
	russian bool     // texts of answers
	session *session // nil: it is on the network
}

// use runs f with a client for the command.
func (o *apiOptions) use(c *cobra.Command, do func(*apiClient) error) error {
	f := func(client *apiClient) error {
		client.reason, client.russian = o.reason, answersInRussian(c)
		return wrongGiven(c, do(client))
	}
	if o.server != "" {
		client, err := o.remote()
		if err != nil {
			return err
		}
		return f(client)
	}
	return o.database.use(c, func(s *session) error {
		return f(newLocalClient(s, api.Config{
			ReasonRequired: o.rule == reasonRequired,
			Logger:         slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelError})), // an answer does not say why the service failed
		}))
	})
}

// run returns the RunE of a command that asks an API.
func (o *apiOptions) run(do func(*cobra.Command, *apiClient, []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		return o.use(c, func(a *apiClient) error { return do(c, a, args) })
	}
}

// remote returns a client of the server. It sends the token nowhere else.
func (o *apiOptions) remote() (*apiClient, error) {
	root, err := url.Parse(o.server)
	if err != nil || root.Scheme != "http" && root.Scheme != "https" || root.Host == "" || strings.Trim(root.Path, "/") != "" {
		return nil, usageError{errors.New("--server must be the root of a server, as https://webhooks.clinic.example")}
	}
	if o.token == "" {
		return nil, usageError{errors.New("give the token for the server by --token or MEDILAB_TOKEN")}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	trusted, err := sender.RootCAs(o.caFile)
	if err != nil {
		return nil, fmt.Errorf("%w; check MEDILAB_CA_FILE", err)
	}
	transport.TLSClientConfig = &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS12}
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &apiClient{http: &http.Client{Transport: transport, CheckRedirect: stay}, root: root.Scheme + "://" + root.Host + "/api/v1", token: o.token}, nil
}

// newLocalClient returns a client that this process answers, with every right.
func newLocalClient(s *session, config api.Config) *apiClient {
	token := rand.Text() + rand.Text()
	config.Commands, config.Queries, config.Standby = s.commands, s.queries(), s.standby
	config.AdminToken, config.AdminActor = domain.NewSecret(token), caller().Actor
	server := api.NewServer(config)
	return &apiClient{http: &http.Client{Transport: inProcess(server.Handler())}, root: "http://localhost/api/v1", token: token, session: s}
}

// inProcess returns a transport whose requests the handler answers, over pipes.
func inProcess(handler http.Handler) *http.Transport {
	conns := make(pipes)
	// What goes wrong in the handler, it has logged itself.
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = server.Serve(conns) }() // as long as the process lives
	return &http.Transport{DialContext: conns.dial, DisableKeepAlives: true}
}

// pipes is a listener for connections within this process.
type pipes chan net.Conn

func (p pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p <- patientConn{server}:
		return client, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (p pipes) Accept() (net.Conn, error) { return <-p, nil }

func (p pipes) Close() error { return nil }

func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// patientConn is a connection whose client, perhaps a pager, may read as slowly as it likes.
type patientConn struct{ net.Conn }

func (patientConn) SetWriteDeadline(time.Time) error { return nil }

// get reads what the path has into v.
func (a *apiClient) get(ctx context.Context, path string, query url.Values, v any) error {
	return a.do(ctx, http.MethodGet, path+"?"+query.Encode(), nil, v)
}

// post sends a body, and reads the answer into v.
func (a *apiClient) post(ctx context.Context, path string, body, v any) error {
	var b bytes.Buffer
	if err := printJSON(&b, body); err != nil {
		return err
	}
	return a.do(ctx, http.MethodPost, path, &b, v)
}

func (a *apiClient) do(ctx context.Context, method, path string, body io.Reader, v any) error {
	response, err := a.ask(ctx, method, path, body, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("the server's answer is not that of this API; check MEDILAB_SERVER: %w", err)
	}
	return nil
}

// ask makes a request, and returns the answer, to be closed, if it is good.
func (a *apiClient) ask(ctx context.Context, method, path string, body io.Reader, header http.Header) (*http.Response, error) {
	const largest = 16 << 20 // of refusals: all mistakes of a large file of webhooks
	r, err := http.NewRequestWithContext(ctx, method, a.root+path, body)
	if err != nil {
		return nil, err
	}
	maps.Copy(r.Header, header)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+a.token)
	if a.russian {
		r.Header.Set("Accept-Language", "ru")
	}
	if a.reason != "" {
		r.Header.Set(api.AccessReason, url.PathEscape(a.reason))
	}
	response, err := a.http.Do(r)
	if err != nil {
		if dial, ok := errors.AsType[*net.OpError](err); ok && dial.Op == "dial" {
			return nil, fmt.Errorf("no server answers at %s (%w); start one with `medilab-webhooks serve`, or name another by --server", r.URL.Host, dial.Err)
		}
		return nil, fmt.Errorf("ask the server: %w; check MEDILAB_SERVER, and that it runs", err)
	}
	if response.StatusCode >= http.StatusOK && response.StatusCode < http.StatusMultipleChoices {
		return response, nil
	}
	defer response.Body.Close() //nolint:errcheck // it was only read
	refusal, err := io.ReadAll(io.LimitReader(response.Body, largest))
	if err != nil {
		return nil, fmt.Errorf("read the server's answer: %w", err)
	}
	if speaksRussian() { // also when only errors are for people
		refusal = texts.Answer(language.Russian, refusal)
	}
	err = refusedBy(response.StatusCode, refusal)
	if _, ours := errors.AsType[*domain.Error](err); ours && response.StatusCode == http.StatusNotFound {
		err = fmt.Errorf("%w; `medilab-webhooks %s` shows them", err, listing(r.URL.Path))
	}
	return nil, err
}

// listing returns the command that lists what the path names one of.
func listing(path string) string {
	switch {
	case strings.Contains(path, "/events/"):
		return "deliveries --ids"
	case strings.Contains(path, "/replays/"):
		return "replay list"
	}
	return "webhooks list"
}

// kindsOfStatus are the kinds of errors that matter to commands.
var kindsOfStatus = map[int]domain.Kind{
	http.StatusUnprocessableEntity: domain.KindInvalid, http.StatusBadRequest: domain.KindMalformed, http.StatusConflict: domain.KindConflict,
	http.StatusRequestEntityTooLarge: domain.KindTooLarge, http.StatusNotFound: domain.KindNotFound,
	http.StatusUnauthorized: domain.KindUnauthorized, http.StatusForbidden: domain.KindForbidden, http.StatusGone: domain.KindGone,
}

// refusedBy returns the error that an answer is.
func refusedBy(status int, answer []byte) error {
	var p struct {
		Title, Detail string
		Errors        []struct{ Field, Path, Message string }
	}
	if err := json.Unmarshal(answer, &p); err != nil || p.Title == "" {
		return fmt.Errorf("the server answered %d; check MEDILAB_SERVER", status)
	}
	refused := &domain.Error{Kind: kindsOfStatus[status], Message: cmp.Or(p.Detail, p.Title)}
	for _, e := range p.Errors {
		if speaksRussian() {
			e.Message = "— " + e.Message // which does not go on with the field
		}
		if e.Field == api.AccessReason {
			return wrongFlags(domain.Invalid("reason", e.Message))
		}
		refused.Fields = append(refused.Fields, domain.FieldError{Field: cmp.Or(e.Path, e.Field), Message: e.Message})
	}
	if refused.Kind == domain.KindInvalid {
		return usageError{refused}
	}
	return refused
}

// apiTrigger triggers events through an API.
type apiTrigger struct{ *apiClient }

// EventFields implements trigger: the server has its own types, and says what it refuses.
func (a apiTrigger) EventFields(domain.EventTriggered) []domain.FieldError { return nil }

// CheckData implements trigger, as EventFields.
func (a apiTrigger) CheckData(context.Context, domain.EventTriggered) error { return nil }

// TriggerEvent implements trigger. The server names the caller by the token.
func (a apiTrigger) TriggerEvent(ctx context.Context, _ commands.Caller, event commands.NewEvent, _ string) (accepted commands.Accepted, err error) {
	err = a.post(ctx, "/webhooks/events/trigger", eventBody(event), &accepted)
	return accepted, err
}

// TriggerBatch implements trigger.
func (a apiTrigger) TriggerBatch(ctx context.Context, _ commands.Caller, events []commands.NewEvent, _ string) ([]commands.Accepted, error) {
	bodies := make([]any, len(events))
	for i, e := range events {
		bodies[i] = eventBody(e)
	}
	var answer struct{ Items []commands.Accepted }
	err := a.post(ctx, "/webhooks/events/trigger/batch", map[string]any{"events": bodies}, &answer)
	return answer.Items, err
}

// eventBody is an event as the API takes it.
func eventBody(e commands.NewEvent) any {
	return struct {
		EventID       domain.EventID  `json:"event_id,omitzero"`
		EventType     string          `json:"event_type"`
		EventData     json.RawMessage `json:"event_data"`
		Source        string          `json:"source"`
		CorrelationID string          `json:"correlation_id,omitempty"`
		OccurredAt    time.Time       `json:"occurred_at,omitzero"`
		Deliver       bool            `json:"deliver"`
		domain.Trace
	}{e.ID, e.Event.EventType, e.Event.EventData, e.Event.Source, e.Event.CorrelationID, e.Event.OccurredAt, !e.Event.Imported, e.Event.Trace}
}
