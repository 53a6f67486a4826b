package e2e

import (
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/domain"
)

// series holds the label values of each metric that was scraped.
type series map[string]map[string][]string

func scrape(p *product) series {
	p.Helper()
	_, text := p.request("GET", "/metrics", "")
	all := series{}
	for _, line := range regexp.MustCompile(`(?m)^([a-z_]+)(?:\{(.*)\})? \S+$`).FindAllStringSubmatch(string(text), -1) {
		if all[line[1]] == nil {
			all[line[1]] = map[string][]string{}
		}
		for _, label := range regexp.MustCompile(`([a-z_]+)="([^"]*)"`).FindAllStringSubmatch(line[2], -1) {
			all[line[1]][label[1]] = append(all[line[1]][label[1]], label[2])
		}
	}
	return all
}

var (
	inExpr   = regexp.MustCompile(`\b((?:medilab|process|go)_[a-z_]+|up)\b(?:\{([^}]*)\})?`)
	matcher  = regexp.MustCompile(`([a-z_]+)(=~|!~|!=|=)"([^"]*)"`)
	grouping = regexp.MustCompile(`\b(?:by|on|ignoring) \(([^)]*)\)`)
	// scraped are the labels that Prometheus adds.
	scraped = []string{"job", "instance"}
)

// check fails for each name in the expression that no metric of the product has.
func (s series) check(t *testing.T, where, expr string) {
	t.Helper()
	known := slices.Clone(scraped)
	found := inExpr.FindAllStringSubmatch(expr, -1)
	if len(found) == 0 {
		t.Errorf("%s reads no metric: %s", where, expr)
	}
	for _, metric := range found {
		labels, ok := s[metric[1]]
		if !ok && metric[1] != "up" {
			t.Errorf("%s reads %s, which /metrics does not serve", where, metric[1])
		}
		known = append(known, slices.Collect(maps.Keys(labels))...)
		for _, m := range matcher.FindAllStringSubmatch(metric[2], -1) {
			values, ok := labels[m[1]]
			if !ok && !slices.Contains(scraped, m[1]) {
				t.Errorf("%s: %s has no label %s", where, metric[1], m[1])
			} else if ok && m[2] == "=" && !slices.Contains(values, m[3]) {
				t.Errorf("%s: %s has no %s %q, only %q", where, metric[1], m[1], m[3], values)
			}
		}
	}
	for _, group := range grouping.FindAllStringSubmatch(expr, -1) {
		for label := range strings.SplitSeq(group[1], ", ") {
			if !slices.Contains(known, label) {
				t.Errorf("%s groups by %s, which is no label of its metrics: %s", where, label, expr)
			}
		}
	}
}

type alertRule struct {
	Alert, Expr string
	Labels      map[string]string
	Annotations map[string]string
}

func alertRules(t *testing.T) []alertRule {
	t.Helper()
	var file struct{ Groups []struct{ Rules []alertRule } }
	if err := yaml.Unmarshal([]byte(read(t, "docs/deploy/prometheus-rules.yml")), &file); err != nil || len(file.Groups) != 1 {
		t.Fatalf("%v: %+v", err, file)
	}
	return file.Groups[0].Rules
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("../../" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The dashboard and the alert rules read what /metrics serves.
func TestWatchedMetricsAreServed(t *testing.T) {
	t.Parallel()
	p := start(t, "MEDILAB_SMTP_URL=smtp://"+harness.FreeAddress(t)+"?from=hooks@clinic.example", "MEDILAB_ALERT_EMAIL=duty@clinic.example")
	gone := harness.Receive(t, func(w http.ResponseWriter, _ harness.Call) { w.WriteHeader(http.StatusGone) })
	hang := make(chan struct{})
	slow := harness.Receive(t, func(http.ResponseWriter, harness.Call) { <-hang })
	defer close(hang)
	p.register(gone.URL, `{"events":["visit.created"]}`)
	p.register(slow.URL, `{"events":["patient.created"]}`)
	p.trigger(`{"event_type":"visit.created","event_data":{}}`)
	for range 20 { // more than a new receiver gets at once
		p.trigger(`{"event_type":"patient.created","event_data":{}}`)
	}
	var all series
	p.Until("each kind of series is there", func() bool {
		all = scrape(p)
		_, text := p.request("GET", "/metrics", "")
		return slices.Contains(all["medilab_alert_emails_total"]["result"], "failed") && strings.Contains(string(text), "\nmedilab_lanes_full 1\n") &&
			slices.Contains(all["medilab_reader_position"]["reader"], "alerts")
	})

	for _, rule := range alertRules(t) {
		all.check(t, rule.Alert, rule.Expr)
	}
	var dashboard struct {
		Panels []struct {
			Title, Type string
			Targets     []struct{ Expr string }
		}
	}
	text := read(t, "docs/deploy/grafana-dashboard.json")
	if err := json.Unmarshal([]byte(text), &dashboard); err != nil {
		t.Fatal(err)
	}
	for _, panel := range dashboard.Panels {
		if len(panel.Targets) == 0 && panel.Type != "row" {
			t.Errorf("the panel %q shows nothing", panel.Title)
		}
		for _, target := range panel.Targets {
			all.check(t, panel.Title, target.Expr)
		}
	}
	for name := range all {
		base := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_count"), "_sum")
		if strings.HasPrefix(name, "medilab_") && !strings.Contains(text, base) {
			t.Errorf("the dashboard does not show %s", name)
		}
		if strings.HasPrefix(name, "medilab_") && !strings.Contains(read(t, "docs/operations.md"), base) {
			t.Errorf("docs/operations.md does not name %s", name)
		}
	}
}

// Each alert rule, and each alert of the product, has a section that says what to do.
func TestRunbooks(t *testing.T) {
	t.Parallel()
	headings := map[string]map[string]bool{}
	for _, file := range []string{"docs/runbooks.md", "docs/runbooks.ru.md"} {
		headings[file] = map[string]bool{}
		for section := range strings.SplitSeq(read(t, file), "\n### ") {
			heading, text, _ := strings.Cut(section, "\n")
			text, _, _ = strings.Cut(text, "\n## ")
			headings[file][strings.ToLower(heading)] = strings.Count(text, "\n- **") == 3 // means, look at, do
		}
	}
	for file, sections := range headings {
		for _, rule := range alertRules(t) {
			page, heading, _ := strings.Cut(rule.Annotations["runbook_url"], "#")
			if !strings.HasSuffix(page, "/docs/runbooks.md") || heading != strings.ToLower(rule.Alert) || !sections[heading] {
				t.Errorf("%s has no section for the rule %s, whose runbook is %s", file, rule.Alert, rule.Annotations["runbook_url"])
			}
			if rule.Annotations["summary"] == "" || rule.Labels["severity"] == "" {
				t.Errorf("the rule %s has no summary or severity", rule.Alert)
			}
		}
		for _, kind := range domain.AlertKinds {
			if !sections[string(kind)] {
				t.Errorf("%s has no section for the alert %s", file, kind)
			}
		}
	}
}
