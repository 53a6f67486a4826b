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

	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/projections"
)

// followCalls prints the items, and then the calls that come, a line each, until the command
// is interrupted.
func followCalls(c *cobra.Command, a *apiClient, path string, query url.Values, items []json.RawMessage) error {
	const pause = time.Second
	whose := newLabels(c, a)
	for last := int64(0); ; {
		newest, err := printCalls(c, whose, items, last)
		if err != nil {
			return err
		}
		last = max(last, newest)
		if eventstore.Sleep(c.Context(), pause) != nil {
			return nil
		}
		if items, err = a.callsAfter(c.Context(), path, query, last); err != nil && c.Context().Err() == nil {
			return err
		}
	}
}

// callsAfter reads the newest calls, the newest first: all those recorded after the position, and
// perhaps others.
func (a *apiClient) callsAfter(ctx context.Context, path string, query url.Values, after int64) (items []json.RawMessage, err error) {
	const usual, more = 100, 10
	for limit := usual; ; limit *= more {
		query.Del("cursor")
		items, err = a.newest(ctx, path, query, limit)
		if err != nil || len(items) < limit {
			return items, err
		}
		var oldest projections.Call
		if err = json.Unmarshal(items[limit-1], &oldest); err != nil || oldest.ID.Position() <= after {
			return items, err
		}
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
