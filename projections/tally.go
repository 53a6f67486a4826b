package projections

import (
	"cmp"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/medilab/webhooks/domain"
)

// tally is what statistics count: of a webhook or of the whole system, in an
// hour or in all time. Tallies add up.
type tally struct {
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
	succeeded   bool  // in a page: some call did, so consecutive starts anew

	lastCall    int64 // microseconds since 1970; 0: none
	lastSuccess int64
	lastFailure int64

	byType    counts[string]
	byStatus  counts[string]
	histogram histogram

	figures domain.CallFigures // for alerts; of all time only
}

// call counts one call, recorded at the time.
func (t *tally) call(c *domain.Call, at time.Time) {
	micros := at.UnixMicro()
	success := c.Outcome == domain.OutcomeSuccess
	t.calls++
	t.lastCall = micros
	switch {
	case success:
		t.successes++
		t.consecutive, t.succeeded, t.lastSuccess = 0, true, micros
	case c.Outcome == domain.OutcomeInterrupted: // nobody knows what the receiver made of it
		t.lastFailure = micros
	default:
		t.consecutive++
		t.lastFailure = micros
	}
	if c.Outcome == domain.OutcomeTimeout {
		t.timeouts++
	}
	if c.Attempt > 1 {
		t.retries++
	}
	t.byType.add(c.EventType, 1)
	t.byStatus.add(statusName(c), 1)
	if c.Outcome != domain.OutcomeInterrupted {
		t.timed++
		t.duration += c.Duration
		t.histogram.add(bucketOf(c.Duration), 1)
	}
	t.figures.Count(c.Outcome, domain.EventType(c.EventType), at)
}

// statusName is the receiver's status, or the outcome when it gave none.
func statusName(c *domain.Call) string {
	if c.Status >= 100 && c.Status <= 999 {
		return string([]byte{'0' + byte(c.Status/100), '0' + byte(c.Status/10%10), '0' + byte(c.Status%10)})
	}
	return string(c.Outcome)
}

// add takes in what came later.
func (t *tally) add(d *tally) {
	t.calls += d.calls
	t.successes += d.successes
	t.timeouts += d.timeouts
	t.retries += d.retries
	t.timed += d.timed
	t.duration += d.duration
	t.pending += d.pending
	t.delivered += d.delivered
	t.exhausted += d.exhausted
	t.cancelled += d.cancelled
	t.events += d.events
	if d.succeeded {
		t.consecutive, t.succeeded = 0, true
	}
	t.consecutive += d.consecutive
	t.lastCall = max(t.lastCall, d.lastCall)
	t.lastSuccess = max(t.lastSuccess, d.lastSuccess)
	t.lastFailure = max(t.lastFailure, d.lastFailure)
	t.byType.addAll(d.byType)
	t.byStatus.addAll(d.byStatus)
	t.histogram.addAll(d.histogram)
	t.figures.Add(d.figures)
}

// counts are numbers by key, in the order of keys: few enough that a slice is
// quicker than a map, and equal ones are stored alike.
type counts[K cmp.Ordered] []count[K]

type count[K cmp.Ordered] struct {
	key K
	n   int64
}

func (c *counts[K]) add(key K, n int64) {
	at, found := slices.BinarySearchFunc(*c, key, func(have count[K], key K) int { return cmp.Compare(have.key, key) })
	if found {
		(*c)[at].n += n
		return
	}
	*c = slices.Insert(*c, at, count[K]{key, n})
}

func (c *counts[K]) addAll(from counts[K]) {
	for _, one := range from {
		c.add(one.key, one.n)
	}
}

// byName gives the counts as JSON shows them.
func byName(c counts[string]) map[string]int64 {
	m := make(map[string]int64, len(c))
	for _, one := range c {
		m[one.key] = one.n
	}
	return m
}

// tallyFormat stands before an encoded tally.
const tallyFormat = 1

