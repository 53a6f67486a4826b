package http_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/commands/receipts"
	"github.com/medilab/webhooks/commands/saga"
	"github.com/medilab/webhooks/commands/vault"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	api "github.com/medilab/webhooks/http"
	"github.com/medilab/webhooks/http/sender"
	"github.com/medilab/webhooks/http/texts"
	"github.com/medilab/webhooks/migrations/testdb"
	"github.com/medilab/webhooks/projections"
)

const adminToken = "admin-token-of-the-tests-0123456789"

// service is a whole server on a database of its own.
type service struct {
	t        testing.TB
	url      string
	handler  http.Handler
	drain    func(context.Context) error
	token    string
	commands *commands.Commands
	queries  *projections.Projections
	log      *eventstore.Log
	pool     *pgxpool.Pool
	saga     *saga.Saga
	ready    error

	description routers.Router
}

// describe reads the API's own description.
func describe(t testing.TB, handler http.Handler) routers.Router {
	t.Helper()
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/openapi.json", nil))
	if router, ok := described.Load(w.Body.String()); ok {
		return router.(routers.Router)
	}
	// The validator takes {} for any value but null.
	document, err := openapi3.NewLoader().LoadFromData(bytes.ReplaceAll(w.Body.Bytes(), []byte(`":{}`), []byte(`":{"anyOf":[{},{"type":"null"}]}`)))
	if err != nil {
		t.Fatal(err)
	}
	router, err := gorillamux.NewRouter(document)
	if err != nil {
		t.Fatal(err)
	}
	described.Store(w.Body.String(), router)
	return router
}

// described has the descriptions that were read: it takes a while.
var described sync.Map

func newService(t testing.TB) *service { t.Helper(); return newServiceOn(t, testdb.New(t)) }

var keysets sync.Map // by database

// keysetOf returns the keyset of the database's processes.
func keysetOf(t testing.TB, database string) *vault.Vault {
	t.Helper()
	keyset, err := vault.Open(filepath.Join(t.TempDir(), "keys.json"), false)
	if err != nil {
		t.Fatal(err)
	}
	first, _ := keysets.LoadOrStore(database, keyset)
	return first.(*vault.Vault)
}

// newServiceOn is another process on the same database.
func newServiceOn(t testing.TB, database string, with ...func(*api.Config)) *service {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	pool, err := eventstore.OpenPool(t.Context(), database, 10)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	directory, deliveries := commands.NewDirectory(logger), saga.New(16)
	keys := keysetOf(t, database)
	paths := func(domain.EventType) domain.SubjectPaths { return domain.ParseSubjectPaths("patient_id") }
	directory.Keys = vault.NewKeyring(vault.KeyringConfig{Pool: pool, Paths: paths, Upgrade: saga.HashLines, Open: func(context.Context) (*vault.Vault, error) { return keys, nil }})
	log := eventstore.Open(eventstore.Config{
		Pool: pool, Logger: logger, Envelope: directory.Keys,
		Codec:     func(name string, data []byte) (any, error) { return domain.Decode(name, data) },
		Inline:    []eventstore.Inline{saga.Queue{Saga: deliveries}},
		Observers: []eventstore.Observer{directory.Observe, deliveries.Observe},
	})
	t.Cleanup(log.Close)
	if err := directory.Open(t.Context(), log); err != nil {
		t.Fatal(err)
	}
	targets, err := sender.ParseTargets("loopback")
	if err != nil {
		t.Fatal(err)
	}
	client, err := sender.New(sender.Config{AllowTargets: targets})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	queries := projections.New(pool, log, logger)
	s := &service{t: t, token: adminToken, log: log, pool: pool, saga: deliveries, queries: queries, commands: &commands.Commands{
		Queue: saga.Queue{Pool: pool}, Subjects: queries,
		Log: log, Directory: directory, Vault: keys, Catalog: domain.BuiltinCatalog(), Pool: pool,
		Attempter: &commands.Attempter{Sender: client, WithCertificate: client.WithCertificate, Decrypter: keys, Clock: log.Clock()},
		Failed:    queries,
	}}
	signer, _ := receipts.Open(t.Context(), pool, keys) // none where another process has the key and this one lacks its keyset
	config := api.Config{
		Receipts: signer, Commands: s.commands, Queries: queries, Logger: logger, AdminToken: domain.NewSecret(adminToken),
		Ready: func(context.Context) error { return s.ready },
	}
	for _, change := range with {
		change(&config)
	}
	front := api.NewServer(config)
	s.handler, s.drain = front.Handler(), front.Drain
	server := httptest.NewServer(s.handler)
	t.Cleanup(server.Close)
	s.url = server.URL
	s.description = describe(t, s.handler)
	return s
}

