package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

// version is set by the Makefile.
var version = "dev"

func newVersionCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  medilab-webhooks version",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			text := fmt.Sprintf("medilab-webhooks %s (%s)\n", version, runtime.Version())
			return printResult(c, map[string]string{"version": version, "go": runtime.Version()}, text, text)
		},
	}
	addJSONFlag(c)
	return c
}
