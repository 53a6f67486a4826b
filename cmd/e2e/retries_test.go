package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/cmd/e2e/harness"
)

// failure is what the log has of an attempt that failed.
type failure struct {
	Attempt       int       `json:"attempt"`
	StartedAt     time.Time `json:"started_at"`
	Duration      int64     `json:"duration_us"`
	NextAttemptAt time.Time `json:"next_attempt_at"`
	GaveUp        string    `json:"gave_up"`

	recordedAt time.Time
}

// wait is between these: the call ended between its last byte and its record.
func (f failure) wait() (most, least time.Duration) {
	return f.NextAttemptAt.Sub(f.StartedAt.Add(time.Duration(f.Duration) * time.Microsecond)), f.NextAttemptAt.Sub(f.recordedAt)
}

// checkWait fails the test unless the attempt has the number and the next one is due after the wait
// and at most 5 % more, and unless it started, if started is set, no earlier than due.
func (f failure) checkWait(t *testing.T, attempt int, want time.Duration, started time.Time) {
	t.Helper()
	// Start and end are times of the database's clock as the process estimates it, which may be
	// set back in between; the duration is by the process's own clock.
	const setting = 50 * time.Millisecond
	if most, least := f.wait(); f.Attempt != attempt || most < want-setting || least > want+want/20 {
		t.Errorf("attempt %d is due %v to %v after attempt %d, want %v", attempt+1, least, most, f.Attempt, want)
	}
	if !started.IsZero() && started.Before(f.NextAttemptAt) {
		t.Errorf("attempt %d started at %v and was due at %v", attempt+1, started, f.NextAttemptAt)
	}
}

// failures reads a delivery's attempts from the log, the oldest first.
func (p *product) failures(delivery string) (all []failure) {
	p.Helper()
	lines := bufio.NewScanner(strings.NewReader(p.command(0, "", "audit", "log", "--stream", "delivery-"+delivery, "--type", "delivery.attempt_failed", "--format", "ndjson")))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e struct {
			Data       failure
			RecordedAt time.Time `json:"recorded_at"`
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			p.Fatalf("%v: %s", err, lines.Bytes())
		}
		e.Data.recordedAt = e.RecordedAt
		all = append(all, e.Data)
	}
	return all
}

// The guide's limit of ten retries, through to the end, for webhooks whose waits are short,
// the guide's own, run into the cap, and are it. The first waits are waited for; of the others
// the test makes the time pass, in the queue's table.
func TestTenRetries(t *testing.T) {
	t.Parallel()
	in := harness.Receive(t, func(w http.ResponseWriter, _ harness.Call) { w.WriteHeader(http.StatusInternalServerError) })
	all, database := nodes(t, 1)
	p := all[0]
	conn, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context()) //nolint:errcheck // what was written is written

	const day = 24 * time.Hour
	delays := []time.Duration{time.Second, time.Minute, time.Hour, day}
	webhooks := make([]webhook, len(delays))
	for i, delay := range delays {
		webhooks[i] = p.register(in.URL, fmt.Sprintf(`{"max_retries":10,"retry_delay":%d,"events":["visit.created"]}`, int(delay.Seconds())))
	}
	event := p.trigger(`{"event_type":"visit.created","event_data":{}}`)
	const waited = 4 // retries of the shortest delay, by themselves: 1, 2 and 4 s
	for attempt := 1; attempt <= 11; attempt++ {
		for i, w := range webhooks {
			calls := p.awaitCalls(w.ID, attempt)
			last := calls[len(calls)-1]
			if len(calls) != attempt || last.Attempt != attempt || (last.NextAttemptAt == nil) != (attempt == 11) {
				t.Fatalf("after attempt %d of %v the last call is %+v", attempt, delays[i], last)
			}
			if attempt == 11 || i == 0 && attempt < waited {
				continue
			}
			if tag, err := conn.Exec(t.Context(), `UPDATE medilab.queue SET due_at = now() WHERE webhook_id = $1 AND attempt = $2`, w.ID, attempt+1); err != nil || tag.RowsAffected() != 1 {
				t.Fatalf("making time pass for %v: %v, %v", delays[i], tag, err)
			}
		}
	}
	delivered := map[string]string{} // delivery by webhook
	for _, r := range in.All() {
		delivered[r.Header.Get("X-Webhook-Id")] = r.Delivery()
	}
	for i, w := range webhooks {
		failures := p.failures(delivered[w.ID])
		if len(failures) != 11 || failures[10].GaveUp != "retries_exhausted" {
			t.Errorf("retries of %v ended as %+v", delays[i], failures)
			continue
		}
		want := delays[i]
		for n, f := range failures[:10] {
			followed := time.Time{}
			if i == 0 && n+1 < waited {
				followed = failures[n+1].StartedAt
			}
			f.checkWait(t, n+1, want, followed)
			want = min(2*want, day)
		}
	}
	for _, d := range p.deliveries(event) {
		if d.State != "failed" || d.Attempts != 11 || d.NextAttemptAt != nil || text(d.Reason) != "retries_exhausted" {
			t.Errorf("a delivery ended as %+v", d)
		}
	}
	if n := len(in.All()); n != 11*len(webhooks) {
		t.Errorf("the receiver saw %d calls, want %d", n, 11*len(webhooks))
	}
	p.command(0, "", "audit", "verify")
}
