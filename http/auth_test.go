package http_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	api "github.com/medilab/webhooks/http"
	"github.com/medilab/webhooks/migrations/testdb"
)

func TestScopes(t *testing.T) {
	t.Parallel()
	s := newServiceOn(t, testdb.New(t), func(c *api.Config) { c.Proxies = api.Proxies{netip.MustParsePrefix("127.0.0.1/32")} })
	s.work()                                   // answers wait for the read models
	client := netip.MustParseAddr("192.0.2.0") // one for each who guesses: they are slowed down
	s.register("")
	routes := map[domain.Scope][]string{
		domain.ScopeWebhooksRead: {
			"GET /api/v1/webhooks", "GET /api/v1/webhooks/1", "GET /api/v1/webhooks/1/history", "GET /api/v1/webhooks/1/stats", "GET /api/v1/webhooks/system/stats",
			"GET /api/v1/webhooks/1/calls", "GET /api/v1/webhooks/1/calls/1", "GET /api/v1/webhooks/events", "GET /api/v1/webhooks/events/1",
			"GET /api/v1/webhooks/events/1/deliveries", "GET /api/v1/webhooks/events/1/explain", "POST /api/v1/webhooks/1/backtest", "GET /api/v1/webhooks/1/replays/1",
			"GET /api/v1/webhooks/1/replays", "GET /api/v1/webhooks/replays", "GET /api/v1/webhooks/replays/1",
		},
		domain.ScopeWebhooksWrite: {
			"POST /api/v1/webhooks", "PUT /api/v1/webhooks/1", "POST /api/v1/webhooks/1/activate", "POST /api/v1/webhooks/1/rotate-secret",
			"POST /api/v1/webhooks/1/deactivate", "POST /api/v1/webhooks/1/test", "POST /api/v1/webhooks/deliveries/1/retry", "POST /api/v1/webhooks/deliveries/1/cancel",
		},
		domain.ScopeReplaysWrite: {
			"POST /api/v1/webhooks/1/replay", "POST /api/v1/webhooks/deliveries/retry", "POST /api/v1/webhooks/replays/1/pause", "POST /api/v1/webhooks/replays/1/resume",
			"POST /api/v1/webhooks/replays/1/cancel", "POST /api/v1/webhooks/1/replays/1/pause", "POST /api/v1/webhooks/1/replays/1/resume", "POST /api/v1/webhooks/1/replays/1/cancel",
		},
		domain.ScopeAuditRead: {
			"GET /api/v1/audit/events", "GET /api/v1/webhooks/1/history", "GET /api/v1/webhooks/events/1/deliveries", "GET /api/v1/webhooks/events/1/explain",
		},
		domain.ScopeEventsWrite: {"POST " + trigger, "POST " + trigger + "/batch"},
		domain.ScopeAdmin:       {"POST /api/v1/webhooks/events/parked/1/retry", "POST /api/v1/webhooks/events/parked/1/discard"},
	}
	tokens := map[domain.Scope]string{domain.ScopeAdmin: s.tokenFor(domain.ScopeAdmin)}
	for scope := range routes {
		tokens[scope] = s.tokenFor(scope)
	}
	for scope, list := range routes {
		for _, route := range list {
			method, path, _ := strings.Cut(route, " ")
			for has, token := range tokens {
				s.token = token
				got := s.ask(method, path, "{}")
				if allowed := slices.Contains(routes[has], route) || has == domain.ScopeAdmin; allowed != (got.status != 403) {
					t.Errorf("%s with %s: %d", route, has, got.status)
				} else if !allowed && !strings.Contains(got.problem().Detail, string(scope)) {
					t.Errorf("%s with %s: the scope that it needs is not named: %s", route, has, got.body)
				}
			}
			for name, token := range map[string]string{"none": "", "another": "mlw_unknown", "nearly": adminToken + "x"} {
				s.token = token
				client = client.Next()
				if got := s.ask(method, path, "{}", "X-Forwarded-For", client.String()).want(401); got.header.Get("WWW-Authenticate") == "" {
					t.Errorf("%s with %s: no WWW-Authenticate", route, name)
				}
			}
		}
	}
	for _, token := range tokens {
		s.token = token
		s.ask("GET", "/api/v1/webhooks/events/types", "").want(200)
	}
}

