package http

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/medilab/webhooks/domain"
)

// failures slows down those who try tokens. Whose token is good is never slowed,
// from whatever address: many share one behind a gateway.
//
// Each address has so many free failures, which come back with time; each one
// beyond them is answered later than the one before. Answers that wait are
// bounded by address: beyond that they are refused at once.
type failures struct {
	now  func() time.Time
	wait func(ctx context.Context, d time.Duration)

	mu     sync.Mutex
	owners map[netip.Prefix]*debt
	swept  time.Time
}

const (
	freeFailures   = 50
	forgivenEvery  = 500 * time.Millisecond // a failure of an address
	failureDelay   = 100 * time.Millisecond // a failure beyond the free ones adds this
	maxDelay       = 3 * time.Second
	maxDelayed     = 16     // answers of an address that wait at once
	maxFailing     = 16_384 // addresses that are remembered
	bitsOfNetwork6 = 64     // what one subscriber of IPv6 has
)

// debt is what failures of an address have not been forgiven yet.
type debt struct {
	failed  int
	since   time.Time // up to when failures were forgiven
	waiting int
}

func newFailures() *failures {
	return &failures{now: time.Now, wait: wait, owners: map[netip.Prefix]*debt{}}
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// slow counts a failed login and returns, when its time has come, what to answer.
func (f *failures) slow(r *http.Request, err error) error {
	if !errors.Is(err, domain.KindUnauthorized) {
		return err
	}
	owner := ownerOf(r.RemoteAddr)
	delay, ok := f.count(owner)
	if !ok {
		return domain.Throttled("too many failed logins from this address; try again later")
	}
	if delay > 0 {
		f.wait(r.Context(), delay)
		f.done(owner)
	}
	return err
}

func (f *failures) count(owner netip.Prefix) (delay time.Duration, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	d := f.owners[owner]
	if d == nil {
		f.makeRoom(now)
		d = &debt{since: now}
		f.owners[owner] = d
	}
	d.forgive(now)
	if d.waiting >= maxDelayed {
		return 0, false
	}
	d.failed++
	delay = min(time.Duration(max(0, d.failed-freeFailures))*failureDelay, maxDelay)
	if delay > 0 {
		d.waiting++
	}
	return delay, true
}

func (f *failures) done(owner netip.Prefix) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d := f.owners[owner]; d != nil && d.waiting > 0 {
		d.waiting--
	}
}

func (d *debt) forgive(now time.Time) {
	n := int(now.Sub(d.since) / forgivenEvery)
	if n > 0 {
		d.failed = max(0, d.failed-n)
		d.since = d.since.Add(time.Duration(n) * forgivenEvery)
	}
}

// makeRoom forgets who is forgiven, or, when nobody is, anybody: memory stays
// bounded however many addresses somebody has.
func (f *failures) makeRoom(now time.Time) {
	if len(f.owners) < maxFailing {
		return
	}
	if now.Sub(f.swept) > time.Second {
		f.swept = now
		for owner, d := range f.owners {
			if d.forgive(now); d.failed == 0 && d.waiting == 0 {
				delete(f.owners, owner)
			}
		}
	}
	for owner := range f.owners {
		if len(f.owners) < maxFailing {
			return
		}
		delete(f.owners, owner)
	}
}

// ownerOf gives the network whose failures count together: an address of IPv4,
// a /64 of IPv6.
func ownerOf(remote string) netip.Prefix {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	addr := ap.Addr().Unmap().WithZone("")
	bits := addr.BitLen()
	if addr.Is6() {
		bits = bitsOfNetwork6
	}
	owner, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return owner
}
