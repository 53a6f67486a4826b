package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/http/sender"
	"github.com/medilab/webhooks/projections"
)

// listenOptions are those of the command that stands in for a webhook.
type listenOptions struct {
	apiOptions
	events    []string
	forwardTo string
	secret    string
}

func newListenCommand(db *databaseOptions) *cobra.Command {
	o := listenOptions{apiOptions: apiOptions{database: db}}
	c := &cobra.Command{
		Use:   "listen",
		Short: "Print events as they come, and post them, signed, to a URL of yours",
		Long: `Prints events as they come and posts them, signed, to a URL of yours, as a webhook with
payload_version 1 would. It makes no webhook, and tries nothing again. What is only recorded
(deliver: false) goes to nobody, and is printed alone.`,
		Example: `  medilab-webhooks listen --forward-to http://127.0.0.1:9000/hook
  medilab-webhooks listen --events 'patient.*,visit.completed' --json | jq .event`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return usageError{err}
			}
			return o.use(c, func(a *apiClient) error { return o.listen(c, a) })
		},
	}
	c.Flags().StringSliceVar(&o.events, "events", []string{string(domain.AllEvents)}, "types or groups (patient.*), separated by commas")
	c.Flags().StringVar(&o.forwardTo, "forward-to", "", "post each event here")
	c.Flags().StringVar(&o.secret, "secret", "", "sign by this secret (whsec_, whsk_ or text) instead of a new one")
	declare(c, c.Flags(), o.readingTable())
	completeFlag(c, "events", o.listOfTypes)
	return withJSON(c)
}

func (o *listenOptions) check() error {
	if o.forwardTo != "" {
		for _, wrong := range domain.FieldsOf(domain.CheckURL(o.forwardTo)) {
			return errors.New("--forward-to " + wrong.Message)
		}
	}
	if o.secret == "" {
		random := make([]byte, 32)
		_, _ = rand.Read(random) // it never fails
		o.secret = domain.GeneratedSecret(random).Reveal()
	}
	return domain.CheckFields(domain.CheckSecret("--secret", domain.NewSecret(o.secret)))
}

func (o *listenOptions) listen(c *cobra.Command, a *apiClient) error {
	if err := o.checkEvents(c.Context(), a); err != nil {
		return err
	}
	forward, err := o.forwarder()
	if err != nil {
		return err
	}
	notes := c.OutOrStdout()
	if wantsJSON(c) {
		notes = c.ErrOrStderr()
	}
	if err := printText(notes, "Secret: "+o.secret+"\n"); err != nil {
		return err
	}
	listening := false
	return a.followStream(c.Context(), url.Values{"kinds": {"event"}}, func(item streamItem) (err error) {
		if item.kind == "" {
			if item.redacted {
				return errors.New("the token may not see what events hold: it needs the scope payloads:read")
			}
			if !listening {
				err = printText(notes, "Listening (Ctrl-C ends)\n")
			}
			listening = true
			return err
		}
		event := projections.Event{Deliver: true}
		if err := json.Unmarshal(item.data, &event); err != nil {
			return err
		}
		if !o.wants(domain.EventType(event.Type)) {
			return nil
		}
		heard := heard{Event: item.data, event: event}
		if o.forwardTo != "" && event.Deliver {
			forward(c.Context(), &heard)
		}
		return heard.print(c)
	})
}

// checkEvents refuses what matches no event type of the server.
func (o *listenOptions) checkEvents(ctx context.Context, a *apiClient) error {
	var types struct {
		Items []struct{ Type domain.EventType }
	}
	if err := a.get(ctx, "/webhooks/events/types", nil, &types); err != nil {
		return err
	}
	if len(o.events) == 0 { // --events "" would hear nothing
		o.events = []string{""}
	}
	for i, name := range o.events {
		o.events[i] = strings.TrimSpace(name)
		if !slices.ContainsFunc(types.Items, func(t struct{ Type domain.EventType }) bool { return domain.Subscription(o.events[i]).Matches(t.Type) }) {
			return usageError{fmt.Errorf("--events: %q is neither an event type, nor a group like patient.*, nor *", name)}
		}
	}
	return nil
}

func (o *listenOptions) wants(t domain.EventType) bool {
	return slices.ContainsFunc(o.events, func(s string) bool { return domain.Subscription(s).Matches(t) })
}

// heard is an event, and how it was forwarded.
type heard struct {
	Event          json.RawMessage `json:"event"`
	ResponseStatus *int            `json:"response_status"` // null: no answer
	DurationMS     *float64        `json:"duration_ms"`     // null: not forwarded
	Error          *string         `json:"error"`

	event projections.Event
}

func (h *heard) print(c *cobra.Command) error {
	if wantsJSON(c) {
		return printJSON(c.OutOrStdout(), h)
	}
	words := []string{formatTime(h.event.AcceptedAt), h.event.Type, h.event.ID.String()}
	if h.DurationMS != nil {
		words = append(words, textOf(h.ResponseStatus, "-"), fmt.Sprintf("%.1f ms", *h.DurationMS))
	}
	if h.Error != nil {
		words = append(words, *h.Error)
	}
	_, err := fmt.Fprintln(c.OutOrStdout(), sanitizeLine(strings.Join(append(words, string(h.event.Data)), "  ")))
	return err
}

// forwarder returns what posts events, each once, as a webhook of its own would get them.
func (o *listenOptions) forwarder() (func(context.Context, *heard), error) {
	const local = "loopback,private"
	targets, err := sender.ParseTargets(local)
	if err != nil {
		return nil, err
	}
	client, err := sender.New(sender.Config{AllowTargets: targets, MaxInFlight: 1, CAFile: o.caFile})
	if err != nil {
		return nil, err
	}
	attempter := &commands.Attempter{Sender: client, Decrypter: knownSecret(o.secret), Clock: eventstore.NewClock()}
	webhook := domain.Webhook{Version: 1, WebhookSettings: domain.WebhookSettings{
		ID: domain.WebhookID(uuid.New()), URL: o.forwardTo, Timeout: int(domain.TimeoutRange.Default), PayloadVersion: domain.PayloadV1, Secret: "known",
	}}
	return func(ctx context.Context, h *heard) {
		e := h.event
		call, _ := attempter.Make(ctx, commands.Attempt{
			Webhook: webhook, Delivery: domain.DeliveryOf(e.ID, webhook.ID), Number: 1, EventID: e.ID, OccurredAt: e.OccurredAt,
			Event: domain.EventTriggered{EventType: e.Type, Source: e.Source, CorrelationID: orZero(e.CorrelationID), EventData: e.Data, Trace: e.Trace()},
		})
		took := float64(call.Duration) / float64(time.Millisecond/time.Microsecond)
		h.DurationMS = &took
		if call.Status != 0 {
			h.ResponseStatus = &call.Status
		}
		if call.Error != "" {
			h.Error = &call.Error
		}
	}, nil
}

// knownSecret is a secret that nobody has encrypted.
type knownSecret string

// Decrypt implements commands.Decrypter.
func (s knownSecret) Decrypt(domain.WebhookID, string, domain.Sealed) (string, error) {
	return string(s), nil
}
