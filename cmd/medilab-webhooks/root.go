package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newRoot assembles the command line, which prints to out. A new command is one file with its constructor, and a line
// here.
func newRoot(out io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:           "medilab-webhooks",
		Short:         "Webhooks of a clinic: an event goes in, a signed call goes out, the log can account for it",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetOut(out) // before completion is made, which keeps it
	db := new(databaseOptions)
	declare(root, root.PersistentFlags(), db.table())
	root.AddCommand(
		newArchiveCommand(db),
		newAuditCommand(db),
		newBacktestCommand(db),
		newCallsCommand(db),
		newDeliveriesCommand(db),
		newEmitCommand(db),
		newExplainCommand(db),
		newHealthcheckCommand(),
		newKeysCommand(db),
		newListenCommand(db),
		newMigrateCommand(db),
		newProjectionsCommand(db),
		newReceiptCommand(db),
		newReceiveCommand(),
		newReplayCommand(db),
		newServeCommand(db),
		newSubjectsCommand(db),
		newTokenCommand(db),
		newVersionCommand(),
		newWebhooksCommand(db),
	)
	root.InitDefaultHelpCmd()
	helpOfCommands(root)
	root.InitDefaultCompletionCmd()
	refuseWrongUsage(root)
	inLanguage(root)
	return root
}

// argsThat accepts a number of arguments for each of which right returns true; the message says
// what they must be.
func argsThat(number cobra.PositionalArgs, right func(string) bool, message string) cobra.PositionalArgs {
	return cobra.MatchAll(number, func(_ *cobra.Command, args []string) error {
		if !slices.ContainsFunc(args, func(arg string) bool { return !right(arg) }) {
			return nil
		}
		return errors.New(message)
	})
}

// webhookArg accepts a number of webhooks.
func webhookArg(number cobra.PositionalArgs) cobra.PositionalArgs {
	return argsThat(number, isWebhookName, "WEBHOOK must be a webhook's number or UUID")
}

func isUUID(text string) bool { return uuid.Validate(text) == nil }

// group returns a command that groups others.
func group(name, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: name, Short: short}
	c.AddCommand(commands...)
	return c
}

// helpOfCommands has help refuse what is no command, and help whatever the settings are.
func helpOfCommands(root *cobra.Command) {
	for _, c := range root.Commands() {
		if c.Name() == "help" {
			c.PersistentPreRun = func(*cobra.Command, []string) {}
			c.Args = func(_ *cobra.Command, args []string) error {
				_, rest, err := root.Find(args)
				if err == nil && len(rest) > 0 {
					err = fmt.Errorf("there is no command %q", strings.Join(args, " "))
				}
				return err
			}
		}
	}
}

// usageError is a mistake in the command line itself: exit code 2.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func isUsage(err error) bool {
	// Cobra returns these two itself, with no type and no hook.
	text := err.Error()
	return errors.As(err, new(usageError)) ||
		strings.HasPrefix(text, "unknown command ") || strings.HasPrefix(text, "required flag(s) ")
}

// refuseWrongUsage marks mistakes in flags and arguments, of this command and all below it, as
// usageError. A command that says nothing of arguments takes none, and one that only groups
// others does nothing by itself.
func refuseWrongUsage(c *cobra.Command) {
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		if wrong := (*pflag.InvalidValueError)(nil); errors.As(err, &wrong) {
			err = fmt.Errorf("--%s: %w", wrong.GetFlag().Name, wrongValue(wrong.GetFlag(), wrong.GetValue()))
		}
		return usageError{err}
	})
	if c.Args == nil && c.HasParent() {
		c.Args = cobra.NoArgs
	}
	if !c.Runnable() && c.HasParent() {
		c.RunE = func(c *cobra.Command, _ []string) error {
			var names []string
			for _, sub := range c.Commands() {
				names = append(names, sub.Name())
			}
			return usageError{fmt.Errorf("%s needs to know what: %s", c.Name(), strings.Join(names, ", "))}
		}
	}
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return usageError{err}
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		refuseWrongUsage(sub)
	}
}
