package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	eventSize   = 500 // bytes of a trigger's body
	triggerPath = "/api/v1/webhooks/events/trigger"
)

// patients is of how many the events tell.
const patients = 100_000

// event is a trigger's body of eventSize bytes that says when it was made. Its
// note is text that no compression makes smaller, so that sizes say the truth.
func event(eventType string) []byte { return eventOf(eventType, rand.IntN(patients)) }

// eventOf is event for a patient.
func eventOf(eventType string, patient int) []byte {
	head := `{"event_type":"` + eventType + `","event_data":{"patient_id":` + strconv.Itoa(patient) + `,` + sentKey +
		fmt.Sprintf("%019d", int64(now())) + `","note":"`
	const tail = `"}}`
	n := max(0, eventSize-len(head)-len(tail))
	from := rand.IntN(len(notes) - n)
	return append(append(append(make([]byte, 0, eventSize), head...), notes[from:from+n]...), tail...)
}

// notes is text by chance, the same in every run, that events are cut from.
var notes = func() []byte {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ."
	source := rand.New(rand.NewPCG(1, 2))
	text := make([]byte, 1<<20)
	for i := range text {
		text[i] = letters[source.IntN(len(letters))]
	}
	return text
}()

func batch(eventType string, n int) []byte {
	var b bytes.Buffer
	b.WriteString(`{"events":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(event(eventType))
	}
	b.WriteString(`]}`)
	return b.Bytes()
}

// producer posts to the product or to the forwarder, the same way.
type producer struct {
	transport *http.Transport
	token     string
}

func newProducer(token string) *producer {
	return &producer{token: token, transport: &http.Transport{MaxIdleConnsPerHost: 1024, MaxIdleConns: 4096, DisableCompression: true}}
}

// post sends body and returns the ids of the events that were acknowledged.
func (p *producer) post(ctx context.Context, target *url.URL, body []byte) ([]string, error) {
	answer, err := p.ask(ctx, http.MethodPost, target, body, http.StatusAccepted)
	return eventIDs(answer), err
}

// ask returns the body of the answer, whose status must be the expected one.
func (p *producer) ask(ctx context.Context, method string, target *url.URL, body []byte, status int) ([]byte, error) {
	req := (&http.Request{
		Method: method, URL: target, Host: target.Host, ContentLength: int64(len(body)),
		Header: http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer " + p.token}},
		Body:   io.NopCloser(bytes.NewReader(body)),
	}).WithContext(ctx)
	resp, err := p.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	answer, err := readAnswer(resp)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	if resp.StatusCode != status {
		return nil, fmt.Errorf("%s answered %d: %.300s", target.Path, resp.StatusCode, answer)
	}
	return answer, nil
}

// readAnswer reads the body, in one piece if its length is known: what a page of a list takes here is
// taken from who answers.
func readAnswer(resp *http.Response) ([]byte, error) {
	if resp.ContentLength < 0 {
		return io.ReadAll(resp.Body)
	}
	answer := make([]byte, resp.ContentLength)
	_, err := io.ReadFull(resp.Body, answer)
	return answer, err
}

// eventIDs reads the ids out of an answer without decoding it whole.
func eventIDs(answer []byte) []string {
	var ids []string
	for {
		_, rest, found := bytes.Cut(answer, []byte(`"event_id":`))
		if !found {
			return ids
		}
		rest = bytes.TrimLeft(rest, " \n")
		if len(rest) < 38 {
			return ids
		}
		ids = append(ids, string(rest[1:37]))
		answer = rest[38:]
	}
}

// produced is what a load run got acknowledged.
type produced struct {
	ids     []string
	elapsed time.Duration // from the first request to the last answer
}

// load has callers, spread over the servers, post one event after the other until the time is
// over or limit events are acknowledged. Any refusal ends it: a rate with errors in it says
// nothing.
func (p *producer) load(ctx context.Context, o loadOptions, servers ...string) (produced, error) {
	targets := make([]*url.URL, len(servers))
	for i, server := range servers {
		var err error
		if targets[i], err = url.Parse(server + o.path); err != nil {
			return produced{}, err
		}
	}
	var taken atomic.Int64
	ids := make([][]string, o.callers)
	group, ctx := errgroup.WithContext(ctx)
	start := time.Now()
	end := start.Add(o.duration)
	for caller := range o.callers {
		target := targets[caller%len(targets)]
		group.Go(func() error {
			for time.Now().Before(end) && ctx.Err() == nil && taken.Add(int64(o.events)) <= int64(o.limit) {
				got, err := p.post(ctx, target, o.body())
				if err == nil && len(got) != o.events {
					err = fmt.Errorf("%d events were sent and %d acknowledged", o.events, len(got))
				}
				if err != nil {
					return err
				}
				ids[caller] = append(ids[caller], got...)
			}
			return nil
		})
	}
	err := group.Wait()
	return produced{slices.Concat(ids...), time.Since(start)}, err
}

type loadOptions struct {
	path     string
	callers  int
	events   int // in one request
	limit    int // events in all
	duration time.Duration
	body     func() []byte
}

// steady posts perSecond events a second, each on time whatever the one before
// does.
func (p *producer) steady(ctx context.Context, base string, perSecond int, duration time.Duration) (produced, error) {
	target, err := url.Parse(base + triggerPath)
	if err != nil {
		return produced{}, err
	}
	ids := make([][]string, int(duration.Seconds()*float64(perSecond)))
	var group errgroup.Group
	start := time.Now()
	tick := time.NewTicker(time.Second / time.Duration(perSecond))
	defer tick.Stop()
	for i := range ids {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return produced{}, ctx.Err()
		}
		group.Go(func() (err error) {
			ids[i], err = p.post(ctx, target, event(eventType))
			return err
		})
	}
	err = group.Wait()
	return produced{slices.Concat(ids...), time.Since(start)}, err
}

func count(n int) string { return strconv.Itoa(n) }
