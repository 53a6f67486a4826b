// Command medilab-webhooks is the whole product in one binary: the server and its tools.
// `medilab-webhooks help` lists them.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
)

func main() {
	tuneMemory()
	// A reader that goes away, as head does, fails a write. It must not kill us before the
	// database is stopped.
	signal.Ignore(syscall.SIGPIPE)
	stopping := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup
		stopping = append(stopping, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), stopping...)
	context.AfterFunc(ctx, stop) // the second signal ends us at once
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// tuneMemory trades some memory for fewer collections: most of what a call allocates is garbage when
// it ends. GOGC and GOMEMLIMIT override it.
func tuneMemory() {
	const target, soft = 400, 224 << 20
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(target)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(soft)
	}
}

// run executes one command line and returns the exit code: 0 done, 1 failed, 2 wrong usage. It
// prints a failure as one line to notes.
func run(ctx context.Context, args []string, in io.Reader, out, notes io.Writer) int {
	root := newRoot(out)
	root.SetArgs(args)
	root.SetIn(in)
	root.SetErr(notes)
	err := root.ExecuteContext(ctx)
	code, advice := 1, ""
	switch {
	case err == nil || readerGone(err):
		return 0
	case isUsage(err):
		code, advice = 2, say("; `medilab-webhooks help` shows how")
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		err = errors.New("interrupted")
	}
	fmt.Fprintf(notes, "medilab-webhooks: %s%s\n", sayError(sanitizeLine(oneLine(err.Error()))), advice)
	return code
}

// readerGone reports whether our output's reader has closed it, which is not a failure. A broken
// connection, to the database say, has the same EPIPE but not as a PathError.
func readerGone(err error) bool {
	var file *fs.PathError
	return errors.As(err, &file) && errors.Is(file, syscall.EPIPE)
}

// oneLine joins the lines of a message. A part that repeats another is left out: pgx tries an
// address with TLS and without.
func oneLine(s string) string {
	var lines []string
	for line := range strings.FieldsFuncSeq(strings.ReplaceAll(s, "; ", "\n"), func(r rune) bool { return r == '\n' || r == '\r' }) {
		if line = strings.TrimSpace(line); !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	return strings.ReplaceAll(strings.Join(lines, "; "), ":; ", ": ")
}
