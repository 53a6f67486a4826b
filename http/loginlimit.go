package http

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/medilab/webhooks/domain"
)

// loginLimiter slows down clients that try tokens. Requests with a valid token are never
// slowed, whatever their address: many clients share one behind a gateway.
//
// Each network may fail freeFailures times; failures are forgiven with time. Each one
// beyond is answered later than the one before it. The answers that wait are bounded per
// network; beyond that, failures are refused at once.
type loginLimiter struct {
	now  func() time.Time
	wait func(ctx context.Context, d time.Duration)

	mu       sync.Mutex
	networks map[netip.Prefix]*failedLogins
}

const (
	freeFailures  = 50
	forgivenEvery = 500 * time.Millisecond // one failure of a network
	failureDelay  = 100 * time.Millisecond // added by each failure beyond the free ones
	maxDelay      = 3 * time.Second
	maxDelayed    = 16     // waiting answers of a network
	maxNetworks   = 16_384 // remembered
)

// failedLogins are those of a network.
type failedLogins struct {
	*rate.Limiter // those that are not forgiven yet
	waiting       int
}

func newLoginLimiter() *loginLimiter {
	return &loginLimiter{now: time.Now, wait: wait, networks: map[netip.Prefix]*failedLogins{}}
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// delay counts err if it is a failed login, waits as long as its network has to, and
// returns the error to answer with.
func (l *loginLimiter) delay(r *http.Request, err error) error {
	if !errors.Is(err, domain.KindUnauthorized) {
		return err
	}
	network := networkOf(r.RemoteAddr)
	delay, ok := l.count(network)
	if !ok {
		return domain.Throttled("too many failed logins from this address; try again later")
	}
	if delay > 0 {
		l.wait(r.Context(), delay)
		l.waited(network)
	}
	return err
}

func (l *loginLimiter) count(network netip.Prefix) (delay time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	f := l.networks[network]
	if f == nil {
		l.makeRoom(now)
		f = &failedLogins{Limiter: rate.NewLimiter(rate.Every(forgivenEvery), freeFailures)}
		l.networks[network] = f
	}
	if f.waiting >= maxDelayed {
		return 0, false
	}
	delay = min(f.ReserveN(now, 1).DelayFrom(now)/(forgivenEvery/failureDelay), maxDelay)
	if delay > 0 {
		f.waiting++
	}
	return delay, true
}

func (l *loginLimiter) waited(network netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.networks[network]; f != nil && f.waiting > 0 {
		f.waiting--
	}
}

// makeRoom bounds the memory however many addresses a client has: it forgets one of a few
// networks picked at random, one whose failures are forgiven if there is any.
func (l *loginLimiter) makeRoom(now time.Time) {
	if len(l.networks) < maxNetworks {
		return
	}
	var victim netip.Prefix
	picks := 16
	for network, f := range l.networks {
		victim = network
		if picks--; picks == 0 || f.TokensAt(now) == freeFailures && f.waiting == 0 {
			break
		}
	}
	delete(l.networks, victim)
}

// networkOf returns the network whose failures are counted together: an IPv4 address, or
// the /64 that an IPv6 subscriber has.
func networkOf(remote string) netip.Prefix {
	const subscriber6 = 64
	addr := addrOf(remote)
	bits := addr.BitLen()
	if addr.Is6() {
		bits = subscriber6
	}
	network, _ := addr.Prefix(bits) // it has so many bits
	return network
}