// work makes the service deliver and keep its read models until the test ends.
func (s *service) work() {
	s.t.Helper()
	s.t.Cleanup(s.workUntil(patience))
}

// workUntil is work until stop is called, which cuts off calls after the grace.
func (s *service) workUntil(grace time.Duration) (stop func()) {
	s.t.Helper()
	logger := slog.New(slog.DiscardHandler)
	config := saga.Config{
		Log: s.log, Pool: s.pool, Directory: s.commands.Directory, Attempter: s.commands.Attempter, Failed: s.queries, Logger: logger,
		Grace: grace, Name: s.t.Name(), Dispatch: true, Deliver: true,
	}
	node, err := eventstore.Join(s.t.Context(), s.pool, s.log.Clock(), s.t.Name(), logger, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: patience}, watermill.NopLogger{})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.queries.AddTo(s.t.Context(), router, node); err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	for _, run := range []func(context.Context) error{func(ctx context.Context) error { return s.saga.Run(ctx, config) }, node.Run, func(context.Context) error { return router.Run(context.Background()) }} {
		group.Go(func() {
			if err := run(ctx); err != nil {
				s.t.Error(err)
			}
		})
	}
	return func() {
		if err := router.Close(); err != nil {
			s.t.Error(err)
		}
		cancel()
		group.Wait()
		if err := node.Leave(context.Background()); err != nil { // else the next one waits for its lease to end
			s.t.Error(err)
		}
	}
}

// patience bounds every wait; none is expected to come near it.
const patience = time.Minute

// until waits until the condition holds, looking whenever the log has grown.
func (s *service) until(what string, holds func() bool) {
	s.t.Helper()
	wake, stop := s.log.Appends(nil)
	defer stop()
	deadline := time.After(patience)
	for !holds() {
		select {
		case <-wake:
		case <-time.After(100 * time.Millisecond): // the read models go on without an append
		case <-deadline:
			s.t.Fatalf("not in %s: %s", patience, what)
		}
	}
}

// settled waits until the read models hold the whole log.
func (s *service) settled() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	if err := s.queries.WaitFor(ctx, s.head()); err != nil {
		s.t.Fatal(err)
	}
}

// answer is what came back.
type answer struct {
	t      testing.TB
	what   string
	status int
	header http.Header
	body   []byte
}

// ask sends a request; headers are name and value by turns.
func (s *service) ask(method, path, body string, headers ...string) answer {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if s.token != "" {
		r.Header.Set("Authorization", "Bearer "+s.token)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultTransport.RoundTrip(r) // no redirect is followed
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // read to its end
	data, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	s.conforms(r, body, response, data)
	return answer{s.t, method + " " + path, response.StatusCode, response.Header, data}
}

// conforms checks the exchange against the description of the API: every answer,
// and every request that was accepted.
func (s *service) conforms(r *http.Request, body string, response *http.Response, data []byte) {
	s.t.Helper()
	described := r.Clone(r.Context())
	described.URL.Path, described.URL.RawPath = strings.TrimSuffix(r.URL.Path, "/"), ""
	if strings.Contains(r.URL.Path, "/subjects/") { // a patient's id may hold a slash
		described.URL.Path = r.URL.EscapedPath()
	}
	described.Body = io.NopCloser(strings.NewReader(body))
	if described.Header.Get("Content-Type") == "" && body != "" {
		described.Header.Set("Content-Type", "application/json")
	}
	route, params, err := s.description.FindRoute(described)
	if err != nil {
		if response.StatusCode != http.StatusNotFound && response.StatusCode != http.StatusMethodNotAllowed && r.Method != http.MethodHead {
			s.t.Errorf("%s %s is answered %d and not described: %v", r.Method, r.URL.Path, response.StatusCode, err)
		}
		return
	}
	request := &openapi3filter.RequestValidationInput{
		Request: described, PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true},
	}
	if response.StatusCode < 400 {
		if err := openapi3filter.ValidateRequest(r.Context(), request); err != nil {
			s.t.Errorf("accepted, but not as described: %v", err)
		}
	}
	if response.Header.Get("Content-Type") == "application/x-ndjson" {
		return
	}
	answered := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: request, Status: response.StatusCode, Header: response.Header, Options: request.Options,
	}
	if err := openapi3filter.ValidateResponse(r.Context(), answered.SetBodyBytes(data)); err != nil {
		s.t.Errorf("%s %s: answered %d, not as described: %v", r.Method, r.URL, response.StatusCode, err)
	}
}

