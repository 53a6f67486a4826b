package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/cmd/e2e/harness/browser"
	"github.com/medilab/webhooks/cmd/testbed"
	"github.com/medilab/webhooks/migrations/testdb"
)

// look is how a page is looked at.
type look struct {
	language, scheme string
	width, height    int64
}

var (
	wide, phone = look{width: 1440, height: 1000}, look{width: 390, height: 844}
	// pages are those of the panel, by name; {webhook} and the like are ids of the clinic's.
	pages = [][2]string{
		{"overview", "overview"}, {"webhooks", "webhooks"}, {"form", "webhooks/new"}, {"edit", "webhooks/{webhook}/edit"},
		{"backtest", "webhooks/{webhook}/backtest"}, {"call", "webhooks/{webhook}/calls/{call}"}, {"webhook", "webhooks/{webhook}"},
		{"webhook-calls", "webhooks/{webhook}/calls"}, {"webhook-deliveries", "webhooks/{webhook}/deliveries"}, {"webhook-settings", "webhooks/{webhook}/settings"},
		{"webhook-test", "webhooks/{webhook}/test"}, {"webhook-jobs", "webhooks/{webhook}/replay"}, {"webhook-disclosures", "webhooks/{webhook}/disclosures"},
		{"webhook-history", "webhooks/{webhook}/history"}, {"webhook-job", "webhooks/{webhook}/replay/{job}"}, {"events", "events"}, {"event-new", "events/new"},
		{"parked", "events/parked"}, {"event", "events/{event}"}, {"calls", "calls"}, {"deliveries", "deliveries?state=failed"}, {"alerts", "alerts"},
		{"jobs", "jobs"}, {"job-new", "jobs/new"}, {"job", "jobs/{job}"}, {"patients", "patients?id=1"}, {"audit", "audit"}, {"tokens", "tokens"}, {"system", "system"},
	}
)

// Each page of the panel is accessible by the rules of axe: with the clinic's data, with none, and
// while the API answers 503: all pages once, and some in the other states, or all in each with
// MEDILAB_TEST_ALL. With MEDILAB_TEST_SHOTS it keeps a picture of each page, in both languages,
// schemes and sizes.
func TestEveryPageIsAccessible(t *testing.T) {
	routes, err := os.ReadFile("../../http/admin/assets/routes.js")
	if err != nil {
		t.Fatal(err)
	}
	for _, route := range regexp.MustCompile(`page\('([^']+)'`).FindAllStringSubmatch(string(routes), -1) {
		one := regexp.MustCompile(`/:\w+\?`).ReplaceAllString(route[1], `(/[^/]+)?`)
		one = "^" + regexp.MustCompile(`:\w+`).ReplaceAllString(one, `[^/]+`) + `(\?.*)?$`
		if !slices.ContainsFunc(pages, func(page [2]string) bool { return regexp.MustCompile(one).MatchString(page[1]) }) {
			t.Errorf("no page of %s is looked at", route[1])
		}
	}
	some := pages
	if os.Getenv("MEDILAB_TEST_ALL") == "" {
		some = slices.DeleteFunc(slices.Clone(pages), func(page [2]string) bool {
			return !slices.Contains([]string{"overview", "webhooks", "form", "webhook", "call", "event-new", "patients", "system"}, page[0])
		})
	}
	address, ids := clinicWithTrouble(t)
	t.Run("full", func(t *testing.T) {
		if os.Getenv("MEDILAB_TEST_SHOTS") == "" {
			visit(t, pages, address, token, ids, wide.in("ru", "light"), "")
			visit(t, some, address, token, ids, phone.in("en", "dark"), "")
		} else {
			for _, size := range []look{wide, phone} {
				for _, l := range []look{size.in("ru", "light"), size.in("ru", "dark"), size.in("en", "light"), size.in("en", "dark")} {
					t.Run(l.String(), func(t *testing.T) { visit(t, pages, address, token, ids, l, "") })
				}
			}
		}
	})
	t.Run("failing", func(t *testing.T) { visit(t, some, address, token, ids, phone.in("ru", "light"), failing) })
	t.Run("empty", func(t *testing.T) {
		visit(t, some, browser.Serve(t, testdb.New(t)), browser.Token, nil, wide.in("en", "dark"), "")
	})
}

// failing makes the API answer 503, and its repetitions quick.
const failing = `(() => {
	const [real, later] = [fetch, setTimeout]
	window.setTimeout = (f, ms, ...more) => later(f, ms / 20, ...more)
	window.fetch = (url, ...more) => String(url).endsWith('/session') ? real(url, ...more)
		: Promise.resolve(new Response('{"title":"The service cannot answer right now","status":503}', { status: 503, headers: { 'Content-Type': 'application/problem+json' } }))
})()`

func (l look) in(language, scheme string) look {
	l.language, l.scheme = language, scheme
	return l
}

func (l look) String() string { return fmt.Sprintf("%s-%s-%d", l.language, l.scheme, l.width) }

// visit looks at the pages of the panel; those with ids only if there are some.
func visit(t *testing.T, pages [][2]string, address, token string, ids []string, l look, script string) {
	t.Helper()
	const ofOneBrowser = 10 // whose time is bounded
	for some := range slices.Chunk(pages, ofOneBrowser) {
		visitSome(t, some, address, token, ids, l, script)
	}
}

