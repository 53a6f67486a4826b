package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/medilab/webhooks/projections"
)

// followCalls prints the items, and then the calls that come, a line each, until the command
// is interrupted.
func followCalls(c *cobra.Command, a *apiClient, path string, query url.Values, items []json.RawMessage) error {
	ctx, stop := context.WithCancel(c.Context())
	defer stop()
	wake := a.announced(ctx)
	last := int64(0)
	whose := newLabels(c, a)
	for {
		query.Del("cursor")
		newest, err := printCalls(c, whose, items, last)
		if err != nil {
			return err
		}
		last = max(last, newest)
		if !wake() {
			return nil
		}
		if items, err = a.callsAfter(ctx, path, query, last); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// callsAfter reads the calls recorded after the position, the newest first.
func (a *apiClient) callsAfter(ctx context.Context, path string, query url.Values, after int64) (items []json.RawMessage, err error) {
	for {
		query.Set("limit", "100")
		var page listPage
		if err := a.get(ctx, path, query, &page); err != nil {
			return nil, err
		}
		for _, item := range page.Items {
			var call projections.Call
			if err := json.Unmarshal(item, &call); err != nil {
				return nil, err
			}
			if call.ID.Position() <= after {
				return items, nil
			}
			items = append(items, item)
		}
		if page.Next == nil {
			return items, nil
		}
		query.Set("cursor", *page.Next)
	}
}

// printCalls prints calls after the position, the oldest first, and returns the position of
// the newest.
func printCalls(c *cobra.Command, whose labels, items []json.RawMessage, after int64) (newest int64, err error) {
	out := c.OutOrStdout()
	for _, item := range slices.Backward(items) {
		var call projections.Call
		if err := json.Unmarshal(item, &call); err != nil {
			return newest, err
		}
		if call.ID.Position() <= after {
			continue
		}
		newest = call.ID.Position()
		if wantsJSON(c) {
			err = printJSON(out, item)
		} else {
			row := callRow(call, whose)
			if isTerminal(out) && !wantsIDs(c) {
				row = withoutIDs(callHeading, row)
			}
			_, err = fmt.Fprintln(out, sanitizeLine(strings.Join(row, "  ")))
		}
		if err != nil {
			return newest, err
		}
	}
	return newest, nil
}

// announced returns a function that waits until there may be something new: the log
// announces it, or a second has passed, as a lone server announces nothing. It returns false
// when ctx ends.
func (a *apiClient) announced(ctx context.Context) (wait func() bool) {
	const pause = time.Second
	signals := make(chan struct{}, 1)
	if a.session != nil {
		go a.session.log.Listen(ctx, func([]string) {
			select {
			case signals <- struct{}{}:
			default:
			}
		})
	}
	return func() bool {
		timer := time.NewTimer(pause)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return false
		case <-signals:
		case <-timer.C:
		}
		return true
	}
}
