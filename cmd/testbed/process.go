// Package testbed runs what is around a measurement or a test of the built product: its
// processes and the receivers of its calls.
package testbed

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Process is a started program. It ends with this process, however that ends.
type Process struct {
	cmd   *exec.Cmd
	ended chan struct{}
	err   error // read it after ended
}

// Start starts the command.
func Start(cmd *exec.Cmd) (*Process, error) {
	p := &Process{cmd: cmd, ended: make(chan struct{})}
	dieWithParent(cmd)
	started := make(chan error, 1)
	go func() {
		// The kernel ties the death signal to the thread that forked, which must live as long.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.ended)
	}()
	return p, <-started
}

// Pid returns the process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.ended }

// Err returns how the process ended, as exec.Cmd.Wait does.
func (p *Process) Err() error { <-p.ended; return p.err }

// ExitCode returns the exit code of a process that has ended.
func (p *Process) ExitCode() int { return p.cmd.ProcessState.ExitCode() }

// Signal sends a signal, unless the process has ended.
func (p *Process) Signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// Ready waits until the URL answers 200.
func (p *Process) Ready(ctx context.Context, url string) error {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		if Status(ctx, url) == http.StatusOK {
			return nil
		}
		select {
		case <-ticker.C:
		case <-p.ended:
			return fmt.Errorf("%s ended before it was ready: %w", p.cmd.Path, p.err)
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", p.cmd.Path, ctx.Err())
		}
	}
}

// Stop ends the process by SIGTERM, or by SIGKILL when the patience is over, which is an error.
func (p *Process) Stop(patience time.Duration) error {
	if err := errors.Join(p.Signal(syscall.SIGCONT), p.Signal(syscall.SIGTERM)); err != nil {
		return err
	}
	select {
	case <-p.ended:
		return p.err
	case <-time.After(patience):
		err := p.Signal(syscall.SIGKILL)
		<-p.ended
		return errors.Join(fmt.Errorf("%s does not end on SIGTERM", p.cmd.Path), err)
	}
}

// FreeAddress returns a loopback address whose port is free now. Connections that go out
// take none of these, so that it stays free while a process starts again.
func FreeAddress() (addr string, err error) {
	const from, to, tries = 10_000, 32_000, 100
	for range tries {
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", from+rand.IntN(to-from))); err == nil {
			return l.Addr().String(), l.Close()
		}
	}
	return "", err
}
