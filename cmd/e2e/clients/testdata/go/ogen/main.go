// Command ogen creates a webhook and triggers an event by a client that ogen made.
package main

import (
	"context"
	"fmt"
	"log"
	"net/url"
	"os"

	"clients/ogen/client"

	"github.com/go-faster/jx"
	"github.com/ogen-go/ogen/ogenerrors"
)

func main() {
	if err := run(context.Background(), os.Getenv("SERVER"), os.Getenv("RECEIVER")); err != nil {
		log.Fatal(err)
	}
}

type token string

func (t token) BearerToken(context.Context, client.OperationName) (client.BearerToken, error) {
	return client.BearerToken{Token: string(t)}, nil
}

func (token) SessionCookie(context.Context, client.OperationName) (client.SessionCookie, error) {
	return client.SessionCookie{}, ogenerrors.ErrSkipClientSecurity
}

func run(ctx context.Context, server, receiver string) error {
	c, err := client.NewClient(server, token(os.Getenv("TOKEN")))
	if err != nil {
		return err
	}
	target, err := url.Parse(receiver)
	if err != nil {
		return err
	}
	answer, err := c.RegisterWebhook(ctx, &client.NewWebhook{
		Name: "ogen", URL: *target, Events: []string{"visit.*"},
		Filters: client.NewOptNilNewWebhookFilters(client.NewWebhookFilters{"amount_min": jx.Raw("1000")}),
	}, client.RegisterWebhookParams{})
	if err != nil {
		return err
	}
	created, ok := answer.(*client.Webhook)
	if !ok {
		return fmt.Errorf("%T", answer)
	}
	accepted, err := c.TriggerEvent(ctx, &client.NewEvent{
		EventType: "visit.created", EventData: client.NewEventEventData{"amount": jx.Raw("1500"), "client": jx.Raw(`"ogen"`)},
	}, client.TriggerEventParams{})
	if err != nil {
		return err
	}
	triggered, ok := accepted.(*client.Accepted)
	if !ok {
		return fmt.Errorf("%T", accepted)
	}
	fmt.Println(created.ID, triggered.EventID)
	return nil
}
