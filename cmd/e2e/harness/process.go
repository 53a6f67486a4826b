package harness

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/medilab/webhooks/cmd/testbed"
)

// Patience bounds every wait; what goes well takes a part of it.
const Patience = 2 * time.Minute

// Process is one process of the product that serves. Its address stays the same over restarts, as
// behind a load balancer. It ends with the tests, however they end.
type Process struct {
	testing.TB
	Label   string // for people
	Program string
	Addr    string
	Env     []string // all of it
	Said    *Output

	mu      sync.Mutex
	running *testbed.Process // nil before the first start
}

// NewProcess makes a process that is not started yet, at an address of its own.
func NewProcess(t testing.TB, name, program string, env ...string) *Process {
	t.Helper()
	p := &Process{TB: t, Label: name, Program: program, Addr: FreeAddress(t), Said: new(Output)}
	p.Env = append([]string{"MEDILAB_ADDR=" + p.Addr}, env...)
	t.Cleanup(p.finish)
	return p
}

// Environment returns the environment of the tests without the product's settings, except the one
// that finds Postgres, and with the given ones, as NAME=value.
func Environment(settings ...string) []string {
	var env []string
	for _, kept := range os.Environ() {
		name, _, _ := strings.Cut(kept, "=")
		if name == "MEDILAB_POSTGRES_BIN" || !strings.HasPrefix(name, "MEDILAB_") && name != "DATABASE_URL" {
			env = append(env, kept)
		}
	}
	return append(env, settings...)
}

// FreeAddress returns a loopback address whose port is free now.
func FreeAddress(t testing.TB) string {
	t.Helper()
	address, err := testbed.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// ShortDir makes a folder for the test with a name short enough for a socket in it.
func ShortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(testbed.Scratch(), "run-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// Until asks again and again until the condition holds.
func Until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(Patience)
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for !holds() {
		if time.Now().After(deadline) || t.Context().Err() != nil {
			t.Fatalf("waited in vain until %s", what)
		}
		<-ticker.C
	}
}

// Until asks again and again until the condition holds.
func (p *Process) Until(what string, holds func() bool) {
	p.Helper()
	Until(p, what, holds)
}

// Launch starts the process and does not wait for it.
func (p *Process) Launch() {
	p.Helper()
	cmd := exec.Command(p.Program, "serve")
	cmd.Env = slices.Clip(p.Env)
	cmd.Stdout, cmd.Stderr = p.Said, p.Said
	running, err := testbed.Start(cmd)
	if err != nil {
		p.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running = running
}

// Start starts the process and waits until it is ready.
func (p *Process) Start() {
	p.Helper()
	p.Launch()
	ctx, cancel := context.WithTimeout(p.Context(), Patience)
	defer cancel()
	if err := p.now().Ready(ctx, "http://"+p.Addr+"/readyz"); err != nil {
		p.Fatalf("%s: %v\n%s", p.Label, err, p.Said)
	}
}

func (p *Process) now() *testbed.Process {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.now().Done() }

// Pid returns the process id.
func (p *Process) Pid() int { return p.now().Pid() }

// ExitCode returns the exit code of the process, which has ended.
func (p *Process) ExitCode() int { return p.now().ExitCode() }

// Signal sends a signal, unless the process has ended.
func (p *Process) Signal(s syscall.Signal) {
	p.Helper()
	if err := p.now().Signal(s); err != nil {
		p.Fatal(err)
	}
}

// Kill ends the process by SIGKILL.
func (p *Process) Kill() {
	p.Helper()
	p.Signal(syscall.SIGKILL)
	<-p.Done()
}

// Term sends SIGTERM, as an operator does, and returns the exit code.
func (p *Process) Term() int {
	p.Helper()
	p.Signal(syscall.SIGTERM)
	return p.Wait()
}

// Wait waits for the end of the process and returns its exit code.
func (p *Process) Wait() int {
	p.Helper()
	select {
	case <-p.Done():
	case <-time.After(Patience):
		p.Fatalf("%s does not end\n%s", p.Label, p.Said)
	}
	return p.ExitCode()
}

// Running reports whether the process was started and has not ended.
func (p *Process) Running() bool {
	running := p.now()
	if running == nil {
		return false
	}
	select {
	case <-running.Done():
		return false
	default:
		return true
	}
}

// finish ends what is left of the process at the end of the test: on SIGTERM it must end well.
func (p *Process) finish() {
	if p.Running() {
		if err := p.now().Stop(Patience); err != nil {
			p.Errorf("after SIGTERM %s ended with %v", p.Label, err)
		}
	}
	if p.Failed() {
		p.Logf("%s said, at last:\n%s", p.Label, p.Said.Tail())
	}
}

// Run runs another command of the product and returns what it printed and how it ended.
func Run(ctx context.Context, program string, env []string, stdin string, args ...string) (out, notes string, err error) {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = env
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	return stdout.String(), stderr.String(), err
}
