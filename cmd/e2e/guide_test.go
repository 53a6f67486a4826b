package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/medilab/webhooks/cmd/e2e/harness"
)

// block is a code block of the guide, under its nearest heading.
type block struct {
	heading, language, text string
}

// guide reads the code blocks of the user's own text.
func guide(t *testing.T) []block {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "guide.ru.md"))
	if err != nil {
		t.Fatal(err)
	}
	var blocks []block
	var heading string
	var open *block
	for line := range strings.Lines(string(text)) {
		switch {
		case strings.HasPrefix(line, "```") && open == nil:
			open = &block{heading: heading, language: strings.TrimSpace(strings.TrimPrefix(line, "```"))}
		case strings.HasPrefix(line, "```"):
			blocks = append(blocks, *open)
			open = nil
		case open != nil:
			open.text += line
		case strings.HasPrefix(line, "#"):
			heading = strings.TrimSpace(strings.TrimLeft(line, "#"))
		}
	}
	return blocks
}

func one(t *testing.T, blocks []block, heading, language string) string {
	t.Helper()
	for _, b := range blocks {
		if b.heading == heading && b.language == language {
			return b.text
		}
	}
	t.Fatalf("the guide has no %s block under %q", language, heading)
	return ""
}

// httpRequest is one request as the guide prints it.
type httpRequest struct{ method, path, body string }

var requestLine = regexp.MustCompile(`(?m)^(GET|POST|PUT|DELETE) (/\S+)$`)

// requests takes a block of the guide apart, which may hold several.
func requests(t *testing.T, text string) []httpRequest {
	t.Helper()
	var found []httpRequest
	starts := requestLine.FindAllStringSubmatchIndex(text, -1)
	for i, at := range starts {
		end := len(text)
		if i+1 < len(starts) {
			end = starts[i+1][0]
		}
		head, body, _ := strings.Cut(text[at[1]:end], "\n\n")
		if !strings.Contains(head, "Authorization: Bearer <token>") {
			t.Errorf("the request %s has no token", text[at[0]:at[1]])
		}
		found = append(found, httpRequest{text[at[2]:at[3]], text[at[4]:at[5]], body})
	}
	return found
}

const guideSecret = "webhook-secret-key" // of the guide's example

