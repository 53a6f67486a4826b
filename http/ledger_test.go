package http_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// witness is a receiver that answers at random, and remembers who saw what.
type witness struct {
	*httptest.Server
	t *testing.T

	mu       sync.Mutex
	rand     *rand.Rand
	hold     float64           // share of calls that are never answered
	seen     map[string]string // what the ledger is to say, by URL, kind and event
	recent   map[string]string // likewise, only what was seen since the last turn
	answered int
}

func newWitness(t *testing.T, random *rand.Rand) *witness {
	w := &witness{t: t, rand: random, seen: map[string]string{}, recent: map[string]string{}}
	w.Server = httptest.NewServer(w)
	t.Cleanup(w.Close)
	return w
}

func (w *witness) ServeHTTP(answer http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.t.Error(err)
	}
	kind := "dispatch"
	switch {
	case r.Header.Get("X-Webhook-Replay") != "":
		kind = "replay"
	case strings.Contains(string(body), `"tested"`):
		kind = "test"
	}
	var batch struct {
		Events []struct {
			ID string `json:"event_id"`
		}
	}
	events := []string{r.Header.Get("X-Webhook-Event-ID")}
	if r.Header.Get("X-Webhook-Event") == "batch" {
		events = nil
		if err := json.Unmarshal(body, &batch); err != nil {
			w.t.Error(err)
		}
		for _, e := range batch.Events {
			events = append(events, e.ID)
		}
	}
	w.mu.Lock()
	held, status, acknowledged := kind != "test" && w.rand.Float64() < w.hold, http.StatusOK, "true"
	if w.rand.IntN(2) == 0 {
		status, acknowledged = http.StatusInternalServerError, "false"
	}
	if held {
		acknowledged = `"unknown"`
	}
	for _, event := range events {
		item := w.URL + r.URL.Path + " " + kind + " " + event
		switch before := w.seen[item]; {
		case before == "true" || before == `"unknown"` && acknowledged == "false":
		default:
			w.seen[item] = acknowledged
		}
		w.recent[item] = w.seen[item]
	}
	if !held && kind != "test" {
		w.answered++
	}
	w.mu.Unlock()
	if held {
		<-r.Context().Done() // until the caller is gone
		return
	}
	answer.WriteHeader(status)
}

// turn returns what was seen since the last turn.
func (w *witness) turn() map[string]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	recent := w.recent
	w.recent = map[string]string{}
	return recent
}

func (w *witness) holding(share float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hold = share
}

// ledger is the log's answer to who got what.
type ledger struct {
	*service
	witness *witness
	rand    *rand.Rand
	hooks   []string
	tells   map[string][]string // subjects, by event
}

// trigger makes events of random patients, and a test call of each webhook.
func (l *ledger) trigger(n int) {
	l.t.Helper()
	for range n {
		patients := []string{fmt.Sprint(l.rand.IntN(4))}
		if other := fmt.Sprint(l.rand.IntN(4)); l.rand.IntN(3) == 0 && other != patients[0] {
			patients = append(patients, other)
		}
		data := fmt.Sprintf(`{"patient_id":["%s"]}`, strings.Join(patients, `","`))
		l.tells[l.ask("POST", trigger, `{"event_type":"visit.created","event_data":`+data+`}`).want(202).text("event_id")] = patients
	}
	for _, hook := range l.hooks {
		patient := fmt.Sprint(l.rand.IntN(4))
		event := l.ask("POST", "/api/v1/webhooks/"+hook+"/test", `{"event_type":"visit.created","test_data":{"tested":1,"patient_id":`+patient+`}}`).want(200).text("event_id")
		l.tells[event] = []string{patient}
	}
}

// recorded waits until what was answered is in the log.
func (l *ledger) recorded() {
	l.t.Helper()
	l.until("what was answered is recorded", func() bool {
		var n int
		err := l.pool.QueryRow(l.t.Context(), `SELECT count(*) FROM medilab.events WHERE type IN ('delivery.succeeded', 'delivery.attempt_failed', 'delivery.outcome_late')
			AND position(convert_to('"status":', 'UTF8') IN data) > 0`).Scan(&n)
		if err != nil {
			l.t.Fatal(err)
		}
		l.witness.mu.Lock()
		defer l.witness.mu.Unlock()
		return n == l.witness.answered
	})
}

// says returns all pages of a list of disclosures.
func (l *ledger) says(path string) map[string]string {
	l.t.Helper()
	said := map[string]string{}
	for cursor := ""; ; {
		list := l.ask("GET", path+"limit=7"+cursor, "").want(200)
		var page struct {
			Items []struct {
				URL, Kind    string
				EventID      string `json:"event_id"`
				Acknowledged json.RawMessage
			}
		}
		list.into(&page)
		for _, i := range page.Items {
			item := i.URL + " " + i.Kind + " " + i.EventID
			if said[item] != "" {
				l.t.Errorf("%s says twice: %s", path, item)
			}
			said[item] = string(i.Acknowledged)
		}
		if list.get("next_cursor") == "null" {
			return said
		}
		cursor = "&cursor=" + list.text("next_cursor")
	}
}

