package e2e

import (
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/medilab/webhooks/cmd/e2e/harness"
)

// pages returns the texts of all pages by their names, from the repository's root.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{"README.md": read(t, "README.md")}
	err := filepath.WalkDir("../../docs", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".md" {
			name := strings.TrimPrefix(filepath.ToSlash(path), "../../")
			all[name] = read(t, name)
		}
		return err
	})
	if err != nil || len(all) < 40 {
		t.Fatalf("%d pages, %v", len(all), err)
	}
	return all
}

var (
	codeBlock  = regexp.MustCompile("(?ms)^ *```([a-z]*)[^\n]*\n(.*?)^ *```")
	link       = regexp.MustCompile(`\]\(([^)#\s]*)#?([^)\s]*)\)`)
	heading    = regexp.MustCompile(`(?m)^##* (.*)$`)
	notInLinks = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

// Every link of every page leads to a file of the repository, and to a heading there. The pages of the
// index are all, each in the language of the index where there is one.
func TestLinks(t *testing.T) {
	t.Parallel()
	all := pages(t)
	anchors := map[string][]string{}
	for name, text := range all {
		for _, h := range heading.FindAllStringSubmatch(codeBlock.ReplaceAllString(text, ""), -1) {
			title := regexp.MustCompile(`\]\([^)]*\)`).ReplaceAllString(h[1], "")
			anchors[name] = append(anchors[name], strings.ReplaceAll(notInLinks.ReplaceAllString(strings.ToLower(title), ""), " ", "-"))
		}
	}
	linked := map[string][]string{}
	for name, text := range all {
		for _, match := range link.FindAllStringSubmatch(strings.ReplaceAll(codeBlock.ReplaceAllString(text, ""), "\n", " "), -1) {
			if strings.Contains(match[1], "://") || strings.HasPrefix(match[1], "mailto:") {
				continue
			}
			target := name
			if match[1] != "" {
				target = filepath.ToSlash(filepath.Join(filepath.Dir(name), match[1]))
			}
			linked[name] = append(linked[name], target)
			if _, err := os.Stat("../../" + target); err != nil {
				t.Errorf("%s links to %s: %v", name, match[1], err)
			} else if match[2] != "" && !slices.Contains(anchors[target], match[2]) {
				t.Errorf("%s links to %s, which has no heading #%s", name, target, match[2])
			}
		}
	}
	for name := range all {
		if filepath.Dir(name) != "docs" || strings.HasPrefix(name, "docs/README") {
			continue
		}
		english := strings.Replace(name, ".ru.md", ".md", 1)
		russian := strings.TrimSuffix(english, ".md") + ".ru.md"
		if _, translated := all[russian]; !translated {
			russian = english
		}
		if _, translated := all[english]; !translated {
			english = russian // the guide
		}
		if !slices.Contains(linked["docs/README.md"], english) || !slices.Contains(linked["docs/README.ru.md"], russian) {
			t.Errorf("the indexes lack %s or %s", english, russian)
		}
		if english != russian && (!slices.Contains(linked[english], russian) || !slices.Contains(linked[russian], english)) {
			t.Errorf("%s and %s do not link to each other", english, russian)
		}
	}
}

// elsewhere are commands that TestCommandsOfPages does not run.
var elsewhere = regexp.MustCompile(strings.Join([]string{
	`^(make|apt-get|systemctl|docker|kubectl|helm|nats|jq) `,                        // other programs: deploy_test.go, clients, commands/sources
	`^(cat|mkdir|openssl|printf|cp|cd|createdb|pg_\w+|PGPASSWORD=\S+) `, `RESTORED`, // restore_test.go
	`OWNER_URL`,                                          // cmd/security/role_test.go
	` (serve|listen|receive)\b`, `--follow`, `/stream\?`, // they run until they are ended
	`^medilab-webhooks archive `,                   // archive_test.go; there must be a log of months
	`^medilab-webhooks emit --file`,                // its file is above it: cmd/medilab-webhooks/emitimport_test.go
	`/var/lib/`, `^MEDILAB_(SOURCES|OIDC|JWT)\w*=`, // settings of other programs
}, "|"))

// refusal is what some commands are there to show.
var refusal = regexp.MustCompile(`"field":"(event_type|max_retries)"`)

// commandsOf returns the commands of the page's blocks, each with the lines that it goes on in.
func commandsOf(text string) (blocks [][]string) {
	begins := regexp.MustCompile(`^(curl|medilab-webhooks|jq|[A-Z_]+=\S+) `)
	for _, block := range codeBlock.FindAllStringSubmatch(text, -1) {
		if !slices.Contains([]string{"", "sh", "console"}, block[1]) {
			continue
		}
		var commands []string
		prompts := strings.Contains("\n"+block[2], "\n$ ")
		lines := strings.Split(block[2], "\n")
		for len(lines) > 0 {
			line, prompted := strings.CutPrefix(strings.TrimSpace(lines[0]), "$ ")
			lines = lines[1:]
			if prompts && !prompted || !prompts && block[1] == "" && !begins.MatchString(line) || line == "" || line[0] == '#' {
				continue
			}
			for len(lines) > 0 && (strings.HasSuffix(line, `\`) || strings.HasSuffix(line, "|") || strings.Count(line, "'")%2 == 1) {
				line += "\n" + lines[0]
				lines = lines[1:]
			}
			commands = append(commands, line)
		}
		if commands != nil {
			blocks = append(blocks, commands)
		}
	}
	return blocks
}

// The commands of the pages work, on a server that has what they speak of. A translation has the same
// commands, but for texts.
func TestCommandsOfPages(t *testing.T) {
	t.Parallel()
	installed(t, "curl")
	all := pages(t)
	in := harness.Receive(t, func(w http.ResponseWriter, c harness.Call) {
		if strings.Contains(string(c.Body), `"fails"`) {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	p := start(t)
	for n := range 7 {
		p.register(in.URL, fmt.Sprintf(`{"name":"webhook %d","events":["patient.*"],"sequence":true,"max_retries":0}`, n+1))
	}
	home, texts := t.TempDir(), regexp.MustCompile(`"[^"]*"|\s+#.*`)
	ran := 0
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if filepath.Dir(name) != "docs" || strings.HasSuffix(name, ".ru.md") {
			continue
		}
		blocks := commandsOf(all[name])
		if translation, ok := all[strings.TrimSuffix(name, ".md")+".ru.md"]; ok {
			plain := func(blocks [][]string) string { return texts.ReplaceAllString(fmt.Sprint(blocks), "") }
			if a, b := plain(blocks), plain(commandsOf(translation)); a != b {
				t.Errorf("%s and its translation have the commands\n%s\n%s", name, a, b)
			}
		}
		for _, commands := range blocks {
			commands = slices.DeleteFunc(commands, elsewhere.MatchString)
			if len(commands) == 0 {
				continue
			}
			ran += len(commands)
			script := p.fill(in, home, strings.Join(commands, "\n"))
			c := exec.CommandContext(t.Context(), "sh", "-euc", script)
			c.Dir = home
			c.Env = append(p.environment(), "PATH="+filepath.Dir(p.Program)+":"+os.Getenv("PATH"), "TOKEN="+p.token, "AUDITOR="+p.token)
			if out, err := c.CombinedOutput(); err != nil && !refusal.Match(out) {
				t.Errorf("%s: %v:\n%s\n%s", name, err, script, out)
			}
		}
	}
	if ran < 40 {
		t.Errorf("only %d commands were run", ran)
	}
}

// fill replaces what the script names by what the server has, a delivery that has failed among it.
func (p *product) fill(in *harness.Receiver, home, script string) string {
	p.Helper()
	root := "http://" + p.Addr
	script = strings.NewReplacer(
		"https://webhooks.clinic.example", root, "http://127.0.0.1:8000", root, "$BASE/webhooks", root+"/api/v1/webhooks", "$BASE", root, "$URL", root, "$API", root+"/api/v1",
		"MEDILAB_TOKEN=...", "MEDILAB_TOKEN="+p.token, "/mnt/elsewhere", home, "curl ", "curl -sS --fail-with-body --max-time 60 ",
	).Replace(script)
	if strings.Contains(script, "550e8400") {
		_, id := p.newToken("crm")
		script = strings.ReplaceAll(script, "550e8400-e29b-41d4-a716-446655440000", id)
	}
	if !regexp.MustCompile(`019|\$(UPDATED|DELIVERY|CALL|ALERT_ID)|12345`).MatchString(script) {
		return script
	}
	p.api(200, "PATCH", "/webhooks/1", `{"auth":null,"fields":null,"max_concurrent":null,"rate_limit":null}`, nil)
	event := p.trigger(`{"event_type":"patient.created","event_data":{"patient_id":12345,"how":"fails"}}`)
	var failed, alerts, calls struct{ Items []map[string]any }
	p.Until("its deliveries have failed, which an alert says", func() bool {
		p.api(200, "GET", "/webhooks/deliveries?state=failed&webhook=1&limit=1", "", &failed)
		p.api(200, "GET", "/webhooks/alerts?state=open&limit=1", "", &alerts)
		return len(failed.Items) == 1 && failed.Items[0]["event_id"] == event && len(alerts.Items) > 0
	})
	delivery := fmt.Sprint(failed.Items[0]["delivery_id"])
	p.api(200, "GET", "/webhooks/1/calls?event_id="+event, "", &calls)
	for _, call := range in.All() {
		if call.Delivery() == delivery {
			if err := os.WriteFile(filepath.Join(home, "body.json"), call.Body, 0o600); err != nil {
				p.Fatal(err)
			}
		}
	}
	var replay struct {
		ID string `json:"replay_id"`
	}
	p.api(202, "POST", "/webhooks/7/replay", `{"from":"2025-01-01T00:00:00Z","to":"2100-01-01T00:00:00Z","rate":0.01}`, &replay)
	return strings.NewReplacer(
		"0190163d-8694-739b-aea5-966c26f8ad91", event, "019c1290-3a55-7b6f-8000-5f1d2c3b4a59", event, "$UPDATED", event, "0190…a1", delivery, "$DELIVERY", delivery,
		"$CALL", fmt.Sprint(calls.Items[0]["call_id"]), "$ALERT_ID", fmt.Sprint(alerts.Items[0]["alert_id"]), "019a...", replay.ID,
	).Replace(script)
}
