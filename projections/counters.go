package projections

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"math"
	"sort"

	"encoding/binary"

	"github.com/medilab/webhooks/domain"
)

// counters are what statistics count, of a webhook or of the whole system, in an
// hour or in all time. They add up.
type counters struct {
	calls     int64
	successes int64
	timeouts  int64
	retries   int64
	timed     int64 // calls that have a duration
	duration  int64 // of those, in microseconds

	pending   int64 // deliveries; of an hour: how many more than at its start
	delivered int64
	exhausted int64
	cancelled int64
	events    int64 // triggered; of the whole system only

	consecutive int64 // failed calls since the last that succeeded
	succeeded   bool  // in a page: some call did, so consecutive begins after it

	lastCall    int64 // microseconds since 1970; 0: none
	lastSuccess int64
	lastFailure int64

	byType    countsBy[string]
	byStatus  countsBy[string]
	histogram histogram

	figures domain.CallFigures // for alerts; of all time only
}

// call counts one call, recorded at the time.
func (c *counters) call(call *domain.Call, at time.Time) {
	micros := at.UnixMicro()
	c.calls++
	c.lastCall = micros
	switch call.Outcome {
	case domain.OutcomeSuccess:
		c.successes++
		c.consecutive, c.succeeded, c.lastSuccess = 0, true, micros
	case domain.OutcomeInterrupted: // what the receiver made of it is unknown
		c.lastFailure = micros
	default:
		c.consecutive++
		c.lastFailure = micros
	}
	if call.Outcome == domain.OutcomeTimeout {
		c.timeouts++
	}
	if call.Attempt > 1 {
		c.retries++
	}
	c.byType.add(call.EventType, 1)
	c.byStatus.add(statusName(call), 1)
	if call.Outcome != domain.OutcomeInterrupted {
		c.timed++
		c.duration += call.Duration
		c.histogram.add(bucketOf(call.Duration), 1)
	}
	c.figures.Count(call.Outcome, call.IsSystem(), at)
}

// failingSince returns when the first of the failures in a row was; nil if there is none, or if
// the figures for alerts, which alone have it, count other failures.
func (c *counters) failingSince() *time.Time {
	if c.consecutive == 0 || c.consecutive != c.figures.Failures || c.figures.FailingSince.IsZero() {
		return nil
	}
	return &c.figures.FailingSince
}

// deliveries returns the count of the deliveries in the state, which may be changed. Other states
// are not counted: what it returns for them is dropped.
func (c *counters) deliveries(state domain.DeliveryState) *int64 {
	switch state {
	case domain.DeliveryPending:
		return &c.pending
	case domain.DeliveryDelivered:
		return &c.delivered
	case domain.DeliveryFailed:
		return &c.exhausted
	case domain.DeliveryWithdrawn:
		return &c.cancelled
	}
	return new(int64)
}

// move takes a delivery from one state to another.
func (c *counters) move(from, to domain.DeliveryState) {
	*c.deliveries(from)--
	*c.deliveries(to)++
}

// statusName is the receiver's status, or the outcome when there was none.
func statusName(c *domain.Call) string {
	if c.Status >= 100 && c.Status <= 999 {
		return string([]byte{'0' + byte(c.Status/100), '0' + byte(c.Status/10%10), '0' + byte(c.Status%10)})
	}
	return string(c.Outcome)
}

// add adds what was counted later.
func (c *counters) add(d *counters) {
	c.calls += d.calls
	c.successes += d.successes
	c.timeouts += d.timeouts
	c.retries += d.retries
	c.timed += d.timed
	c.duration += d.duration
	c.delivered += d.delivered
	c.exhausted += d.exhausted
	c.cancelled += d.cancelled
	c.events += d.events
	c.addStanding(d)
	c.byType.addAll(d.byType)
	c.byStatus.addAll(d.byStatus)
	c.histogram.addAll(d.histogram)
	c.figures.Add(d.figures)
}

// addStanding adds of what was counted later how things stand after it.
func (c *counters) addStanding(d *counters) {
	c.pending += d.pending
	if d.succeeded || d.successes > 0 { // succeeded is not stored
		c.consecutive, c.succeeded = 0, true
	}
	c.consecutive += d.consecutive
	c.lastCall = max(c.lastCall, d.lastCall)
	c.lastSuccess = max(c.lastSuccess, d.lastSuccess)
	c.lastFailure = max(c.lastFailure, d.lastFailure)
}

// countersFormat stands before encoded counters.
const countersFormat = 2

// formerCounters is the format that lacks since when calls fail.
const formerCounters = 1

// encode returns the stored form, a few hundred bytes. Equal counters have equal forms.
func (c *counters) encode() []byte {
	v := varints{bytes: append(make([]byte, 0, 192), countersFormat)}
	c.code(&v, countersFormat)
	return v.bytes
}

var errCounters = errors.New("the stored statistics cannot be read: rebuild them")

// ScanBytes implements pgtype.BytesScanner: it reads the stored form. It keeps nothing of b.
func (c *counters) ScanBytes(b []byte) error {
	*c = counters{}
	if len(b) == 0 || b[0] != countersFormat && b[0] != formerCounters {
		return errCounters
	}
	v := varints{bytes: b[1:], decoding: true}
	c.code(&v, b[0])
	if v.failed {
		return errCounters
	}
	if c.lastCall != 0 {
		c.figures.LastCallAt = time.UnixMicro(c.lastCall).UTC()
	}
	return nil
}

