package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/cmd/e2e/harness"
)

// No name of a patient is in a file of the data folder, in what the server says or in its
// figures: neither what an event told nor what a receiver answered. After an erasure nothing
// is left that opens it, also after a restart.
func TestPatientsAreInNoFile(t *testing.T) {
	t.Parallel()
	const name, id, reply = "Плантагенет", "subject-4711", "Тюдор"
	in := harness.Receive(t, func(w http.ResponseWriter, _ harness.Call) {
		if _, err := io.WriteString(w, `{"seen":"`+reply+`"}`); err != nil {
			t.Error(err)
		}
	})
	p := start(t)
	w := p.register(in.URL, "")
	event := p.trigger(`{"event_type":"patient.created","event_data":{"patient_id":"` + id + `","name":"` + name + `"}}`)
	seen := p.details(w.ID, p.awaitCalls(w.ID, 1)[0])
	if seen.ResponseBody == nil || !strings.Contains(*seen.ResponseBody, reply) {
		t.Errorf("the call log shows %+v", seen)
	}
	var keys int
	count := func(conn *pgx.Conn) {
		if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM medilab.data_keys WHERE until > 0`).Scan(&keys); err != nil {
			t.Fatal(err)
		}
	}
	conn := p.connect()
	if _, err := conn.Exec(t.Context(), `CHECKPOINT`); err != nil {
		t.Fatal(err)
	}
	count(conn)
	before := keys
	var process int
	var database string
	if err := conn.QueryRow(t.Context(), `SELECT pg_backend_pid(), oid::text FROM pg_database WHERE datname = current_database()`).Scan(&process, &database); err != nil {
		t.Fatal(err)
	}
	data, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", process))
	if err != nil {
		t.Skip("where Postgres keeps its files is not known here:", err)
	}
	files := []string{p.dataDir, filepath.Join(data, "base", database), filepath.Join(data, "pg_wal")}
	inNoFile(t, files, name, id, reply)
	if out := p.command(0, "", "subjects", "export", id); !strings.Contains(out, name) || !strings.Contains(out, reply) || !strings.Contains(out, event) {
		t.Errorf("the export is %s", out)
	}
	if _, figures := p.request("GET", "/metrics", ""); bytes.Contains(figures, []byte(id)) {
		t.Error("the metrics name the patient")
	}
	p.command(0, "", "subjects", "erase", id, "--reason", "asked for")
	if count(conn); keys != before-1 {
		t.Errorf("%d keys before the erasure, %d after", before, keys)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.stop()
	inNoFile(t, files, name, id, reply)
	if said := p.Said.String(); said == "" || strings.Contains(said, name) || strings.Contains(said, id) || strings.Contains(said, reply) {
		t.Errorf("the server said who the patient is")
	}
	p.start()
	var shown struct {
		Data   any `json:"event_data"`
		Erased bool
	}
	if p.api(200, "GET", "/webhooks/events/"+event, "", &shown); shown.Data != nil || !shown.Erased {
		t.Errorf("after the restart the event is %+v", shown)
	}
	p.command(0, "", "audit", "verify")
}

func inNoFile(t *testing.T, folders []string, texts ...string) {
	t.Helper()
	read := 0
	look := func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the database dropped it
		}
		read++
		for _, text := range texts {
			if bytes.Contains(data, []byte(text)) {
				t.Errorf("%s holds the planted %q", path, text)
			}
		}
		return err
	}
	for _, folder := range folders {
		if err := filepath.WalkDir(folder, look); err != nil {
			t.Fatal(err)
		}
	}
	if least := 10; read < least {
		t.Errorf("only %d files were read", read)
	}
}
