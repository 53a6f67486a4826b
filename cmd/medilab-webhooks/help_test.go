package main

import (
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Every command has examples in its help, which it would take.
func TestExamples(t *testing.T) {
	for _, c := range allCommands(newRoot(io.Discard)) {
		if c.Runnable() && !c.HasSubCommands() && c.Example == "" && c.Name() != "help" && c.Parent().Name() != "completion" {
			t.Errorf("%s has no example", c.CommandPath())
		}
		for line := range strings.Lines(c.Example) {
			line, _, _ = strings.Cut(strings.TrimSpace(line), " | ")
			line, _, _ = strings.Cut(line, " > ")
			args := words(line)
			found, rest, err := newRoot(io.Discard).Find(args[1:])
			if err != nil || found.CommandPath() != c.CommandPath() || args[0] != "medilab-webhooks" {
				t.Errorf("%s has the example %q: %v", c.CommandPath(), line, err)
				continue
			}
			if err := found.ParseFlags(rest); err != nil {
				t.Errorf("%q: %v", line, err)
				continue
			}
			if err := found.ValidateArgs(found.Flags().Args()); err != nil {
				t.Errorf("%q: %v", line, err)
			}
		}
	}
}

func allCommands(c *cobra.Command) (all []*cobra.Command) {
	for _, sub := range c.Commands() {
		all = append(append(all, sub), allCommands(sub)...)
	}
	return all
}

// words splits a command line as a shell does, of whose quotes it knows the single ones.
func words(line string) (list []string) {
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			list = append(list, part)
		} else {
			list = append(list, strings.Fields(part)...)
		}
	}
	return list
}

// What a shell completes comes from the database, or from the server that a command asks.
func TestCompletionOfWebhooksAndTypes(t *testing.T) {
	c := newAPICLI(t, 200)
	for _, where := range [][]string{nil, {"--server", c.server, "--token", remoteToken, "--ca-file", c.ca}} {
		for line, want := range map[string]string{
			"webhooks show|": "1\tCRM\n", "calls|": "1\tCRM\n", "replay list|": "1\tCRM\n", "deliveries --webhook|": "1\tCRM\n", "replay start|": "1\tCRM\n",
			"calls --type|": "patient.created\n", "replay start 1 --types|visit.created,": "visit.created,patient.created\n", "backtest 1 --events|": "patient.created\n", "listen --events|": "patient.created\n",
			"webhooks list --type|": "patient.created\n", "webhooks test 1 --type|": "patient.created\n",
		} {
			before, typed, _ := strings.Cut(line, "|")
			args := strings.Fields(before)
			at := len(args)
			if strings.HasPrefix(args[at-1], "--") {
				at-- // the flag stands before what is completed
			}
			args = append(append(append([]string{"__complete"}, args[:at]...), where...), append(args[at:], typed)...)
			if out, _ := c.run(0, "", args...); !strings.Contains(out, want) {
				t.Errorf("%q completes %s", args, out)
			}
		}
	}
}
