package e2e

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// sealPlanted seals what the fixture's writer planted unsealed, so that the log is whole: each
// entry by itself, and again all that follows.
const sealPlanted = `
ALTER TABLE medilab.seals DISABLE TRIGGER USER;
INSERT INTO medilab.seals (last_position, first_position, recorded_at, seal) SELECT position, position, recorded_at, ''
	FROM medilab.events AS e WHERE NOT EXISTS (SELECT FROM medilab.seals WHERE position BETWEEN first_position AND last_position);
DO $$
DECLARE s record; before bytea := '';
BEGIN
	FOR s IN SELECT * FROM medilab.seals ORDER BY last_position LOOP
		SELECT sha256(before || int8send(s.first_position) || int8send((extract(epoch FROM s.recorded_at) * 1000000)::bigint) || sha256(string_agg(
			int8send(octet_length(convert_to(stream, 'UTF8'))) || convert_to(stream, 'UTF8') || int8send(version) || int8send(octet_length(type)) || convert_to(type, 'UTF8')
			|| int8send(octet_length(data)) || data || int8send(octet_length(convert_to(metadata::text, 'UTF8'))) || convert_to(metadata::text, 'UTF8'), ''::bytea ORDER BY position)))
			INTO before FROM medilab.events WHERE position BETWEEN s.first_position AND s.last_position;
		UPDATE medilab.seals SET seal = before WHERE last_position = s.last_position;
	END LOOP;
	UPDATE medilab.log_head SET seal = before;
END $$;
ALTER TABLE medilab.seals ENABLE ALWAYS TRIGGER seals_append_only`

// A log of the version before migration 14 is encrypted: it answers as before, also from
// rebuilt read models, an erasure reaches it, and no name is left in the database's files.
func TestEncryptOldLog(t *testing.T) {
	l := restoreOldLog(t)
	l.exec(sealPlanted)
	l.upgrade("MEDILAB_SUBJECT=room")
	const name = "Иван"
	if !strings.Contains(l.command(0, "", "audit", "log", "--format", "ndjson"), name) {
		t.Fatal("the log does not have the name")
	}
	before := l.allAnswers()
	problems := l.verified()
	if strings.Contains(problems, `"seal"`) { // entries that do not decode stay
		t.Fatalf("the log is damaged: %s", problems)
	}
	var encrypted struct{ Until, Entries int64 }
	if out := l.command(0, "", "keys", "encrypt", "--json"); json.Unmarshal([]byte(out), &encrypted) != nil || encrypted.Until < l.was.Head || encrypted.Entries < 100 {
		t.Errorf("encrypted %s", out)
	}
	check := func(when string) {
		t.Helper()
		for path, now := range l.allAnswers() {
			if now != before[path] {
				t.Errorf("%s, %s answers\n%.2000s\nand answered\n%.2000s", when, path, now, before[path])
			}
		}
		if now := l.verified(); now != problems {
			t.Errorf("%s, the check finds %s, found %s", when, now, problems)
		}
	}
	check("encrypted")
	l.command(0, "", "projections", "rebuild", "--all")
	check("rebuilt")
	if out := l.command(0, "", "subjects", "export", "1"); !strings.Contains(out, name) {
		t.Errorf("the export is %.500s", out)
	}
	l.command(0, "", "subjects", "erase", "1", "--reason", "asked for")
	if out := l.command(0, "", "subjects", "export", "1"); strings.Contains(out, name) {
		t.Errorf("erased, the export is %.500s", out)
	}
	l.stop()
	l.exec(`VACUUM FULL medilab.events`)
	l.exec(`CHECKPOINT`)
	l.inNoTable(name)
}

// allAnswers returns what the API answers of all that the fixture asked for, and of what
// matches the history again.
func (l *oldLog) allAnswers() map[string]string {
	l.t.Helper()
	answers := map[string]string{}
	ask := func(method, path, body string) {
		status, answer := l.request(method, "/api/v1"+path, body)
		if status != http.StatusOK && status != http.StatusAccepted {
			l.t.Errorf("%s %s answered %d: %.300s", method, path, status, answer)
		}
		answers[method+" "+path] = string(answer)
	}
	for path := range l.was.Requests {
		if !strings.HasPrefix(path, "/webhooks/system/") { // which tells of this moment
			ask("GET", path, "")
		}
	}
	const all = `{"from":"2020-01-01T00:00:00Z","to":"2100-01-01T00:00:00Z"`
	for _, w := range l.webhooks() {
		ask("POST", "/webhooks/"+w.ID+"/backtest", all+`,"filters":{"amount":{"$gt":300}}}`)
		ask("POST", "/webhooks/"+w.ID+"/replay", all+`,"dry_run":true}`)
	}
	return answers
}

// inNoTable fails the test if a file of the database holds the text.
func (l *oldLog) inNoTable(text string) {
	l.t.Helper()
	rows, _ := l.conn.Query(l.t.Context(), `SELECT name FROM (SELECT 'base/' || oid AS folder FROM pg_database WHERE datname = current_database()) AS d, pg_ls_dir(folder) AS name
		WHERE position(convert_to($1, 'UTF8') IN pg_read_binary_file(folder || '/' || name)) > 0`, text)
	if names, err := pgx.CollectRows(rows, pgx.RowTo[string]); err != nil || len(names) > 0 {
		l.t.Errorf("the files %v hold %q, %v", names, text, err)
	}
}
