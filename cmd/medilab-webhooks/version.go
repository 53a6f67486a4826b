package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version and commit are set by the Makefile.
var (
	version = "dev"
	commit  string
)

func newVersionCommand() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  medilab-webhooks version",
		RunE: func(c *cobra.Command, _ []string) error {
			of := cmp.Or(commit, stampedCommit(), "unknown")
			text := fmt.Sprintf("medilab-webhooks %s (commit %s, %s %s/%s)\n", version, of, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return printResult(c, map[string]string{"version": version, "commit": of, "go": runtime.Version()}, text, text)
		},
	})
}

// stampedCommit returns the commit that `go build` recorded, or "".
func stampedCommit() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return ""
}
