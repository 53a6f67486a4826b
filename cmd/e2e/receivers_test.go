package e2e

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/medilab/webhooks/cmd/e2e/harness"
)

// language is how a receiver of docs/receivers is started, with the address it listens on.
type language struct {
	tool  string
	start func(address string) []string
	work  []string // does the work, where the receiver itself does not
}

var languages = map[string]language{
	"go":         {tool: "go", start: func(string) []string { return []string{"go", "run", "."} }},
	"python":     {tool: "python3", start: func(string) []string { return []string{"python3", "receiver.py"} }},
	"javascript": {tool: "node", start: func(string) []string { return []string{"node", "receiver.mjs"} }},
	"java":       {tool: "java", start: func(string) []string { return []string{"java", "Receiver.java"} }},
	"csharp":     {tool: "mcs", start: func(string) []string { return []string{"sh", "-c", "mcs Receiver.cs && exec mono Receiver.exe"} }},
	"php": {tool: "php", work: []string{"php", "receiver.php"},
		start: func(address string) []string { return []string{"php", "-S", address, "receiver.php"} }},
}

// The receivers that people copy take what the server sends: each delivery once, through a rotation, and
// nothing that is repeated later, signed by others, or changed.
func TestReceiversToCopy(t *testing.T) {
	t.Parallel()
	p := start(t)
	for name, l := range languages {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath(l.tool); err != nil && os.Getenv("MEDILAB_RECEIVERS") == "all" {
				t.Fatal(err)
			} else if err != nil {
				t.Skip("there is no " + l.tool)
			}
			r := startReceiver(t, name, l)
			w := p.register("http://"+r.address+"/hook", `{"secret":"`+vectorSecret+`","events":["queue.*"],"retry_delay":1,"max_retries":10,"sequence":true}`)
			event := `{"event_type":"queue.entry_called","event_data":{"n":"` + name + `","text":"Анна <Петрова>"}}`
			p.trigger(event)
			r.await(1)
			p.api(200, "POST", "/webhooks/"+w.ID+"/rotate-secret", `{"secret":"new secret","overlap_seconds":3600}`, nil)
			p.trigger(event)
			r.await(2)

			calls := p.awaitCalls(w.ID, 2)
			for _, c := range calls {
				if c.ResponseStatus == nil || *c.ResponseStatus != 204 {
					t.Errorf("a call was answered %v", c.ResponseStatus)
				}
			}
			details := p.details(w.ID, calls[0])
			if stored, err := os.ReadFile(filepath.Join(r.inbox, "done", calls[0].DeliveryID)); err != nil || string(stored) != details.Payload {
				t.Errorf("stored %s, sent %s: %v", stored, details.Payload, err)
			}
			repeat := func(want int, what string, change func(header http.Header, body []byte) []byte) {
				t.Helper()
				header := http.Header{}
				for name, value := range details.RequestHeaders {
					header.Set(name, value)
				}
				if status := r.post(header, change(header, []byte(details.Payload))); status != want {
					t.Errorf("%s: answered %d, want %d", what, status, want)
				}
			}
			repeat(204, "a repeated call", func(_ http.Header, body []byte) []byte { return body })
			repeat(401, "another body", func(_ http.Header, body []byte) []byte {
				return bytes.Replace(body, []byte(`"n":"`), []byte(`"N":"`), 1)
			})
			repeat(401, "another id", func(h http.Header, body []byte) []byte { h.Set("webhook-id", "../"+h.Get("webhook-id")); return body })
			repeat(401, "another time", func(h http.Header, body []byte) []byte { h.Set("webhook-timestamp", "1705314605"); return body })
			repeat(401, "no signature", func(h http.Header, body []byte) []byte { h.Del("webhook-signature"); return body })
			r.await(2)
			p.api(204, "DELETE", "/webhooks/"+w.ID, "", nil)

			// What comes before its turn waits for the number that is missing.
			const third, fourth = "ffffffff-0000-4000-8000-000000000003", "00000000-0000-4000-8000-000000000004"
			if status := r.postSigned(fourth, "4", time.Now()); status != 204 {
				t.Errorf("a delivery before its turn is answered %d", status)
			}
			r.work()
			if status := r.postSigned(third, "3", time.Now()); status != 204 {
				t.Errorf("the missing delivery is answered %d", status)
			}
			r.await(4)
			harness.Until(r, "it says what it has done", func() bool { return strings.Contains(r.output.String(), fourth) })
			if log := r.output.String(); !strings.Contains(log, third) || strings.Index(log, fourth) < strings.Index(log, third) {
				t.Errorf("not in order: %s", log)
			}
			r.postVectors()
		})
	}
}

const (
	vectorSecret = "a-secret-of-this-webhook" // of most test vectors
	vectorTime   = 1705314605                 // when they were signed
	slack        = time.Hour                  // by which the receivers' tolerance reaches beyond that
)