// want ends the test unless the answer has the status; an error must be a problem.
func (a answer) want(status int) answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("%s: %d %s, want %d", a.what, a.status, a.body, status)
	}
	if status >= 400 {
		a.problem()
	}
	return a
}

type problemView struct {
	Type, Title, Detail string
	Status              int
	Errors              []fieldView
}

type fieldView struct{ Field, Path, Message string }

// place is the path within the field, or all of the field.
func (f fieldView) place() string {
	if f.Path == "" {
		return f.Field
	}
	return f.Path
}

func (a answer) problem() problemView {
	a.t.Helper()
	var p problemView
	a.into(&p)
	if got := a.header.Get("Content-Type"); got != "application/problem+json" {
		a.t.Errorf("%s: Content-Type %q", a.what, got)
	}
	if p.Type == "" || p.Title == "" || p.Status != a.status {
		a.t.Errorf("%s: an odd problem: %s", a.what, a.body)
	}
	said := []string{p.Title, p.Detail}
	for _, e := range p.Errors {
		said = append(said, e.Message)
	}
	for _, text := range said {
		if _, known := texts.Russian(text); !known && text != "" && a.header.Get("Content-Language") == "en" {
			a.t.Errorf("%s: no Russian for %q", a.what, text)
		}
	}
	return p
}

// refusing checks which fields were refused, in any order.
func (a answer) refusing(fields ...string) {
	a.t.Helper()
	var got []string
	for _, e := range a.want(422).problem().Errors {
		got = append(got, e.place())
	}
	slices.Sort(got)
	slices.Sort(fields)
	if !slices.Equal(got, fields) {
		a.t.Errorf("%s: refused %v, want %v: %s", a.what, got, fields, a.body)
	}
}

func (a answer) into(v any) {
	a.t.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		a.t.Fatalf("%s: %v in %s", a.what, err, a.body)
	}
}

// get returns the value at the keys of the answer, in JSON.
func (a answer) get(keys ...any) string {
	a.t.Helper()
	raw := json.RawMessage(a.body)
	for _, key := range keys {
		switch key := key.(type) {
		case string:
			var object map[string]json.RawMessage
			if err := json.Unmarshal(raw, &object); err != nil {
				a.t.Fatalf("%s: no object with %q in %s", a.what, key, raw)
			}
			raw = object[key]
		case int:
			var list []json.RawMessage
			if err := json.Unmarshal(raw, &list); err != nil || key >= len(list) {
				a.t.Fatalf("%s: no item %d in %s", a.what, key, raw)
			}
			raw = list[key]
		}
	}
	return string(bytes.TrimSpace(raw))
}

// text is get for a string.
func (a answer) text(keys ...any) string {
	a.t.Helper()
	raw := a.get(keys...)
	var s string
	if err := json.Unmarshal([]byte(raw), &s); err != nil {
		a.t.Fatalf("%s: %v is %s", a.what, keys, raw)
	}
	return s
}

// register makes a webhook with the fields given beside what is required.
func (s *service) register(more string) answer {
	s.t.Helper()
	if more != "" {
		more = "," + more
	}
	return s.ask("POST", "/api/v1/webhooks/", `{"name":"CRM","url":"http://127.0.0.1:9/hook","events":["patient.created"]`+more+`}`).want(201)
}

func (s *service) head() eventstore.Position {
	s.t.Helper()
	head, err := s.log.Head(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return head
}

func (s *service) tokenFor(scopes ...domain.Scope) string {
	s.t.Helper()
	_, clear, err := s.commands.CreateToken(s.t.Context(), commands.Caller{Actor: "test"}, fmt.Sprint(scopes), scopes, s.commands.Now().AddDate(1, 0, 0))
	if err != nil {
		s.t.Fatal(err)
	}
	return clear.Reveal()
}
