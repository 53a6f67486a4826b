// Command medilab-webhooks is the whole product in one binary: the server and
// the tools beside it. `medilab-webhooks help` lists them.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// run executes one command line and gives the process's exit code: 0 done, 1
// failed, 2 wrong usage. A failure is one line on stderr.
func run(ctx context.Context, args []string) int {
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case isUsage(err):
		fmt.Fprintf(os.Stderr, "medilab-webhooks: %v; `medilab-webhooks help` shows how\n", err)
		return 2
	default:
		fmt.Fprintf(os.Stderr, "medilab-webhooks: %v\n", err)
		return 1
	}
}
