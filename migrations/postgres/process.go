package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// child is a program that ends with this process.
type child struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when the program has ended and its output is read
	err   error         // how it ended; read it after ended
}

// startChild starts cmd. One goroutine owns it from start to end and keeps its thread, because the
// death signal belongs to the thread that forked, which Go would otherwise end or reuse at will.
func startChild(cmd *exec.Cmd) (*child, error) {
	c := &child{cmd: cmd, ended: make(chan struct{})}
	// A grandchild that keeps the output open must not block us for ever.
	cmd.WaitDelay = 5 * time.Second
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		c.err = cmd.Wait()
		if out, ok := cmd.Stdout.(*output); ok {
			out.close()
		}
		close(c.ended)
	}()
	return c, <-started
}

// stop requests a fast shutdown, an immediate one when ctx ends, and kills what ignores that.
func (c *child) stop(ctx context.Context) error {
	c.signal(syscall.SIGINT)
	select {
	case <-c.ended:
		return nil
	case <-ctx.Done():
	}
	c.signal(syscall.SIGQUIT)
	select {
	case <-c.ended:
		return nil
	case <-time.After(10 * time.Second):
	}
	c.signal(syscall.SIGKILL)
	<-c.ended
	return errors.New("the database ignored its shutdown and was killed; the next start recovers it")
}

// signal has no error to report: the only one is that the program has ended already.
func (c *child) signal(s syscall.Signal) { _ = c.cmd.Process.Signal(s) }

// combinedOutput runs cmd to its end and returns what it printed. When ctx ends it is killed.
func combinedOutput(ctx context.Context, cmd *exec.Cmd) (string, error) {
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	setDeathSignal(cmd, syscall.SIGKILL)
	c, err := startChild(cmd)
	if err != nil {
		return "", fmt.Errorf("run %s: %w", cmd.Path, err)
	}
	// The whole session: initdb has children of its own.
	defer context.AfterFunc(ctx, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })()
	<-c.ended
	return out.String(), cmp.Or(ctx.Err(), c.err)
}
