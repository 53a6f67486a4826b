package security

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/migrations/testdb"
)

const insufficientPrivilege = "42501"

// The documented role serves, and cannot change what is in the log by any means.
func TestServiceRole(t *testing.T) {
	owner := testdb.New(t)
	admin, err := pgx.Connect(t.Context(), owner)
	if err != nil {
		t.Fatal(err)
	}
	const password = "of-the-service"
	role := "medilab_service_" + filepath.Base(admin.Config().Database)
	exec := func(conn *pgx.Conn, sql string) error {
		_, err := conn.Exec(context.WithoutCancel(t.Context()), sql)
		return err
	}
	if err := exec(admin, `CREATE ROLE `+role+` LOGIN PASSWORD '`+password+`'`); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := errors.Join(exec(admin, `DROP OWNED BY `+role), exec(admin, `DROP ROLE `+role), admin.Close(context.Background()))
		if err != nil {
			t.Error(err)
		}
	})
	script, err := os.ReadFile("../../docs/roles.sql")
	if err != nil {
		t.Fatal(err)
	}
	if err := exec(admin, strings.ReplaceAll(string(script), `:"role"`, role)); err != nil {
		t.Fatal(err)
	}
	as, err := url.Parse(owner)
	if err != nil {
		t.Fatal(err)
	}
	as.User = url.UserPassword(role, password)

	p := start(t, "DATABASE_URL="+as.String(), "MEDILAB_KEYS="+filepath.Join(t.TempDir(), "keys.json"), "MEDILAB_ALLOW_TARGETS=loopback")
	receiver := harness.Receive(t, nil)
	id := p.register(receiver.URL, "")
	p.api(202, "POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{}}`, nil)
	p.Until("the call is recorded", func() bool { c := p.calls(id); return len(c) == 1 && c[0].Status == "success" })

	for _, path := range []string{"/audit/verify", "/projections/stats/rebuild"} { // they make tables
		status, answer := p.as(adminToken, "POST", "/api/v1"+path, "")
		if status != 403 || !strings.Contains(string(answer), "as the owner of the tables") {
			t.Errorf("%s is answered with %d %s", path, status, answer)
		}
	}
	if out, notes, err := harness.Run(t.Context(), p.Program, append(p.Env, "DATABASE_URL="+owner), "", "projections", "rebuild", "--all"); err != nil {
		t.Fatalf("rebuild: %v\n%s%s", err, out, notes)
	}
	p.api(202, "POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{}}`, nil)
	p.Until("the owner has rebuilt, and the next call is recorded", func() bool { return len(p.calls(id)) == 2 })

	service, err := pgx.Connect(t.Context(), as.String())
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close(t.Context()) //nolint:errcheck // nothing is kept
	for _, forbidden := range []string{
		`UPDATE medilab.events SET data = '{}'`, `DELETE FROM medilab.events`, `TRUNCATE medilab.events`, `TRUNCATE medilab.seals`,
		`UPDATE medilab.seals SET seal = ''`, `DELETE FROM medilab.seals`, `DROP TABLE medilab.events`, `ALTER TABLE medilab.events DISABLE TRIGGER ALL`,
		`ALTER TABLE medilab.events RENAME TO other`, `SET session_replication_role = replica`, `DROP FUNCTION medilab.refuse_change CASCADE`,
		`CREATE OR REPLACE FUNCTION medilab.refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`, `DROP SCHEMA medilab CASCADE`,
		`UPDATE medilab.unencrypted SET encrypted_to = position`, `DELETE FROM medilab.resealed`, `SELECT medilab.encrypt_entries(0, '{1}', '{a}', '{}', '{}')`,
	} {
		var refused *pgconn.PgError
		err := exec(service, forbidden)
		if !errors.As(err, &refused) || refused.Code != insufficientPrivilege || strings.Contains(refused.Message, "append-only") { // that is the trigger
			t.Errorf("%s: %v", forbidden, err)
		}
	}
}