func visitSome(t *testing.T, pages [][2]string, address, token string, ids []string, l look, script string) {
	t.Helper()
	tab := browser.Open(t, address, l.language)
	tab.Size(l.width, l.height)
	if l.scheme == "dark" {
		tab.Dark()
	}
	tab.Expect("network") // what is not there, and what fails
	tab.Go(address + "/admin")
	tab.Wait(`document.querySelector('input[type=password]')`)
	tab.Accessible("sign-in")
	tab.Fill(map[string]string{"ru": "Токен API", "en": "API token"}[l.language], token)
	tab.Click(map[string]string{"ru": "Войти", "en": "Sign in"}[l.language])
	tab.Wait(`document.querySelector('#menu a')`)
	if script != "" {
		tab.Before(script)
		tab.Reload()
	}
	for _, page := range pages {
		if len(ids) == 0 && strings.Contains(page[1], "{") {
			continue
		}
		const alone = `document.querySelector('main > h1:only-child')` // of a page that there is not
		tab.Wait(`(location.hash = '#/-') && ` + alone)
		tab.Wait(`(location.hash = '#/` + strings.NewReplacer(ids...).Replace(page[1]) + `') && !document.querySelector('[aria-busy]') && document.querySelector('main h1') && !` + alone)
		name := page[0] + "-" + l.String()
		tab.Accessible(name)
		if script == "" && len(ids) > 0 {
			tab.Shot(name)
		}
	}
}

// clinicWithTrouble starts a clinic with something on each page of the panel, and returns ids of it.
func clinicWithTrouble(t *testing.T) (address string, ids []string) {
	t.Helper()
	t.Setenv("MEDILAB_TOKEN", token)
	database := testdb.New(t)
	o := options{binary: harness.Program(t), addr: harness.FreeAddress(t), database: database, data: harness.ShortDir(t), seed: 1, rate: 200, steps: 120}
	if os.Getenv("MEDILAB_TEST_SHOTS") != "" {
		o.rate, o.steps = 5, 300 // charts with something on them
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, o) }()
	t.Cleanup(func() { stop(); t.Log("the clinic ended:", <-ended) })
	address = "http://" + o.addr
	harness.Until(t, "the product is ready", func() bool { return testbed.Status(t.Context(), address+"/readyz") == 200 })
	ask := func(method, path string, body any) (answer map[string]any) {
		t.Helper()
		if err := testbed.Call(t.Context(), token, method, address+"/api/v1"+path, body, &answer); err != nil {
			t.Fatal(err)
		}
		return answer
	}
	first := func(path string) map[string]any {
		t.Helper()
		var found []any
		harness.Until(t, "something in "+path, func() bool { found = ask("GET", path, nil)["items"].([]any); return len(found) > 0 })
		return found[0].(map[string]any)
	}
	gateway := ask("POST", "/webhooks/", map[string]any{
		"name": "Шлюз лаборатории «Инвитро-Запад» (старый, до переезда в новое здание)", "url": "http://127.0.0.1:9/hooks/laboratory", "events": []string{"visit.*", "patient.*"},
		"max_retries": 0, "filters": json.RawMessage(`{"department": ["cardiology", "surgery"]}`), "headers": map[string]string{"X-API-Key": "a key"},
		"recipient": map[string]string{"name": "ООО «Лаборатория»", "country": "RU", "purpose": "анализы"}})["id"].(string)
	ask("PATCH", "/webhooks/"+gateway, map[string]any{"max_concurrent": 4, "timeout": 10})
	ask("POST", "/webhooks/", map[string]any{"name": "Аналитика", "url": "https://analytics.example.com/events", "events": []string{"*"}, "is_active": false})
	db, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(t.Context()) //nolint:errcheck // the database ends with the test
	for _, sql := range []string{`INSERT INTO medilab.event_types VALUES ('lab.lost', '', '')`, `SELECT medilab.emit('lab.lost', '{"note": "a sample"}')`} {
		if _, err := db.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	harness.Until(t, "the clinic is closed", func() bool {
		var step int
		return db.QueryRow(t.Context(), `SELECT step FROM clinic.progress`).Scan(&step) == nil && step >= o.steps
	})
	failed := first("/webhooks/" + gateway + "/calls?status=failed")
	job := ask("POST", "/webhooks/deliveries/retry", map[string]any{"state": "failed", "webhook": gateway, "rate": 1})
	first("/webhooks/alerts?state=open")
	first("/webhooks/events/parked")
	if os.Getenv("MEDILAB_TEST_SHOTS") != "" { // as if the clinic had been open before
		_, err := db.Exec(t.Context(), `INSERT INTO medilab.stats_hours (webhook, hour, calls, tally)
			SELECT webhook, latest - n, latest_calls, latest_tally FROM medilab.stats, generate_series(1, 20) AS n
			WHERE n < 9 OR abs(hashtext(webhook::text || n)) % 3 = 0 ON CONFLICT DO NOTHING`)
		if err != nil {
			t.Fatal(err)
		}
	}
	return address, []string{"{webhook}", gateway, "{call}", failed["call_id"].(string), "{event}", failed["event_id"].(string), "{job}", job["replay_id"].(string)}
}
