package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/migrations/testdb"
)

// The newline of the file that a value was read from is not part of it, wherever it is given.
func TestSettingsAreTrimmed(t *testing.T) {
	token := strings.Repeat("t", leastTokenLength)
	t.Setenv("DATABASE_URL", " postgres://clinic/medilab\n")
	t.Setenv("MEDILAB_TOKEN", token+"\r\n")
	t.Setenv("MEDILAB_WORKERS", " 7\n")
	t.Setenv("MEDILAB_JWT_ISSUER", "https://id.clinic.example\n")
	var s settings
	var db databaseOptions
	root := newRoot(io.Discard)
	declare(root, root.Flags(), append(s.table(), db.table()...))
	if err := root.ParseFlags([]string{"--addr", "127.0.0.1:8000\n"}); err != nil {
		t.Fatal(err)
	}
	if err := root.PreRunE(root, nil); err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string][2]string{
		"DATABASE_URL":       {db.url, "postgres://clinic/medilab"},
		"MEDILAB_TOKEN":      {s.tokenText, token},
		"MEDILAB_JWT_ISSUER": {s.jwt.Issuer, "https://id.clinic.example"},
		"--addr":             {s.addr, "127.0.0.1:8000"},
	} {
		if got[0] != got[1] {
			t.Errorf("%s: got %q", name, got[0])
		}
	}
	if s.workers != 7 {
		t.Errorf("MEDILAB_WORKERS: got %d", s.workers)
	}
}

// Settings that all commands have are checked by each: one that cannot be read is not its default.
// Help does without.
func TestSettingsOfAllCommandsAreChecked(t *testing.T) {
	for _, bad := range [][2]string{{"MEDILAB_KEEP_PAYLOADS", "x"}, {"MEDILAB_KEEP_PAYLOADS", "10ms"}, {"MEDILAB_SUBJECT", "patient_id, patient..id"}, {"MEDILAB_SUBJECT", ","}} {
		was := os.Getenv(bad[0])
		t.Setenv(bad[0], bad[1])
		for line, want := range map[string]int{"calls": 2, "audit verify": 2, "serve --addr 127.0.0.1:0": 2, "help": 0, "help calls": 0} {
			if got := run(t.Context(), strings.Fields(line), strings.NewReader(""), io.Discard, io.Discard); got != want {
				t.Errorf("with %s %s exits %d, want %d", bad, line, got, want)
			}
		}
		t.Setenv(bad[0], was)
	}
}

// What settings name is read before anything is made.
func TestServeMakesNothingByWrongSettings(t *testing.T) {
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken")
	if err := os.WriteFile(broken, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing")
	for name, env := range map[string]map[string]string{
		"types":       {"MEDILAB_EVENT_TYPES": missing},
		"no types":    {"MEDILAB_EVENT_TYPES": broken},
		"authorities": {"MEDILAB_CA_FILE": missing},
		"client":      {"MEDILAB_CLIENT_CERT_FILE": broken, "MEDILAB_CLIENT_KEY_FILE": broken},
		"certificate": {"MEDILAB_TLS_CERT_FILE": missing, "MEDILAB_TLS_KEY_FILE": missing},
		"keys":        {"MEDILAB_KEYS": broken},
		"standby":     {"MEDILAB_READ_URL": "postgres://standby:port/"},
		"profiles":    {"MEDILAB_DEBUG_ADDR": ":6060"},
		"traces":      {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
	} {
		t.Run(name, func(t *testing.T) {
			for key, value := range env {
				t.Setenv(key, value)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			data := filepath.Join(dir, "data")
			var notes strings.Builder
			if code := run(ctx, []string{"serve", "--addr", "127.0.0.1:0", "--data-dir", data}, strings.NewReader(""), io.Discard, &notes); code == 0 {
				t.Error("it serves")
			}
			if _, err := os.Stat(data); err == nil {
				t.Errorf("it makes a data folder, then it says: %s", &notes)
			}
		})
	}
}

// Nor does a command make tables.
func TestCommandsMakeNoTablesByWrongSettings(t *testing.T) {
	url := testdb.NewEmpty(t)
	t.Setenv("DATABASE_URL", url)
	t.Setenv("MEDILAB_EVENT_TYPES", filepath.Join(t.TempDir(), "missing"))
	if code := run(t.Context(), []string{"token", "list"}, strings.NewReader(""), io.Discard, io.Discard); code != 1 {
		t.Errorf("it ends with %d", code)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context())) //nolint:errcheck // it only reads
	var made bool
	if err := conn.QueryRow(t.Context(), `SELECT to_regnamespace('medilab') IS NOT NULL`).Scan(&made); err != nil || made {
		t.Errorf("there are tables: %t, %v", made, err)
	}
}

// A token that no header can carry would never be accepted.
func TestTokenOfTwoLinesIsRefused(t *testing.T) {
	t.Setenv("MEDILAB_TOKEN", strings.Repeat("t", leastTokenLength)+"\n"+strings.Repeat("u", leastTokenLength))
	var s settings
	root := newRoot(io.Discard)
	declare(root, root.Flags(), s.table())
	if err := root.PreRunE(root, nil); err == nil || !strings.Contains(err.Error(), "on one line") {
		t.Errorf("got %v", err)
	}
}

// A node that only reads says which standby it lacks, before it does anything.
func TestRoleReadNeedsAStandby(t *testing.T) {
	s := settings{rolesText: roleRead, database: databaseOptions{url: "postgres://clinic/medilab"}}
	if err := s.resolve(io.Discard); err == nil || !strings.Contains(err.Error(), "MEDILAB_READ_URL") {
		t.Errorf("got %v", err)
	}
	s.database.readURL = "postgres://standby/medilab"
	if err := s.resolve(io.Discard); err != nil || s.roles.String() != roleRead {
		t.Errorf("got %v, roles %s", err, s.roles)
	}
	if _, err := parseRoles("reed"); err == nil || !strings.Contains(err.Error(), roleRead) {
		t.Errorf("got %v", err)
	}
}
