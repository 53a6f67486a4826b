package security

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/migrations/postgres"
)

// canaries are planted wherever a secret has its place, and in some where it has none.
var canaries = map[string]string{
	"the webhook's secret":               "canary-secret-Aa1-0123456789",
	"the secret before":                  "canary-former-Bb2-0123456789",
	"a header's value":                   "canary-header-Cc3-0123456789",
	"a header's token behind its scheme": "canary-bearer-Dd4-0123456789",
	"a changed header's value":           "canary-changed-Ee5-0123456789",
	"a header's value that is refused":   "canary-refused-Ff6-0123456789",
	"a secret that is refused":           "canary-toolong-Gg7-0123456789",
	"the administrator's token":          adminToken,
	"an unknown token":                   "canary-unknown-Hh8-0123456789",
	"a token in a query":                 "canary-asquery-Ii9-0123456789",
	"a misspelt field's value":           "canary-misspelt-Jj0-0123456789",
}

// inURL may stand in the webhook's configuration, and in no log.
const inURL = "canary-urlquery-Kk1-0123456789"

// forms are the ways in which a text can lie somewhere: as it is, in base64
// wherever it begins, in hex.
func forms(text string) [][]byte {
	list := [][]byte{[]byte(text), []byte(hex.EncodeToString([]byte(text)))}
	for shift := range 3 {
		encoded := base64.StdEncoding.EncodeToString(append(make([]byte, shift), text...))
		// What the neighbours have a part in is cut off.
		list = append(list, []byte(encoded[(shift*8+5)/6:(shift+len(text))*8/6]))
	}
	return list
}

func search(t *testing.T, where string, data []byte, secrets map[string]string) {
	t.Helper()
	for name, secret := range secrets {
		if slices.ContainsFunc(forms(secret), func(form []byte) bool { return bytes.Contains(data, form) }) {
			t.Errorf("%s is in %s", name, where)
		}
	}
}

// The forms find what they are for.
func TestForms(t *testing.T) {
	for shift := range 4 {
		text := strings.Repeat("x", shift) + adminToken + "yyy"
		for _, data := range []string{text, hex.EncodeToString([]byte(text)), base64.StdEncoding.EncodeToString([]byte(text))} {
			if !slices.ContainsFunc(forms(adminToken), func(form []byte) bool { return strings.Contains(data, string(form)) }) {
				t.Errorf("not found in %s", data)
			}
		}
	}
}

// echoing is a receiver that says back all that it got, and fails.
func echoing(t *testing.T) *harness.Receiver {
	return harness.Receive(t, func(w http.ResponseWriter, c harness.Call) {
		w.Header().Set("X-Echo", c.Header.Get("X-Api-Key"))
		w.WriteHeader(http.StatusInternalServerError)
		_ = c.Header.Write(w)
		_, _ = fmt.Fprintf(w, "<script>alert(1)</script> I know your secret: %s", canaries["the webhook's secret"])
	})
}

// Secrets are planted, used, echoed by receivers and put in wrong places; then
// everything that the product shows or keeps is searched for them: the API, the
// log as it is read, metrics, the process's output, the database's own log, every
// table, and the whole data folder, write-ahead log included.
func TestNoSecretLeavesInClear(t *testing.T) {
	dir, err := os.MkdirTemp("", "sec-") // sockets have short names
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	p := start(t, "MEDILAB_DATA_DIR="+dir)
	receiver := echoing(t)
	plant(p, receiver.URL)
	secrets := map[string]string{}
	for name, secret := range canaries {
		secrets[name] = secret
	}
	var made struct{ ID, Token string }
	decode(t, p.command("token", "create", "--name", "crm", "--scopes", "admin", "--json"), &made)
	secrets["an API token"] = made.Token
	p.as(made.Token, "GET", "/api/v1/webhooks/?limit=1", "")
	p.command("keys", "rotate")

	for _, path := range shown(p) {
		status, answer := p.as(adminToken, "GET", path, "")
		if status != 200 {
			t.Errorf("%s answered %d: %s", path, status, answer)
		}
		search(t, path, answer, secrets)
	}
	search(t, "the log as it is read", []byte(p.command("audit", "log", "--format", "ndjson")), secrets)
	search(t, "the list of tokens", []byte(p.command("token", "list", "--json")), secrets)
	searchTables(t, dir, secrets)
	searchFolder(t, dir, secrets)
	secrets["a URL's query"] = inURL
	search(t, "what the server said", []byte(p.Said.String()), secrets)
	_, metrics := p.as("", "GET", "/metrics", "")
	search(t, "the metrics", metrics, secrets)
	if data, err := os.ReadFile(postgresLog(t, dir)); err != nil {
		t.Error(err)
	} else {
		search(t, "the database's log", data, secrets)
	}
}