// Every example of the guide works as printed, but for the token and the webhook's id.
func TestGuide(t *testing.T) {
	t.Parallel()
	blocks := guide(t)
	in := harness.Receive(t, nil)
	p := startEmbedded(t)

	// The first webhook is the guide's own, word for word; then it calls our receiver.
	create := requests(t, one(t, blocks, "Создание Webhook'а", "http"))[0]
	status, answer := p.request(create.method, create.path, create.body)
	if status != http.StatusCreated {
		t.Fatalf("creating the guide's webhook answered %d: %s", status, answer)
	}
	var created struct {
		webhook
		Name      string            `json:"name"`
		Headers   map[string]string `json:"headers"`
		HasSecret bool              `json:"has_secret"`
		Retries   int               `json:"max_retries"`
		Status    string            `json:"status"`
	}
	if err := json.Unmarshal(answer, &created); err != nil {
		t.Fatal(err)
	}
	if created.Number != 1 || created.Name != "Интеграция с CRM" || !created.HasSecret || created.Retries != 3 || created.Status != "active" {
		t.Errorf("the guide's webhook became %s", answer)
	}
	if bytes.Contains(answer, []byte("your-api-key")) || bytes.Contains(answer, []byte(guideSecret)) {
		t.Errorf("a secret is shown: %s", answer)
	}
	p.api(200, "PATCH", "/webhooks/1", fmt.Sprintf(`{"url": %q, "filters": null}`, in.URL), nil)

	t.Run("requests", func(t *testing.T) {
		want := map[string]int{ // what is not here answers 200
			"POST /api/v1/webhooks/":               http.StatusCreated,
			"POST /api/v1/webhooks/events/trigger": http.StatusAccepted,
		}
		n := 0
		for _, b := range blocks {
			if b.language != "http" {
				continue
			}
			for _, r := range requests(t, b.text) {
				n++
				if n == 1 {
					continue // made above
				}
				wanted := http.StatusOK
				if code, ok := want[r.method+" "+r.path]; ok {
					wanted = code
				}
				for _, id := range []string{created.ID, "1"} {
					path := strings.ReplaceAll(r.path, "{webhook_id}", id)
					status, answer := p.request(r.method, path, r.body)
					if status != wanted {
						t.Errorf("%s %s answered %d, want %d: %s", r.method, path, status, wanted, answer)
					}
				}
			}
		}
		if n != 10 {
			t.Errorf("the guide has %d requests, want 10", n)
		}
	})
	p.api(200, "POST", "/webhooks/1/activate", "", nil)
	before := len(in.All())

	t.Run("payload and headers", func(t *testing.T) {
		var printed struct {
			EventType string          `json:"event_type"`
			EventData json.RawMessage `json:"event_data"`
		}
		example := one(t, blocks, "Формат Webhook Payload", "json")
		if err := json.Unmarshal([]byte(example), &printed); err != nil {
			t.Fatal(err)
		}
		p.trigger(fmt.Sprintf(`{"event_type":%q,"event_data":%s}`, printed.EventType, printed.EventData))
		got := in.Await(before + 1)[before]

		var timestamp struct{ Timestamp time.Time }
		if err := json.Unmarshal(got.Body, &timestamp); err != nil || time.Since(timestamp.Timestamp).Abs() > patience {
			t.Errorf("the timestamp is %v, %v", timestamp, err)
		}
		// As printed, but for the id, the time, and white space around what is not event_data.
		expected := strings.NewReplacer("550e8400-e29b-41d4-a716-446655440000", created.ID).Replace(example)
		expected = regexp.MustCompile(`"timestamp": "[^"]*"`).ReplaceAllString(expected, `"timestamp": "T"`)
		actual := regexp.MustCompile(`"timestamp":"[^"]*"`).ReplaceAllString(string(got.Body), `"timestamp":"T"`)
		if compact(t, expected) != compact(t, actual) {
			t.Errorf("the body is\n%s\nthe guide has\n%s", got.Body, example)
		}
		if !bytes.Contains(got.Body, printed.EventData) {
			t.Errorf("event_data is not byte for byte what was triggered:\n%s", got.Body)
		}

		signature := ""
		for line := range strings.Lines(one(t, blocks, "Заголовки", "http")) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			value = strings.ReplaceAll(value, "550e8400-e29b-41d4-a716-446655440000", created.ID)
			actual := got.Header.Get(name)
			if name == "X-Webhook-Signature" {
				signature = actual
				if !strings.HasPrefix(actual, "sha256=") {
					t.Errorf("the signature is %q", actual)
				}
			} else if actual != value {
				t.Errorf("header %s is %q, the guide has %q", name, actual, value)
			}
		}
		if got.Header.Get("X-Api-Key") != "your-api-key" {
			t.Error("the webhook's own header is missing")
		}

		t.Run("verified in Python", func(t *testing.T) {
			verify(t, "python3", one(t, blocks, "HMAC Подпись", "python")+`
import sys
body = open(sys.argv[1], encoding="utf-8", newline="").read()
sys.exit(0 if verify_signature(body, sys.argv[2], sys.argv[3]) and not verify_signature(body + " ", sys.argv[2], sys.argv[3]) else 1)
`, got.Body, signature)
		})
		t.Run("verified in JavaScript", func(t *testing.T) {
			verify(t, "node", one(t, blocks, "Проверка на Стороне Получателя", "javascript")+`
const body = require('fs').readFileSync(process.argv[2]);
process.exit(verifyWebhook(body, process.argv[3], process.argv[4]) && !verifyWebhook('', process.argv[3], process.argv[4]) ? 0 : 1);
`, got.Body, signature)
		})
	})

	t.Run("curl", func(t *testing.T) {
		curl, err := exec.LookPath("curl")
		if err != nil {
			t.Skip("there is no curl")
		}
		script := one(t, blocks, "Тестовые События", "bash")
		script = strings.NewReplacer("http://localhost:8000", "http://"+p.Addr, "your-token", adminToken, "curl ", curl+" -sS --fail-with-body ").Replace(script)
		out, err := exec.CommandContext(t.Context(), "sh", "-c", script).CombinedOutput()
		var tested call
		if err != nil || json.Unmarshal(out, &tested) != nil {
			t.Fatalf("the guide's curl ended with %v:\n%s", err, out)
		}
		if tested.Status != "success" || !tested.Test || tested.Attempt != 1 {
			t.Errorf("the test call is %s", out)
		}
	})

	t.Run("filters and integrations", func(t *testing.T) {
		p.api(200, "PUT", "/webhooks/1", one(t, blocks, "Фильтрация Событий", "json"), nil)
		n := 0
		for _, b := range blocks {
			if b.language == "json" && regexp.MustCompile(`^\d\. `).MatchString(b.heading) {
				n++
				p.api(201, "POST", "/webhooks/", b.text, nil)
			}
		}
		if n != 3 {
			t.Errorf("the guide has %d integrations, want 3", n)
		}
		// Only what meets every condition is sent.
		before := len(in.All())
		for _, data := range []string{
			`{"department":"cardiology","patient_type":"new","amount":999}`,
			`{"department":"surgery","patient_type":"new","amount":1000}`,
			`{"department":"cardiology","patient_type":"old","amount":1000}`,
			`{"department":"cardiology","patient_type":"new"}`,
			`{"department":"cardiology","patient_type":"new","amount":1000}`,
		} {
			p.trigger(`{"event_type":"patient.created","event_data":` + data + `}`)
		}
		got := in.Await(before + 1)
		if len(got) != before+1 || !bytes.Contains(got[before].Body, []byte(`"amount":1000}`)) {
			t.Errorf("after the filters %d calls arrived", len(got)-before)
		}
	})

	t.Run("event types", func(t *testing.T) {
		text, err := os.ReadFile(filepath.Join("..", "..", "docs", "guide.ru.md"))
		if err != nil {
			t.Fatal(err)
		}
		_, answer := p.request("GET", "/api/v1/webhooks/events/types", "")
		listed := regexp.MustCompile("(?m)^- `([a-z_.]+)` - (.+)$").FindAllSubmatch(text, -1)
		if len(listed) != 25 {
			t.Errorf("the guide lists %d event types, want 25", len(listed))
		}
		for _, line := range listed {
			if !bytes.Contains(answer, line[1]) || !bytes.Contains(answer, line[2]) {
				t.Errorf("the catalogue lacks %s - %s", line[1], line[2])
			}
		}
	})
}