// code encodes or decodes all fields in their stored order.
func (c *counters) code(v *varints, format byte) {
	for _, field := range [...]*int64{
		&c.calls, &c.successes, &c.timeouts, &c.retries, &c.timed, &c.duration,
		&c.pending, &c.delivered, &c.exhausted, &c.cancelled, &c.events,
		&c.consecutive, &c.lastCall, &c.lastSuccess, &c.lastFailure,
	} {
		v.int(field)
	}
	for _, counts := range [...]*countsBy[string]{&c.byType, &c.byStatus} {
		codeList(v, counts, func(item *count[string]) {
			v.text(&item.key)
			v.int(&item.n)
		})
	}
	codeList(v, &c.histogram, func(item *count[int]) {
		key := int64(item.key)
		v.int(&key)
		item.key = int(key)
		v.int(&item.n)
	})
	v.int(&c.figures.Failures)
	v.bool(&c.figures.TimedOut)
	last := int64(0)
	codeList(v, &c.figures.Minutes, func(m *domain.CallMinute) {
		step := m.Minute - last
		v.int(&step)
		m.Minute = last + step
		last = m.Minute
		v.int(&m.Calls)
		v.int(&m.Successes)
	})
	if format == formerCounters {
		return
	}
	since := int64(0)
	if !c.figures.FailingSince.IsZero() {
		since = c.figures.FailingSince.UnixMicro()
	}
	if v.int(&since); v.decoding && since != 0 {
		c.figures.FailingSince = time.UnixMicro(since).UTC()
	}
}

// countsBy are counts in the order of their keys: few enough that a slice is
// faster than a map, and equal ones are stored alike.
type countsBy[K cmp.Ordered] []count[K]

type count[K cmp.Ordered] struct {
	key K
	n   int64
}

func (c *countsBy[K]) add(key K, n int64) {
	at, found := slices.BinarySearchFunc(*c, key, func(have count[K], key K) int { return cmp.Compare(have.key, key) })
	if found {
		(*c)[at].n += n
		return
	}
	*c = slices.Insert(*c, at, count[K]{key, n})
}

func (c *countsBy[K]) addAll(from countsBy[K]) {
	for _, item := range from {
		c.add(item.key, item.n)
	}
}

// byKey returns the counts as JSON shows them.
func byKey(c countsBy[string]) map[string]int64 {
	m := make(map[string]int64, len(c))
	for _, item := range c {
		m[item.key] = item.n
	}
	return m
}

// histogram counts durations in buckets whose bounds never change, so that
// histograms add up over any range and equal their rebuild. A percentile is off
// by at most the width of a bucket, 10 %.
type histogram = countsBy[int]

// bounds are the buckets' upper ends in microseconds: from 100 µs, each a tenth
// above the one before, to beyond the longest call. They are computed in integers,
// so that every machine has the same.
var bounds = func() []int64 {
	const longest = 400_000_000 // µs
	list := []int64{100}
	for last := list[0]; last < longest; last = list[len(list)-1] {
		list = append(list, last+(last+9)/10)
	}
	return list
}()

func bucketOf(microseconds int64) int {
	return min(sort.Search(len(bounds), func(i int) bool { return microseconds <= bounds[i] }), len(bounds)-1)
}

// percentile returns the least duration in microseconds that at least the share
// of all durations does not exceed (nearest rank: of three calls the 99th
// percentile is the longest), as the middle of its bucket.
func percentile(h histogram, share float64) int64 {
	total := int64(0)
	for _, bucket := range h {
		total += bucket.n
	}
	const rounding = 1e-9 // 0.95 of 20 is the 19th, whatever floats make of it
	rank := max(1, int64(math.Ceil(share*float64(total)-rounding)))
	for _, bucket := range h {
		if rank -= bucket.n; rank <= 0 {
			low := int64(0)
			if bucket.key > 0 {
				low = bounds[bucket.key-1]
			}
			return (low + bounds[bucket.key]) / 2
		}
	}
	return 0
}

// varints encodes values or decodes them in the same order, so that a form is
// written down once.
type varints struct {
	bytes    []byte // encoded so far, or still to be decoded
	decoding bool
	failed   bool // bytes ended before a value did
}

func (v *varints) int(value *int64) {
	if !v.decoding {
		v.bytes = binary.AppendVarint(v.bytes, *value)
		return
	}
	n := 0
	if *value, n = binary.Varint(v.bytes); n <= 0 {
		v.fail()
		*value = 0
		return
	}
	v.bytes = v.bytes[n:]
}

func (v *varints) bool(value *bool) {
	n := int64(0)
	if *value {
		n = 1
	}
	v.int(&n)
	*value = n == 1
}

func (v *varints) text(value *string) {
	n := int64(len(*value))
	v.int(&n)
	switch {
	case !v.decoding:
		v.bytes = append(v.bytes, *value...)
	case n < 0 || n > int64(len(v.bytes)):
		v.fail()
	default:
		*value, v.bytes = string(v.bytes[:n]), v.bytes[n:]
	}
}

func (v *varints) fail() { v.failed, v.bytes = true, nil }

// codeList codes a list of items that take two bytes or more each.
func codeList[L ~[]T, T any](v *varints, list *L, item func(*T)) {
	n := int64(len(*list))
	v.int(&n)
	if v.decoding {
		if n < 0 || n > int64(len(v.bytes)/2) {
			v.fail()
			return
		}
		*list = make(L, n, n+1) // room for what is counted next
	}
	for i := range *list {
		item(&(*list)[i])
	}
}
