package main

import (
	"bufio"
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	api "github.com/medilab/webhooks/http"
)

// streamItem is an item of the stream; of no kind: one that says that the stream begins, or
// goes on over a new connection.
type streamItem struct {
	kind     string
	data     []byte
	redacted bool // of no kind: items lack what events hold
}

// followStream yields what happens from now on, over as many connections as that takes, until
// ctx ends, the server refuses or yield fails. At first the server must be there.
func (a *apiClient) followStream(ctx context.Context, query url.Values, yield func(streamItem) error) error {
	const pause = time.Second
	for last := ""; ; {
		known := last
		failed, err := a.readStream(ctx, query, &last, yield)
		refused, isRefused := errors.AsType[*domain.Error](err)
		switch {
		case ctx.Err() != nil:
			return nil
		case failed != nil:
			return failed
		case last == "", isRefused && refused.Kind != domain.KindInternal:
			return err
		}
		if last == known {
			_ = eventstore.Sleep(ctx, pause)
		}
	}
}

// readStream reads one connection to its end. last is the id of the last item of which all was
// read. failed is the error of yield.
func (a *apiClient) readStream(ctx context.Context, query url.Values, last *string, yield func(streamItem) error) (failed, err error) {
	response, err := a.ask(ctx, http.MethodGet, "/stream?"+query.Encode(), nil, http.Header{"Last-Event-Id": {*last}})
	if err != nil {
		return nil, err
	}
	defer response.Body.Close() //nolint:errcheck // it was only read
	item := streamItem{redacted: response.Header.Get(api.Redacted) != ""}
	id, begun := *last, false
	for in := bufio.NewReader(response.Body); ; {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return nil, errors.New("the stream has ended")
		}
		name, value, _ := strings.Cut(strings.TrimRight(string(line), "\r\n"), ": ")
		switch name {
		case "event":
			item.kind = value
		case "data":
			item.data = []byte(value)
		case "id":
			id = value
		case "":
			if item.kind != "" || !begun {
				failed = yield(item)
			}
			if failed != nil {
				return failed, nil
			}
			*last, item, begun = id, streamItem{}, true
		}
	}
}
