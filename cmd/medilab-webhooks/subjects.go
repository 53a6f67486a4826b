package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

// newSubjectReadingCommand returns a command that shows what is known of the patient.
func newSubjectReadingCommand(db *databaseOptions, use, short string, run func(c *cobra.Command, a *apiClient, path string) error) *cobra.Command {
	o := &apiOptions{database: db}
	c := newSubjectCommand(o, use, short, run)
	c.Example = "  medilab-webhooks subjects " + c.Name() + " 12345 --reason 'request no. 81'"
	declare(c, c.Flags(), o.readingTable())
	return c
}

// newSubjectCommand returns a command that asks about the patient of its argument.
func newSubjectCommand(o *apiOptions, use, short string, run func(c *cobra.Command, a *apiClient, path string) error) *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   use,
		Short: short,
		Args:  argsThat(oneArg("ID"), func(id string) bool { return id != "" }, "ID must not be empty"),
		RunE: o.run(func(c *cobra.Command, a *apiClient, args []string) error {
			return run(c, a, "/subjects/"+url.PathEscape(args[0]))
		}),
	})
}

// shownDisclosure is a disclosure as it is read, of which true, false and unknown are shown alike.
type shownDisclosure struct {
	projections.Disclosure
	Acknowledged any `json:"acknowledged"`
}

func (d shownDisclosure) row() []string {
	recipient := "-"
	if d.Recipient != nil {
		recipient = d.Recipient.Name
	}
	return []string{
		formatTime(d.FirstCallAt), formatTime(d.LastCallAt), d.WebhookName, recipient, d.URL, d.EventID.String(), d.EventType, string(d.Kind), fmt.Sprint(d.Acknowledged),
	}
}

func printDisclosures(c *cobra.Command, a *apiClient, path string) error {
	items, coveredFrom, err := a.newestCovered(c.Context(), path+"/disclosures", url.Values{}, math.MaxInt)
	if err != nil {
		return err
	}
	if err := noteCovered(c, coveredFrom); err != nil {
		return err
	}
	heading := []string{"FIRST CALL", "LAST CALL", "WEBHOOK", "RECIPIENT", "URL", "EVENT", "TYPE", "KIND", "ACKNOWLEDGED"}
	return printItems(c, items, heading, shownDisclosure.row)
}

func exportSubject(c *cobra.Command, a *apiClient, path string) error {
	const longest = 1 << 10
	answer, err := a.ask(c.Context(), http.MethodGet, path+"/export", nil, nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close() //nolint:errcheck // it was only read
	in := bufio.NewReaderSize(answer.Body, longest)
	beginning, _ := in.Peek(longest) // less, if there is less
	line, _, _ := bytes.Cut(beginning, []byte{'\n'})
	var first struct {
		CoveredFrom *time.Time `json:"covered_from"`
	}
	_ = json.Unmarshal(line, &first) // there is none, or it is long
	if _, err := io.Copy(c.OutOrStdout(), in); err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	return noteCovered(c, first.CoveredFrom)
}

// noteCovered says on the notes that the answer leaves out what is archived; nil: nothing is.
func noteCovered(c *cobra.Command, from *time.Time) error {
	if from == nil {
		return nil
	}
	_, err := fmt.Fprintf(c.ErrOrStderr(), say("What was recorded up to %s is archived and left out: `medilab-webhooks archive import` brings it back\n"), formatTime(*from))
	return err
}

func newSubjectsEraseCommand(db *databaseOptions) *cobra.Command {
	var reason string
	o := &apiOptions{database: db}
	c := newSubjectCommand(o, "erase ID --reason REASON", "Erase what the log holds of a patient, and cancel what waits to be sent", func(c *cobra.Command, a *apiClient, path string) error {
		if reason == "" {
			return usageError{errors.New("--reason is required; it stays in the log, so do not name the patient")}
		}
		var answer json.RawMessage
		err := a.post(c.Context(), path+"/erase", map[string]string{"reason": reason}, &answer)
		var unnoted error
		if a.session != nil { // also when only the deliveries could not be cancelled
			unnoted = a.session.anchors.addHeard(a.session.log)
		}
		if err != nil {
			return err
		}
		if unnoted != nil {
			if _, err := fmt.Fprintf(c.ErrOrStderr(), say("The erasure is not in %s, which cannot be written here: a running server writes it to its own file of anchors, or else the next one that starts does\n"), a.session.anchors.path); err != nil {
				return err
			}
		}
		var erased commands.Erased
		if err := json.Unmarshal(answer, &erased); err != nil {
			return err
		}
		text := fmt.Sprintf("Erased %d %s at position %d; %d %s cancelled\n", erased.Events, domain.Plural(erased.Events, "event", "events"), erased.Position,
			erased.Cancelled, domain.Plural(erased.Cancelled, "delivery is", "deliveries are"))
		if erased.UnencryptedUntil > 0 {
			text += fmt.Sprintf("Not erased: entries up to position %d, which an older version wrote without encryption: run keys encrypt\n", erased.UnencryptedUntil)
		}
		if erased.ArchivedTo > 0 {
			text += fmt.Sprintf("Not counted: what is archived, up to position %d; what the archives hold of the patient cannot be read any more either\n", erased.ArchivedTo)
		}
		return printResult(c, answer, text, text)
	})
	declare(c, c.Flags(), o.table())
	c.Example = "  medilab-webhooks subjects erase 12345 --reason 'request of 3 May'"
	c.Flags().StringVar(&reason, "reason", "", "why; it stays in the log")
	return c
}
