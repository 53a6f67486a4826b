package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
)

// register makes a webhook for everything at the address; fields is an object of what
// it has instead or besides, or nothing.
func (p *product) register(url, fields string) webhook {
	p.Helper()
	asked := map[string]json.RawMessage{"name": json.RawMessage(`"a"`), "events": json.RawMessage(`["*"]`)}
	if fields != "" {
		if err := json.Unmarshal([]byte(fields), &asked); err != nil {
			p.Fatalf("%s: %v", fields, err)
		}
	}
	asked["url"] = json.RawMessage(quoted(url))
	body, err := json.Marshal(asked)
	if err != nil {
		p.Fatal(err)
	}
	var made webhook
	p.api(201, "POST", "/webhooks/", string(body), &made)
	return made
}

// awaitCalls waits until the call log has n calls of the webhook, and gives them all,
// the oldest first.
func (p *product) awaitCalls(webhook string, n int) []call {
	p.Helper()
	var calls []call
	p.Until(fmt.Sprintf("%d calls are logged", n), func() bool {
		calls = p.calls(webhook)
		return len(calls) >= n
	})
	return calls
}

// details is a call as it is shown by its id.
type details struct {
	call
	Method            string            `json:"method"`
	RequestHeaders    map[string]string `json:"request_headers"`
	ResponseHeaders   map[string]string `json:"response_headers"`
	ResponseBody      *string           `json:"response_body"`
	ResponseTruncated bool              `json:"response_truncated"`
}

func (p *product) details(webhook string, c call) details {
	p.Helper()
	var d details
	p.api(200, "GET", "/webhooks/"+webhook+"/calls/"+c.CallID, "", &d)
	return d
}

// delivery is what the tests look at of a delivery.
type delivery struct {
	ID            string  `json:"delivery_id"`
	WebhookID     string  `json:"webhook_id"`
	State         string  `json:"state"`
	Attempts      int     `json:"attempts"`
	NextAttemptAt *string `json:"next_attempt_at"`
	BatchID       *string `json:"batch_id"`
	Reason        *string `json:"reason"`
}

// deliveries lists those of an event.
func (p *product) deliveries(event string) []delivery {
	p.Helper()
	var list struct {
		Items []delivery `json:"items"`
	}
	p.api(200, "GET", "/webhooks/events/"+event+"/deliveries", "", &list)
	return list.Items
}

// triggerAll triggers events of one type with these data, at once, and gives their ids.
func (p *product) triggerAll(eventType string, data ...string) []string {
	p.Helper()
	events := make([]string, len(data))
	for i, d := range data {
		events[i] = `{"event_type":` + quoted(eventType) + `,"event_data":` + d + `}`
	}
	var accepted struct {
		Items []struct {
			EventID string `json:"event_id"`
		} `json:"items"`
	}
	p.api(202, "POST", "/webhooks/events/trigger/batch", `{"events":[`+strings.Join(events, ",")+`]}`, &accepted)
	ids := make([]string, len(accepted.Items))
	for i, item := range accepted.Items {
		ids[i] = item.EventID
	}
	return ids
}

// refused makes a request that is to be refused with the status, and checks that
// the field is named with a message that has the words.
func (p *product) refused(status int, method, path, body, field, words string) {
	p.Helper()
	got, answer := p.request(method, "/api/v1"+path, body)
	shown := body
	if len(shown) > 200 {
		shown = shown[:200] + "..."
	}
	if got != status {
		p.Errorf("%s %s %s answered %d, want %d: %s", method, path, shown, got, status, answer)
		return
	}
	var problem struct {
		Status int    `json:"status"`
		Detail string `json:"detail"`
		Errors []struct{ Field, Path, Message string }
	}
	if err := json.Unmarshal(answer, &problem); err != nil || problem.Status != status {
		p.Errorf("%s %s: the problem is %s, %v", path, shown, answer, err)
	}
	if field == "" {
		if !strings.Contains(problem.Detail, words) {
			p.Errorf("%s %s: %s does not say %q", path, shown, answer, words)
		}
		return
	}
	for _, e := range problem.Errors {
		if (e.Field == field || e.Path == field) && strings.Contains(e.Message, words) {
			return
		}
	}
	p.Errorf("%s %s: %s does not name %s with %q", path, shown, answer, field, words)
}

func quoted(text string) string {
	b, err := json.Marshal(text)
	if err != nil {
		panic(err) // no string fails
	}
	return string(b)
}

// fails runs a command that is to end with the code, and gives what it says to people.
func (p *product) fails(wantCode int, args ...string) string {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), patience)
	defer cancel()
	c := exec.CommandContext(ctx, p.Program, args...)
	c.Env = p.environment()
	var notes bytes.Buffer
	c.Stderr = &notes
	err := c.Run()
	if c.ProcessState == nil || c.ProcessState.ExitCode() != wantCode {
		p.Fatalf("%v ended with %v, want code %d:\n%s", args, err, wantCode, &notes)
	}
	return notes.String()
}
