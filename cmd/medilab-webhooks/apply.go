package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/medilab/webhooks/domain"
	api "github.com/medilab/webhooks/http"
)

type applyOptions struct {
	apiOptions
	file          string
	dryRun, prune bool
}

func newWebhooksApplyCommand(db *databaseOptions) *cobra.Command {
	o := applyOptions{apiOptions: apiOptions{database: db}}
	c := &cobra.Command{
		Use: "apply -f FILE", Short: "Make the webhooks those of a file: all of it or nothing",
		Long: `Make the webhooks those of a YAML or JSON file ("-" is standard input), which are matched by their
names: all of it or nothing. "webhooks export" prints such a file.

  webhooks:
    - name: CRM
      url: https://crm.example/hooks
      events: [patient.created, visit.*]
      secret: {env: CRM_SECRET}

A field that is left out gets its default; is_active stays as it is. {env: NAME} stands for what the
environment holds.`,
		Example: `  medilab-webhooks webhooks apply -f webhooks.yaml --dry-run
  medilab-webhooks webhooks apply -f webhooks.yaml --prune --server https://webhooks.clinic.example`,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c) },
	}
	f := c.Flags()
	f.StringVarP(&o.file, "file", "f", "", "the file; - is standard input")
	f.BoolVar(&o.dryRun, "dry-run", false, "only show what would change")
	f.BoolVar(&o.prune, "prune", false, "delete the webhooks that the file lacks")
	declare(c, f, o.table())
	cobra.CheckErr(c.MarkFlagRequired("file")) // fails only for a missing flag
	return withJSON(c)
}

func (o applyOptions) run(c *cobra.Command) error {
	var text []byte
	var err error
	if o.file == "-" {
		o.file = "standard input"
		text, err = io.ReadAll(c.InOrStdin())
	} else {
		text, err = os.ReadFile(o.file)
	}
	if err != nil {
		return fmt.Errorf("read the webhooks: %w; check --file", err)
	}
	file, list, err := readWebhooksFile(o.file, text)
	switch {
	case err != nil:
		return err
	case len(file.wrong) > 0:
		return file.report(c)
	case len(file.unset) > 0:
		return fmt.Errorf("%s names variables that are not set: %s; set them, nothing was applied", o.file, strings.Join(file.unset, ", "))
	}
	return o.use(c, func(a *apiClient) error {
		if err := a.sendFromHere(c.Context(), *o.database); err != nil {
			return err
		}
		var answer json.RawMessage
		err := a.post(c.Context(), "/webhooks/apply", map[string]any{"webhooks": list, "prune": o.prune, "dry_run": o.dryRun}, &answer)
		if file.refuseFields(domain.FieldsOf(err)); len(file.wrong) > 0 {
			return file.report(c)
		}
		switch {
		case err != nil:
			return err
		case wantsJSON(c):
			return printJSON(c.OutOrStdout(), answer)
		}
		return o.print(c, answer)
	})
}

// report prints what is wrong with the file, a line each.
func (f *webhooksFile) report(c *cobra.Command) error {
	for _, problem := range f.wrong {
		if _, err := fmt.Fprintln(c.ErrOrStderr(), sanitizeLine(problem)); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s has mistakes: %d; mend them, nothing was applied", f.path, len(f.wrong))
}

// print shows what differs: a webhook a paragraph, a field a line.
func (o applyOptions) print(c *cobra.Command, answer json.RawMessage) error {
	var a api.ApplicationView
	if err := json.Unmarshal(answer, &a); err != nil {
		return err
	}
	if len(a.Changed) == 0 {
		return printText(c.OutOrStdout(), fmt.Sprintf("nothing to do: %d %s as in %s\n", a.Unchanged, domain.Plural(a.Unchanged, "webhook is", "webhooks are"), o.file))
	}
	paint := newPaint(c.OutOrStdout())
	signs := map[string]string{"create": paint.in(green, "+"), "change": paint.in(yellow, "~"), "delete": paint.in(red, "-")}
	counts := map[string]int{}
	var b strings.Builder
	for _, w := range a.Changed {
		counts[w.Action]++
		fmt.Fprintf(&b, "%s %s", signs[w.Action], sanitizeLine(w.Name))
		if w.Number != nil && w.Action != "create" {
			b.WriteString(paint.say(fmt.Sprintf(" (webhook %d)", *w.Number)))
		}
		b.WriteByte('\n')
		for _, change := range w.Changes {
			b.WriteString(changeLine(change, w.Action == "create", paint))
		}
	}
	ending := "applied"
	if o.dryRun {
		ending = "nothing was changed (--dry-run)"
	}
	b.WriteString(paint.say(fmt.Sprintf("create %d, change %d, delete %d, leave %d: %s", counts["create"], counts["change"], counts["delete"], a.Unchanged, ending)))
	_, err := fmt.Fprintln(c.OutOrStdout(), b.String())
	return err
}

// changeLine says what a field was and becomes. Of a new webhook, only what it has is shown.
func changeLine(f api.FieldChangeView, created bool, paint paint) string {
	const empty = ` null false "" {} [] `
	was, became := textOfValue(f.Was, paint), textOfValue(f.Became, paint)
	switch {
	case created && strings.Contains(empty, " "+string(f.Became)+" "):
		return ""
	case created:
		return fmt.Sprintf("    %s: %s\n", f.Field, paint.in(green, became))
	case was == became: // secrets, which are masked
		became += paint.say(" (another)")
	}
	return fmt.Sprintf("    %s: %s -> %s\n", f.Field, paint.in(red, was), paint.in(green, became))
}

func textOfValue(value json.RawMessage, paint paint) string {
	var text string
	switch {
	case string(value) == "null":
		return paint.say("none")
	case json.Unmarshal(value, &text) == nil && text != "":
		return sanitizeLine(text)
	}
	return sanitizeLine(string(value))
}