// plant puts the canaries in, and makes calls with them.
func plant(p *product, url string) {
	p.Helper()
	id := p.register(url+"/hook?key="+inURL, fmt.Sprintf(`,"secret":%q,"headers":{"X-Api-Key":%q,"Authorization":"Bearer %s"}`,
		canaries["the secret before"], canaries["a header's value"], canaries["a header's token behind its scheme"]))
	p.api(200, "POST", "/webhooks/"+id+"/rotate-secret", fmt.Sprintf(`{"secret":%q,"overlap_seconds":3600}`, canaries["the webhook's secret"]), nil)
	p.api(200, "POST", "/webhooks/"+id+"/test", `{"event_type":"patient.created","test_data":{}}`, nil)
	p.api(202, "POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{}}`, nil)
	p.Until("the attempt is recorded", func() bool { return len(p.calls(id)) == 2 })
	p.api(200, "PUT", "/webhooks/"+id, fmt.Sprintf(`{"headers":{"X-Api-Key":%q}}`, canaries["a changed header's value"]), nil)
	p.api(200, "POST", "/webhooks/"+id+"/test", `{"event_type":"patient.created","test_data":{}}`, nil)
	unreachable := p.register("http://127.0.0.1:1/?key="+inURL, fmt.Sprintf(`,"secret":%q`, canaries["the webhook's secret"]))
	p.api(200, "POST", "/webhooks/"+unreachable+"/test", `{"event_type":"patient.created","test_data":{}}`, nil)

	refused := func(body string) {
		p.Helper()
		if status, answer := p.as(adminToken, "PUT", "/api/v1/webhooks/"+id, body); status < 400 || status >= 500 {
			p.Errorf("%s: %d %s", body, status, answer)
		} else {
			search(p.TB.(*testing.T), "a refusal", answer, canaries)
		}
	}
	refused(fmt.Sprintf(`{"headers":{"X-Bad":"%s\u0000"}}`, canaries["a header's value that is refused"]))
	refused(fmt.Sprintf(`{"secret":"%s%s"}`, canaries["a secret that is refused"], strings.Repeat("x", 300)))
	refused(fmt.Sprintf(`{"secrett":%q}`, canaries["a misspelt field's value"]))
	refused(fmt.Sprintf(`{"secret":%q`, canaries["a misspelt field's value"]))
	for _, path := range []string{"/api/v1/webhooks/?token=" + canaries["a token in a query"], "/nothing?token=" + canaries["a token in a query"]} {
		status, answer := p.as(canaries["an unknown token"], "GET", path, "")
		if status != 401 && status != 404 {
			p.Errorf("%s: %d", path, status)
		}
		search(p.TB.(*testing.T), "a refusal", answer, canaries)
	}
}

// shown is everything that the API shows by GET.
func shown(p *product) []string {
	p.Helper()
	const api = "/api/v1"
	paths := []string{api + "/webhooks/", api + "/webhooks/?q=w", api + "/webhooks/system/stats", api + "/webhooks/events", api + "/webhooks/alerts",
		api + "/audit/events", api + "/openapi.json", api + "/webhooks/events/types", "/admin", "/metrics", "/healthz", "/readyz"}
	list := func(path string) (ids []string) {
		var page struct {
			Items []struct {
				ID      string `json:"id"`
				CallID  string `json:"call_id"`
				EventID string `json:"event_id"`
			} `json:"items"`
		}
		p.api(200, "GET", path, "", &page)
		for _, item := range page.Items {
			ids = append(ids, item.ID+item.CallID)
		}
		return ids
	}
	for _, id := range list("/webhooks/") {
		w := api + "/webhooks/" + id
		paths = append(paths, w, w+"/stats?bucket=hour", w+"/calls", w+"/history")
		for _, call := range list("/webhooks/" + id + "/calls") {
			paths = append(paths, w+"/calls/"+call)
		}
	}
	var events struct {
		Items []map[string]any `json:"items"`
	}
	p.api(200, "GET", "/webhooks/events", "", &events)
	for _, event := range events.Items {
		id := fmt.Sprint(event["event_id"])
		paths = append(paths, api+"/webhooks/events/"+id, api+"/webhooks/events/"+id+"/deliveries", api+"/webhooks/events/"+id+"/explain")
	}
	return paths
}

// searchTables reads every row of every table, where compression hides nothing.
func searchTables(t *testing.T, dir string, secrets map[string]string) {
	t.Helper()
	server, err := postgres.Open(t.Context(), postgres.Options{DataDir: dir, BinDir: os.Getenv("MEDILAB_POSTGRES_BIN")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := server.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	conn, err := pgx.Connect(t.Context(), server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context()) //nolint:errcheck // it only read
	rows, err := conn.Query(t.Context(), `SELECT table_name FROM information_schema.tables WHERE table_schema = 'medilab' AND table_type = 'BASE TABLE'`)
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(tables) < 10 {
		t.Fatalf("%v, %v", tables, err)
	}
	for _, table := range tables {
		rows, err := conn.Query(t.Context(), `SELECT * FROM medilab.`+table)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			search(t, "the table "+table, bytes.Join(rows.RawValues(), []byte("\n")), secrets)
			for _, value := range rows.RawValues() {
				search(t, "the table "+table, decoded(value), secrets)
			}
		}
		if rows.Err() != nil {
			t.Fatal(rows.Err())
		}
	}
	// So that what is only in memory is on the disk too.
	if _, err := conn.Exec(t.Context(), `CHECKPOINT`); err != nil {
		t.Fatal(err)
	}
}

// decoded is what a value that the driver gives as text in hex stands for.
func decoded(value []byte) []byte {
	if data, err := hex.DecodeString(strings.TrimPrefix(string(value), `\x`)); err == nil {
		return data
	}
	return nil
}

func searchFolder(t *testing.T, dir string, secrets map[string]string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // the database removes files as it likes
			return nil
		case err != nil:
			return err
		case !entry.Type().IsRegular():
			return nil
		}
		file, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		defer file.Close() //nolint:errcheck // it only read
		data, err := io.ReadAll(file)
		files++
		search(t, strings.TrimPrefix(path, dir), data, secrets)
		return err
	})
	if err != nil || files < 100 {
		t.Errorf("%d files, %v", files, err)
	}
}

func postgresLog(t *testing.T, dir string) string {
	t.Helper()
	found := ""
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if entry != nil && entry.Name() == "postgres.log" {
			found = path
		}
		return nil //nolint:nilerr // the database removes files as it likes
	})
	if err != nil || found == "" {
		t.Fatalf("no postgres.log: %v", err)
	}
	return found
}