// Of the scopes that the description names, each, or all that it joins by "and", suffice for an
// operation, and no others do.
func TestScopesAreAsDescribed(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.work() // answers wait for the read models
	s.register("")
	var document struct {
		Paths map[string]map[string]struct{ OperationID, Description string }
	}
	if err := json.Unmarshal(s.ask("GET", "/api/v1/openapi.json", "").want(200).body, &document); err != nil {
		t.Fatal(err)
	}
	tokens := map[string]string{}
	with := func(scopes []domain.Scope) *service {
		key := fmt.Sprint(scopes)
		if tokens[key] == "" {
			tokens[key] = s.tokenFor(scopes...)
		}
		s.token = tokens[key]
		return s
	}
	without := func(scopes ...domain.Scope) (rest []domain.Scope) {
		for _, scope := range domain.Scopes {
			if scope != domain.ScopeAdmin && !slices.Contains(scopes, scope) {
				rest = append(rest, scope)
			}
		}
		return rest
	}
	variables := strings.NewReplacer("{webhook}", "1", "{parked}", "1", "{model}", "stats", "{subject}", "17", "{event}", "1", "{delivery}", "1", "{call}", "1", "{replay}", "1", "{alert}", "1", "{token}", "1")
	// A request that ends by itself, and of those with parts that need more one with each.
	queries := map[string]string{"stream": "?kinds=none"}
	private := map[string][2]string{"search": {"?subject=17", ""}, "backtestDraft": {"", `{"events":["*"],"filters":{"a":1}}`}}
	named := regexp.MustCompile("`([a-z:]+)`")
	checked := 0
	for _, method := range []string{"get", "post", "put", "patch", "delete"} { // what is deleted is asked for before
		for template, item := range document.Paths {
			o, ok := item[method]
			if !ok || o.Description == "No token." {
				continue
			}
			checked++
			method, path := strings.ToUpper(method), variables.Replace(template)
			status := func(scopes []domain.Scope, query, body string) int {
				return with(scopes).ask(method, path+cmp.Or(query, queries[o.OperationID]), body).status
			}
			body := "{}"
			if method == "GET" {
				body = ""
			}
			sentence, rest, _ := strings.Cut(o.Description, ".")
			var scopes []domain.Scope
			for _, match := range named.FindAllStringSubmatch(sentence, -1) {
				scopes = append(scopes, domain.Scope(match[1]))
			}
			suffice := [][]domain.Scope{scopes}
			lack := [][]domain.Scope{}
			if !strings.Contains(sentence, " and ") {
				suffice = nil
				for _, scope := range scopes {
					suffice = append(suffice, []domain.Scope{scope})
				}
				lack = append(lack, without(scopes...))
			} else {
				for _, scope := range scopes {
					lack = append(lack, without(scope))
				}
			}
			if sentence == "Any valid token" {
				suffice, lack = [][]domain.Scope{{domain.ScopeEventsWrite}, {domain.ScopeAuditRead}}, nil
			}
			if len(suffice) == 0 {
				t.Errorf("%s %s: no scope is in %q", method, template, o.Description)
			}
			for _, scopes := range lack {
				if got := status(scopes, "", body); got != 403 {
					t.Errorf("%s %s with %v: %d, described: %s", method, template, scopes, got, o.Description)
				}
			}
			for _, scopes := range suffice {
				if got := status(scopes, "", body); got == 403 || got == 401 {
					t.Errorf("%s %s with %v: %d, described: %s", method, template, scopes, got, o.Description)
				}
				part, is := private[o.OperationID]
				if is != strings.Contains(rest, " is 403.") {
					t.Errorf("%s %s needs more for a part: %v, described: %s", method, template, is, o.Description)
				}
				if !is {
					continue
				}
				if got := status(scopes, part[0], part[1]); got != 403 {
					t.Errorf("%s %s with %v and a part that needs more: %d", method, template, scopes, got)
				}
				if got := status(append(scopes, domain.ScopePayloadsRead), part[0], part[1]); got == 403 {
					t.Errorf("%s %s with %v and payloads:read is refused", method, template, scopes)
				}
			}
		}
	}
	if checked < 60 {
		t.Errorf("%d operations are checked", checked)
	}
}