// fields are the plain figures in the order in which they are stored.
func (t *tally) fields() []*int64 {
	return []*int64{&t.calls, &t.successes, &t.timeouts, &t.retries, &t.timed, &t.duration,
		&t.pending, &t.delivered, &t.exhausted, &t.cancelled, &t.events,
		&t.consecutive, &t.lastCall, &t.lastSuccess, &t.lastFailure}
}

// encode gives the stored form: a few dozen bytes of varints. Equal tallies
// have equal forms.
func (t *tally) encode() []byte {
	b := append(make([]byte, 0, 192), tallyFormat)
	for _, field := range t.fields() {
		b = binary.AppendVarint(b, *field)
	}
	for _, list := range []counts[string]{t.byType, t.byStatus} {
		b = binary.AppendVarint(b, int64(len(list)))
		for _, one := range list {
			b = binary.AppendVarint(b, int64(len(one.key)))
			b = append(b, one.key...)
			b = binary.AppendVarint(b, one.n)
		}
	}
	b = binary.AppendVarint(b, int64(len(t.histogram)))
	for _, one := range t.histogram {
		b = binary.AppendVarint(b, int64(one.key))
		b = binary.AppendVarint(b, one.n)
	}
	b = binary.AppendVarint(b, t.figures.Failures)
	b = binary.AppendVarint(b, one(t.figures.TimedOut))
	b = binary.AppendVarint(b, int64(len(t.figures.Minutes)))
	before := int64(0)
	for _, m := range t.figures.Minutes {
		b = binary.AppendVarint(b, m.Minute-before)
		b = binary.AppendVarint(b, m.Calls)
		b = binary.AppendVarint(b, m.Successes)
		before = m.Minute
	}
	return b
}

func one(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

var errTally = errors.New("the stored statistics cannot be read: rebuild them")

func decodeTally(b []byte) (*tally, error) {
	t := &tally{}
	return t, t.decode(b)
}

// decode reads the stored form into a zero tally. It keeps nothing of b.
func (t *tally) decode(b []byte) error {
	if len(b) == 0 || b[0] != tallyFormat {
		return errTally
	}
	d := varints{rest: b[1:]}
	for _, field := range t.fields() {
		*field = d.next()
	}
	for _, list := range []*counts[string]{&t.byType, &t.byStatus} {
		n := d.next()
		*list = make(counts[string], 0, d.most(n))
		for ; n > 0 && !d.bad; n-- {
			*list = append(*list, count[string]{d.text(), d.next()})
		}
	}
	n := d.next()
	t.histogram = make(histogram, 0, d.most(n))
	for ; n > 0 && !d.bad; n-- {
		t.histogram = append(t.histogram, count[int]{int(d.next()), d.next()})
	}
	t.figures.Failures = d.next()
	t.figures.TimedOut = d.next() == 1
	before := int64(0)
	n = d.next()
	t.figures.Minutes = make([]domain.CallMinute, 0, d.most(n))
	for ; n > 0 && !d.bad; n-- {
		m := domain.CallMinute{Minute: before + d.next(), Calls: d.next(), Successes: d.next()}
		before = m.Minute
		t.figures.Minutes = append(t.figures.Minutes, m)
	}
	if t.lastCall != 0 {
		t.figures.LastCallAt = time.UnixMicro(t.lastCall).UTC()
	}
	if d.bad {
		return errTally
	}
	return nil
}

// varints reads numbers until the first that is not there.
type varints struct {
	rest []byte
	bad  bool
}

func (d *varints) next() int64 {
	v, n := binary.Varint(d.rest)
	if n <= 0 {
		d.bad, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

// most is how many of a list of n can be there: each has two bytes at least. One
// more has room, as a list that was read mostly grows next.
func (d *varints) most(n int64) int64 { return 1 + min(max(n, 0), int64(len(d.rest)/2)) }

func (d *varints) text() string {
	n := d.next()
	if n < 0 || n > int64(len(d.rest)) {
		d.bad, d.rest = true, nil
		return ""
	}
	s := string(d.rest[:n])
	d.rest = d.rest[n:]
	return s
}
