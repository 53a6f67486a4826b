package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
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
		group("archive", "Move the beginning of the log into signed files, and back",
			newArchiveExportCommand(db), newArchiveListCommand(db), newArchiveImportCommand(db)),
		group("audit", "Replay and verify the log",
			newAuditAnchorCommand(db), newAuditLogCommand(db), newAuditVerifyCommand(db)),
		newBacktestCommand(db),
		newCallsCommand(db),
		newDeliveriesCommand(db),
		newEmitCommand(db),
		newExplainCommand(db),
		newHealthcheckCommand(),
		group("keys", "List and rotate the keys that encrypt secrets at rest",
			newKeysListCommand(db), newKeysRotateCommand(db), newKeysRewrapCommand(db), newKeysEncryptCommand(db)),
		newListenCommand(db),
		newMigrateCommand(db),
		group("projections", "List and rebuild the read models",
			newProjectionsListCommand(db), newProjectionsRebuildCommand(db)),
		group("receipt", "Check receipts of what was sent", newReceiptVerifyCommand(db)),
		newReceiveCommand(),
		group("replay", "Send history again: start, watch and stop replays",
			newReplayStartCommand(db), newReplayListCommand(db),
			newOneReplayCommand(db, "show", "Show how far a replay has come", http.MethodGet, ""),
			newOneReplayCommand(db, "pause", "Let a replay ask for nothing more until it is resumed", http.MethodPost, "/pause"),
			newOneReplayCommand(db, "resume", "Let a paused replay go on", http.MethodPost, "/resume"),
			newOneReplayCommand(db, "cancel", "End a replay: what of it waits is cancelled, or of a retry failed as before", http.MethodPost, "/cancel")),
		newServeCommand(db),
		group("subjects", "Answer for what the log holds of a patient",
			newSubjectReadingCommand(db, "disclosures ID", "List who was sent what of a patient, when, and whether it was acknowledged, newest first", printDisclosures),
			newSubjectReadingCommand(db, "export ID", "Print every event and call about a patient, in lines of JSON", exportSubject),
			newSubjectsEraseCommand(db)),
		group("token", "Create, list and revoke API tokens",
			newTokenCreateCommand(db), newTokenListCommand(db), newTokenRevokeCommand(db)),
		newVersionCommand(),
		group("webhooks", "List, show and test webhooks, and keep them in a file",
			newWebhooksListCommand(db), newWebhooksShowCommand(db), newWebhooksTestCommand(db), newWebhooksExportCommand(db), newWebhooksApplyCommand(db)),
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

// oneArg accepts one argument, which help names like this.
func oneArg(name string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return fmt.Errorf("the argument %s is missing", name)
		}
		return cobra.ExactArgs(1)(c, args)
	}
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
