package browser

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// Token is the admin token of Serve's servers.
const Token = "admin-token-of-browser-tests-0123456789"

// Serve builds the product and starts it, with the database at the URL, on a
// port of its own; it gives its address, such as http://127.0.0.1:4711. The
// server ends with the test.
func Serve(t *testing.T, database string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "medilab-webhooks")
	if output, err := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", binary, "github.com/medilab/webhooks/cmd/medilab-webhooks").CombinedOutput(); err != nil {
		t.Fatalf("build the server: %v\n%s", err, output)
	}
	server := exec.Command(binary, "serve") //nolint:noctx // it is ended by a signal, as a user ends it
	server.Env = append(os.Environ(), "DATABASE_URL="+database, "MEDILAB_DATA_DIR="+t.TempDir(), "MEDILAB_ADDR=127.0.0.1:0",
		"MEDILAB_TOKEN="+Token, "MEDILAB_ALLOW_TARGETS=loopback", "MEDILAB_LOG=json")
	log, err := server.StderrPipe()
	must(t, err)
	must(t, server.Start())
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGTERM) // that it is gone already shows in Wait
		if err := server.Wait(); err != nil {
			t.Errorf("the server ended badly: %v", err)
		}
	})
	lines := bufio.NewReader(log)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			t.Fatalf("the server ended before it served: %v", err)
		}
		var entry struct{ Msg, Address string }
		if json.Unmarshal(line, &entry) == nil && entry.Msg == "serving" {
			go func() { _, _ = io.Copy(io.Discard, lines) }() // until the server ends
			return entry.Address
		}
		if testing.Verbose() {
			t.Logf("%s", line)
		}
	}
}
