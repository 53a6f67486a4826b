package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/medilab/webhooks/cmd/e2e/harness"
)

// The first steps of the README work as printed, but for the ports.
func TestReadmeFirstSteps(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## First steps\n")
	section, _, _ = strings.Cut(section, "\n## ")
	blocks := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(section, -1)
	if len(blocks) < 4 || !strings.HasPrefix(blocks[0][1], "bin/medilab-webhooks receive ") {
		t.Fatalf("found %d blocks, and not a receiver's first", len(blocks))
	}

	p := prepare(t)
	p.token = "" // the product makes its own
	p.start()
	receiver := harness.FreeAddress(t)
	home := t.TempDir()
	for link, target := range map[string]string{"bin": filepath.Dir(p.Program), "data": p.dataDir} {
		if err := os.Symlink(target, filepath.Join(home, link)); err != nil {
			t.Fatal(err)
		}
	}
	shell := func(script string) *exec.Cmd {
		c := exec.CommandContext(t.Context(), "sh", "-euc", strings.NewReplacer(
			"127.0.0.1:8000", p.Addr, "127.0.0.1:9000", receiver, "bin/medilab-webhooks receive", "exec bin/medilab-webhooks receive --addr "+receiver,
			"curl -sS", "curl -sS --fail-with-body",
		).Replace(script))
		c.Dir, c.Env = home, p.environment()
		return c
	}

	inspector, seen := shell(blocks[0][1]), new(harness.Output)
	inspector.Stdout, inspector.Stderr = seen, seen
	if err := inspector.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		inspector.Process.Kill() //nolint:errcheck // it may have ended, which the test says
		inspector.Wait()         //nolint:errcheck // it was killed
	}()
	p.Until("the receiver listens", func() bool { return strings.Contains(seen.String(), "Receiving on") })

	var steps, questions string
	for _, b := range blocks[1 : len(blocks)-1] {
		steps += b[1]
	}
	questions = blocks[len(blocks)-1][1]
	// Whoever types it takes longer than the call log does.
	wait := "\nuntil curl -sS \"$API/webhooks/1/calls\" -H \"Authorization: Bearer $TOKEN\" | grep -q '\"test\":false'; do :; done\n"
	out, err := shell(steps + wait + questions).CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	for _, want := range []string{`"would_match":false`, `"status":"success"`, `"success_rate":100`, `"verdict":"filtered"`, `"webhook.registered"`, `"recipients"`} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the steps do not show %s:\n%s", want, out)
		}
	}
	if calls := seen.String(); strings.Count(calls, "signature: valid") != 2 {
		t.Errorf("the receiver saw:\n%s", calls)
	}
}
