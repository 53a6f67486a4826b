package testbed

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Client keeps as many connections as the callers of a clinic's service do, and follows no
// redirect: the product makes none.
var Client = &http.Client{
	Transport:     &http.Transport{MaxIdleConnsPerHost: 256, IdleConnTimeout: time.Minute},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// Response is what a request came to.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// Request makes a request, with the token unless that is empty, and reads the answer whole. An
// error says that none came.
func Request(ctx context.Context, token, method, url string, body []byte) (Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return Response{}, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := Client.Do(req)
	if err != nil {
		return Response{}, err
	}
	defer resp.Body.Close() //nolint:errcheck // it is read to its end
	text, err := io.ReadAll(resp.Body)
	return Response{resp.StatusCode, resp.Header, text}, err
}

// Call makes a request of an API with a JSON body, unless that is nil, and reads the answer, which
// must be a good one, into answer, unless that is nil.
func Call(ctx context.Context, token, method, url string, body, answer any) error {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return err
		}
	}
	a, err := Request(ctx, token, method, url, text)
	switch {
	case err != nil:
		return err
	case a.Status >= http.StatusMultipleChoices:
		return fmt.Errorf("%s %s answered %d: %.300s", method, url, a.Status, a.Body)
	case answer == nil:
		return nil
	}
	return json.Unmarshal(a.Body, answer)
}

// Status returns the status of a GET of the URL, or 0 when nobody answers soon.
func Status(ctx context.Context, url string) int {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	a, err := Request(ctx, "", http.MethodGet, url, nil)
	if err != nil {
		return 0
	}
	return a.Status
}

// Metric returns the sum of a metric over its labels, of the /metrics of the server at the URL.
func Metric(ctx context.Context, server, name string) (sum int, err error) {
	a, err := Request(ctx, "", http.MethodGet, server+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(a.Body)) {
		if rest, ok := strings.CutPrefix(line, name); ok && (rest[0] == '{' || rest[0] == ' ') {
			n, err := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndexByte(rest, ' '):]), 64)
			if err != nil {
				return 0, err
			}
			sum += int(n)
		}
	}
	return sum, nil
}