// A node that follows the others by nothing but what it is asked for, and then loses
// the database, believes in no token for longer than a second.
func TestTokensEndOnANodeThatIsCutOff(t *testing.T) {
	t.Parallel()
	database := testdb.New(t)
	a, b := newServiceOn(t, database), newServiceOn(t, database)
	caller := commands.Caller{Actor: "test"}
	var texts []string
	var ids []domain.TokenID
	for range 2 {
		token, clear, err := a.commands.CreateToken(t.Context(), caller, "crm", []domain.Scope{domain.ScopeWebhooksRead}, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		texts, ids = append(texts, clear.Reveal()), append(ids, token.ID)
	}
	// ends asks until the answer is the one wanted. What is asked for later than a second
	// after the time must not be answered as before.
	ends := func(token string, since time.Time, want int) {
		t.Helper()
		for {
			asked := time.Now()
			b.token = token
			switch got := b.ask("GET", "/api/v1/webhooks/events/types", "").status; {
			case got == want:
				return
			case got != 200:
				t.Fatalf("got %d", got)
			case asked.Sub(since) > time.Second:
				t.Fatalf("it is still believed after %s", asked.Sub(since))
			}
		}
	}
	for _, b.token = range texts {
		b.ask("GET", "/api/v1/webhooks/events/types", "").want(200)
	}
	if err := a.commands.RevokeToken(t.Context(), caller, ids[0]); err != nil {
		t.Fatal(err)
	}
	ends(texts[0], time.Now(), 401)

	for range b.pool.Config().MaxConns { // none answers any more
		conn, err := b.pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Release()
	}
	ends(texts[1], time.Now(), 503)
	b.token = adminToken // which nobody can revoke
	b.ask("GET", "/api/v1/webhooks/events/types", "").want(200)
}

func TestTokensEnd(t *testing.T) {
	s := newService(t)
	caller := commands.Caller{Actor: "test"}
	create := func(expires time.Time) (domain.Token, string) {
		t.Helper()
		token, clear, err := s.commands.CreateToken(t.Context(), caller, "crm", []domain.Scope{domain.ScopeWebhooksRead}, expires)
		if err != nil {
			t.Fatal(err)
		}
		return token, clear.Reveal()
	}
	_, expired := create(s.commands.Now())
	revoked, revokedText := create(time.Time{})
	_, valid := create(s.commands.Now().Add(time.Hour))
	for range 2 { // revoking twice is once
		if err := s.commands.RevokeToken(t.Context(), caller, revoked.ID); err != nil {
			t.Fatal(err)
		}
	}
	for token, want := range map[string]int{expired: 401, revokedText: 401, valid: 200} {
		s.token = token
		s.ask("GET", "/api/v1/webhooks", "").want(want)
	}
	if err := s.commands.RevokeToken(t.Context(), caller, domain.TokenID{}); !errors.Is(err, domain.KindNotFound) {
		t.Errorf("got %v", err)
	}
	events, err := s.log.Load(t.Context(), revoked.ID.Stream())
	if err != nil || len(events) != 2 || strings.Contains(string(events[0].Data), revokedText) {
		t.Errorf("%v, %v", events, err)
	}
}