func (l *ledger) compare(path string, want map[string]string) {
	l.t.Helper()
	got := l.says(path)
	for _, item := range slices.Sorted(maps.Keys(got)) {
		if want[item] != got[item] {
			l.t.Errorf("%s: %s is %s, and the receiver saw %s", path, item, got[item], cmp.Or(want[item], "nothing"))
		}
	}
	for item, seen := range want {
		if got[item] == "" {
			l.t.Errorf("%s lacks %s, which the receiver saw: %s", path, item, seen)
		}
	}
}

// compareTo compares what each webhook was sent between two times with what was seen then.
func (l *ledger) compareTo(from, to time.Time, seen map[string]string) {
	l.t.Helper()
	for i, hook := range l.hooks {
		want := map[string]string{}
		for item, acknowledged := range seen {
			if strings.HasPrefix(item, fmt.Sprintf("%s/%d ", l.witness.URL, i)) {
				want[item] = acknowledged
			}
		}
		l.compare("/api/v1/webhooks/"+hook+"/disclosures?from="+from.Format(time.RFC3339Nano)+"&to="+to.Format(time.RFC3339Nano)+"&", want)
	}
}

func (l *ledger) now() (now time.Time) {
	l.t.Helper()
	if err := l.pool.QueryRow(l.t.Context(), `SELECT clock_timestamp()`).Scan(&now); err != nil {
		l.t.Fatal(err)
	}
	return now.UTC()
}

// After a random run, with calls that were cut off, retries, tests, batches, replays and bulk
// retries, the ledger has exactly what the receivers saw, by patient and by webhook and time.
func TestLedgerIsWhatReceiversSaw(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	first := newService(t)
	l := &ledger{service: first, witness: newWitness(t, rand.New(rand.NewPCG(seed, 1))), rand: random, tells: map[string][]string{}}
	l.witness.holding(0.1)
	stop := first.workUntil(time.Millisecond)
	for i, more := range []string{``, `,"fields":["patient_id","tested"]`, `,"batch":{"max_events":3,"max_wait":1}`} {
		l.hooks = append(l.hooks, l.ask("POST", "/api/v1/webhooks", fmt.Sprintf(
			`{"name":"W%d","url":"%s/%d","events":["*"],"max_retries":1,"retry_delay":1%s}`, i, l.witness.URL, i, more)).want(201).text("id"))
	}
	l.ask("POST", "/api/v1/webhooks", `{"name":"closed","url":"http://127.0.0.1:1/","events":["*"],"max_retries":0}`).want(201)
	began := l.now()
	l.trigger(12)
	l.until("some calls are made", func() bool { l.witness.mu.Lock(); defer l.witness.mu.Unlock(); return l.witness.answered > 15 })
	l.witness.holding(1)
	l.trigger(4)
	l.recorded()
	stop()
	cut, before := l.now(), l.witness.turn()
	l.witness.holding(0)

	l.service = newServiceOn(t, first.pool.Config().ConnString())
	l.work()
	l.trigger(6)
	l.until("nothing waits", func() bool {
		return l.ask("GET", "/api/v1/webhooks/deliveries?state=pending", "").want(200).get("items") == "[]"
	})
	jobs := []string{l.ask("POST", "/api/v1/webhooks/deliveries/retry", `{"state":"failed"}`).want(202).text("replay_id")}
	ended := func() bool {
		list := l.ask("GET", "/api/v1/webhooks/replays", "").want(200)
		return strings.Count(string(list.body), `"completed"`) == len(jobs)
	}
	l.until("all that failed is retried", ended)
	jobs = append(jobs, l.ask("POST", "/api/v1/webhooks/"+l.hooks[0]+"/replay", `{"from":"2000-01-01T00:00:00Z","to":"2100-01-01T00:00:00Z"}`).want(202).text("replay_id"))
	l.until("all is replayed", ended)
	l.recorded()
	l.settled()

	after, unknown := l.witness.turn(), 0
	for patient := range 4 {
		want := map[string]string{}
		for item, acknowledged := range l.witness.seen {
			if slices.Contains(l.tells[item[strings.LastIndexByte(item, ' ')+1:]], fmt.Sprint(patient)) {
				want[item] = acknowledged
			}
			if acknowledged == `"unknown"` {
				unknown++
			}
		}
		l.compare(fmt.Sprintf("/api/v1/subjects/%d/disclosures?", patient), want)
	}
	l.compareTo(began, cut, before)
	l.compareTo(cut, l.now(), after)
	t.Logf("%d items, of which %d were never answered", len(l.witness.seen), unknown/4)
}
