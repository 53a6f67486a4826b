package harness

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
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

	mu    sync.Mutex
	cmd   *exec.Cmd
	ended chan struct{} // closed when the process has ended
	err   error         // how it ended
}

// NewProcess makes a process that is not started yet, at an address of its own.
func NewProcess(t testing.TB, name, program string, env ...string) *Process {
	t.Helper()
	p := &Process{TB: t, Label: name, Program: program, Addr: FreeAddress(t), Said: new(Output)}
	p.Env = append([]string{"MEDILAB_ADDR=" + p.Addr}, env...)
	t.Cleanup(p.finish)
	return p
}

// Environment is the tests' own without the settings of the product, of which only that stays which
// finds Postgres; and the settings, as NAME=value.
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

// FreeAddress finds a port that is free now.
func FreeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // nobody uses it
	return l.Addr().String()
}

// ShortDir makes a folder for the test with a name short enough for a socket in it.
func ShortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "run-")
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
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for !holds() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// Launch starts the process and does not wait for it.
func (p *Process) Launch() {
	p.Helper()
	cmd := exec.Command(p.Program, "serve")
	cmd.Env = slices.Clip(p.Env)
	cmd.Stdout, cmd.Stderr = p.Said, p.Said
	dieWithUs(cmd)
	ended := make(chan struct{})
	p.mu.Lock()
	p.cmd, p.ended = cmd, ended
	p.mu.Unlock()
	started := make(chan error, 1)
	go func() {
		// The signal of our death belongs to the thread that forked, which must live till then.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			err = cmd.Wait()
		}
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
		close(ended)
	}()
	if err := <-started; err != nil {
		p.Fatal(err)
	}
}

// Start starts the process and waits until it is ready.
func (p *Process) Start() {
	p.Helper()
	p.Launch()
	Until(p, p.Label+" is ready", func() bool {
		select {
		case <-p.Done():
			p.Fatalf("%s ended by itself: %v\n%s", p.Label, p.err, p.Said)
		default:
		}
		return p.Status("/readyz") == http.StatusOK
	})
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended
}

// Pid is the process's number.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// ExitCode is that of the process, which has ended.
func (p *Process) ExitCode() int { return p.cmd.ProcessState.ExitCode() }

// Signal sends a signal, unless the process has ended.
func (p *Process) Signal(s syscall.Signal) {
	p.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.Fatal(err)
	}
}

// Kill ends the process as the kernel does.
func (p *Process) Kill() {
	p.Helper()
	p.Signal(syscall.SIGKILL)
	<-p.Done()
}

// Term ends the process as an operator does, and gives its exit code.
func (p *Process) Term() int {
	p.Helper()
	p.Signal(syscall.SIGTERM)
	return p.Wait()
}

// Wait waits for the end of the process, and gives its exit code.
func (p *Process) Wait() int {
	p.Helper()
	select {
	case <-p.Done():
	case <-time.After(Patience):
		p.Fatalf("%s does not end\n%s", p.Label, p.Said)
	}
	return p.ExitCode()
}

// Running tells whether the process was started and has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.Done():
		return false
	default:
		return p.cmd != nil
	}
}

// finish ends what is left of the process at the end of the test: on SIGTERM it must end well.
func (p *Process) finish() {
	if p.cmd == nil {
		return
	}
	if p.Running() {
		p.cmd.Process.Signal(syscall.SIGCONT) //nolint:errcheck // it may have ended meanwhile
		p.cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // as above
		select {
		case <-p.ended:
			if p.err != nil {
				p.Errorf("after SIGTERM %s ended with %v", p.Label, p.err)
			}
		case <-time.After(Patience):
			p.cmd.Process.Kill() //nolint:errcheck // as above
			<-p.ended
			p.Errorf("%s does not end on SIGTERM", p.Label)
		}
	}
	if p.Failed() {
		p.Logf("%s said, at last:\n%s", p.Label, p.Said.Tail())
	}
}

// Run runs another command of the product, and gives what it printed and how it ended.
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
