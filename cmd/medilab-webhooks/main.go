// Command medilab-webhooks is the whole product in one binary: the server and
// the tools beside it. `medilab-webhooks help` lists them.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	// A reader that goes away, as head does, is an error of a write, and no reason to die with
	// a database still to be stopped.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal ends us at once
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run executes one command line and gives the process's exit code: 0 done, 1
// failed, 2 wrong usage. A failure is one line on stderr.
func run(ctx context.Context, args []string, in io.Reader, out, notes io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(notes)
	err := root.ExecuteContext(ctx)
	code, advice := 1, ""
	switch {
	case err == nil || readerGone(err):
		return 0
	case isUsage(err):
		code, advice = 2, "; `medilab-webhooks help` shows how"
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		err = errors.New("interrupted")
	}
	fmt.Fprintf(notes, "medilab-webhooks: %s%s\n", oneLine(err.Error()), advice)
	return code
}

// readerGone tells whether whoever read our output has had enough, which is no
// failure. A connection, to the database for one, breaks with the same EPIPE.
func readerGone(err error) bool {
	var file *fs.PathError
	return errors.As(err, &file) && errors.Is(file, syscall.EPIPE)
}

// oneLine joins the lines of a message.
func oneLine(s string) string {
	lines := strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' })
	for i, line := range lines {
		lines[i] = strings.TrimSpace(line)
	}
	return strings.Join(lines, "; ")
}
