// Package testbed runs what is around a measurement or a test of the built product: its
// processes and the receivers of its calls.
package testbed

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
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

// Client keeps as many connections as the callers of a clinic's service do, and follows no
// redirect: the product makes none.
var Client = &http.Client{
	Transport:     &http.Transport{MaxIdleConnsPerHost: 256, IdleConnTimeout: time.Minute},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// Status returns the status of a GET of the URL, or 0 when nobody answers soon.
func Status(ctx context.Context, url string) int {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0
	}
	resp, err := Client.Do(req)
	if err != nil {
		return 0
	}
	resp.Body.Close() //nolint:errcheck // nothing is read
	return resp.StatusCode
}

// Metric returns the sum of a metric over its labels, of the /metrics of the server at the URL.
func Metric(ctx context.Context, server, name string) (sum int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := Client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close() //nolint:errcheck // it is read to its end
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), name); ok && (rest[0] == '{' || rest[0] == ' ') {
			n, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
			if err != nil {
				return 0, err
			}
			sum += int(n)
		}
	}
	return sum, lines.Err()
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