// The guide's table of retries: 60, 120 and 240 seconds with its default delay. Only the first
// wait can be seen without waiting; each is at most 5 % longer.
func TestGuideFirstRetry(t *testing.T) {
	t.Parallel()
	called := make(chan time.Time, 1)
	in := harness.Receive(t, func(w http.ResponseWriter, _ harness.Call) {
		called <- time.Now()
		w.WriteHeader(http.StatusInternalServerError)
	})
	p := start(t)
	var made webhook
	p.api(201, "POST", "/webhooks/", fmt.Sprintf(`{"name":"a","url":%q,"events":["*"]}`, in.URL), &made)
	p.trigger(`{"event_type":"patient.created","event_data":{}}`)
	var calls []call
	p.Until("the call is logged", func() bool {
		calls = p.calls(made.ID)
		return len(calls) > 0
	})
	if calls[0].Status != "failed" || calls[0].NextAttemptAt == nil {
		t.Fatalf("the call is %+v", calls[0])
	}
	// It counts from the call's end, which is recorded later, by the database's clock.
	const most, clocks = time.Minute + time.Minute/20, time.Second / 10
	took := time.Duration(calls[0].DurationMS * float64(time.Millisecond))
	if wait := calls[0].NextAttemptAt.Sub(<-called); wait < time.Minute-clocks || wait > most+took+5*time.Second {
		t.Errorf("attempt 2 is due after %v", wait)
	}
}

func compact(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, []byte(text)); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return b.String()
}

// verify runs a program that checks the signature, when its language is on this machine.
func verify(t *testing.T, language, program string, body []byte, signature string) {
	t.Helper()
	path, err := exec.LookPath(language)
	if err != nil {
		t.Skipf("there is no %s", language)
	}
	dir := t.TempDir()
	script, received := filepath.Join(dir, "verify.js"), filepath.Join(dir, "body")
	for name, content := range map[string][]byte{script: []byte(program), received: body} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.CommandContext(t.Context(), path, script, received, signature, guideSecret).CombinedOutput()
	if err != nil {
		t.Errorf("%s does not verify the call: %v\n%s", language, err, out)
	}
}
