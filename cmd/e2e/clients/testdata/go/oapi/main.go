// Command oapi creates a webhook and triggers an event by a client that oapi-codegen made.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"

	"clients/oapi/client"
)

func main() {
	if err := run(context.Background(), os.Getenv("SERVER"), os.Getenv("TOKEN"), os.Getenv("RECEIVER")); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, server, token, receiver string) error {
	c, err := client.NewClientWithResponses(server, client.WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
		r.Header.Set("Authorization", "Bearer "+token)
		return nil
	}))
	if err != nil {
		return err
	}
	filters := map[string]any{"amount_min": 1000}
	created, err := c.RegisterWebhookWithResponse(ctx, nil, client.NewWebhook{
		Name: "oapi-codegen", Url: receiver, Events: []string{"visit.*"}, Filters: &filters,
	})
	if err != nil {
		return err
	}
	if created.JSON201 == nil {
		return errors.New(created.Status())
	}
	triggered, err := c.TriggerEventWithResponse(ctx, nil, client.NewEvent{
		EventType: "visit.created", EventData: map[string]any{"amount": 1500, "client": "oapi-codegen"},
	})
	if err != nil {
		return err
	}
	if triggered.JSON202 == nil {
		return errors.New(triggered.Status())
	}
	fmt.Println(created.JSON201.Id, triggered.JSON202.EventId)
	return nil
}