// postSigned sends a delivery that was signed at the time.
func (r *copied) postSigned(id, sequence string, at time.Time) int {
	const body = `{"event_type":"queue.entry_called","event_data":{}}`
	timestamp := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(vectorSecret))
	fmt.Fprintf(mac, "%s.%s.%s", id, timestamp, body)
	header := http.Header{}
	header.Set("webhook-id", id)
	header.Set("webhook-timestamp", timestamp)
	header.Set("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	header.Set("X-Webhook-Sequence", sequence)
	return r.post(header, []byte(body))
}

// postVectors sends the published calls of the receiver's secret, at the time at which the receiver is, and
// calls that are older or newer than it tolerates.
func (r *copied) postVectors() {
	r.Helper()
	var vectors []struct {
		Name, Secret, Body string
		Headers            map[string]string
		Valid              bool
	}
	file, err := os.ReadFile("../../docs/receivers/vectors.json")
	if err != nil {
		r.Fatal(err)
	}
	if err := json.Unmarshal(file, &vectors); err != nil {
		r.Fatal(err)
	}
	accepted, refused := 0, 0
	for _, v := range vectors {
		if v.Secret != vectorSecret || strings.HasPrefix(v.Name, "it arrives") {
			continue
		}
		header, want := http.Header{}, 401
		for name, value := range v.Headers {
			header.Set(name, value)
		}
		if refused++; v.Valid {
			accepted, refused, want = accepted+1, refused-1, 204
		}
		if status := r.post(header, []byte(v.Body)); status != want {
			r.Errorf("%s: answered %d, want %d", v.Name, status, want)
		}
	}
	if accepted < 6 || refused < 3 {
		r.Errorf("%d vectors are good and %d bad", accepted, refused)
	}
	for _, at := range []time.Time{time.Unix(vectorTime, 0).Add(-2 * slack), time.Now().Add(time.Since(time.Unix(vectorTime, 0)) + 2*slack)} {
		if status := r.postSigned("0198f0a0-0000-7000-8000-000000000001", "5", at); status != 401 {
			r.Errorf("a call of %s is answered %d", at, status)
		}
	}
	if status := r.postSigned("0198f0a0-0000-7000-8000-000000000001", "5", time.Now()); status != 204 {
		r.Errorf("a call of now is answered %d", status)
	}
}

// copied is a running copy of a receiver.
type copied struct {
	testing.TB
	address, inbox string
	work           func()
	output         *harness.Output
}

func startReceiver(t *testing.T, name string, l language) *copied {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("../../docs/receivers", name))); err != nil {
		t.Fatal(err)
	}
	r := &copied{TB: t, address: harness.FreeAddress(t), inbox: filepath.Join(dir, "inbox"), work: func() {}, output: &harness.Output{}}
	_, port, _ := strings.Cut(r.address, ":")
	tolerance := time.Since(time.Unix(vectorTime, 0)) + slack
	env := harness.Environment("WEBHOOK_SECRET="+vectorSecret, "PORT="+port, "INBOX="+r.inbox, fmt.Sprintf("TOLERANCE=%.0f", tolerance.Seconds()))
	run := func(ctx context.Context, command []string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, command[0], command[1:]...)
		cmd.Dir, cmd.Env = dir, env
		cmd.Stderr, cmd.Stdout = t.Output(), r.output
		// go run and php -S have children, which end with them.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		return cmd
	}
	if l.work != nil {
		r.work = func() {
			if err := run(t.Context(), l.work).Run(); err != nil {
				t.Error(err)
			}
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	server := run(ctx, l.start(r.address))
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		server.Wait() //nolint:errcheck // it was killed
	})
	harness.Until(t, name+" answers", func() bool { return r.post(http.Header{}, nil) != 0 })
	return r
}

// await waits until n deliveries are done, no more, and nothing else is left in the inbox: a
// delivery can be done before its temporary file is removed.
func (r *copied) await(n int) {
	r.Helper()
	var done, left []os.DirEntry
	harness.Until(r, "deliveries are done", func() bool {
		r.work()
		done, _ = os.ReadDir(filepath.Join(r.inbox, "done"))
		left, _ = os.ReadDir(r.inbox)
		left = slices.DeleteFunc(left, func(e os.DirEntry) bool { return slices.Contains([]string{"done", "sequence", "next"}, e.Name()) })
		return len(done) >= n && len(left) == 0
	})
	if len(done) != n {
		r.Errorf("%d are done, want %d", len(done), n)
	}
}

// post returns the status, 0 when there was no answer.
func (r *copied) post(header http.Header, body []byte) int {
	req, err := http.NewRequestWithContext(r.Context(), "POST", "http://"+r.address+"/hook", bytes.NewReader(body))
	if err != nil {
		r.Fatal(err)
	}
	req.Header = header
	resp, err := harness.Client.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()        //nolint:errcheck // it is read to its end
	io.Copy(io.Discard, resp.Body) //nolint:errcheck // nothing is in it
	return resp.StatusCode
}
