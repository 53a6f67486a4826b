// Package clients checks that others' tools read the API's description: linters find nothing,
// and generators make clients that create a webhook and trigger an event.
package clients

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/migrations/testdb"
)

const token = "clients-admin-token-0123456789-0123456789"

// The tools come from the networks of Go and npm, which `make drive` needs nothing of: `make
// clients` asks for this.
func TestGeneratedClients(t *testing.T) {
	if os.Getenv("MEDILAB_CLIENTS") == "" {
		t.Skip("make clients runs it")
	}
	received := harness.Receive(t, nil)
	p := harness.NewProcess(t, "the server", harness.Program(t), harness.Environment(
		"DATABASE_URL="+testdb.New(t), "MEDILAB_DATA_DIR="+t.TempDir(), "MEDILAB_TOKEN="+token, "MEDILAB_ALLOW_TARGETS=loopback")...)
	p.Start()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"openapi.json", "asyncapi.json"} {
		description, err := p.Request(t.Context(), token, "GET", "/api/v1/"+name, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), description.Body, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	run := func(folder string, command ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
		cmd.Dir = filepath.Join(dir, folder)
		cmd.Env = append(os.Environ(), "SERVER=http://"+p.Addr, "TOKEN="+token, "RECEIVER="+received.URL, "GOFLAGS=-mod=mod")
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil {
			t.Fatalf("%s: %v\n%s%s", strings.Join(command, " "), err, &stdout, &stderr)
		}
		return stdout.String() + stderr.String()
	}

	run("ts", "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	if out := run("ts", "npx", "redocly", "lint", "--format=json", "../openapi.json"); !strings.Contains(out, `"warnings": 0`) {
		t.Error(out)
	}
	run("ts", "npx", "spectral", "lint", "--fail-severity=hint", "../openapi.json")
	// That there is a newer version of AsyncAPI is an information.
	run("ts", "npx", "spectral", "lint", "--fail-severity=warn", "--ruleset=asyncapi.yaml", "../asyncapi.json")

	run("ts", "make", "-C", root, "types", "SERVER=http://"+p.Addr, "TYPES="+filepath.Join(dir, "ts", "api.d.ts"))
	run("ts", "npx", "tsc")
	run("ts", "node", "out/client.js")

	for _, folder := range []string{"oapi/client", "ogen/client"} {
		if err := os.MkdirAll(filepath.Join(dir, "go", folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	run("go", "go", "tool", "oapi-codegen", "-generate", "types,client", "-package", "client", "-o", "oapi/client/client.go", "../openapi.json")
	run("go", "go", "tool", "ogen", "--target", "ogen/client", "--package", "client", "../openapi.json")
	run("go", "go", "run", "./oapi")
	run("go", "go", "run", "./ogen")

	// Each made a webhook, and every event after it is for that one too.
	var from []string
	for _, call := range received.Await(1 + 2 + 3) {
		for _, client := range []string{"oapi-codegen", "ogen", "openapi-typescript"} {
			if bytes.Contains(call.Body, []byte(`"`+client+`"`)) {
				from = append(from, client)
			}
		}
	}
	slices.Sort(from)
	if want := []string{"oapi-codegen", "oapi-codegen", "ogen", "ogen", "ogen", "openapi-typescript"}; !slices.Equal(from, want) {
		t.Errorf("received from %v, want %v", from, want)
	}
}
