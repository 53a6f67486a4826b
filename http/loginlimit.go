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

// delay counts err if it is a failed login, waits as long as its network has to, and
// returns the error to answer with.
func (l *loginLimiter) delay(r *http.Request, err error) error {
	if !errors.Is(err, domain.KindUnauthorized) {
		return err
	}
	f, delay := l.count(networkOf(r.RemoteAddr))
	if f == nil {
		return domain.Throttled("too many failed logins from this address; try again later")
	}
	if delay > 0 {
		wait(r.Context(), delay)
		l.mu.Lock()
		defer l.mu.Unlock()
		f.waiting--
	}
	return err
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// count counts a failed login of the network, and returns how long its answer must wait. It returns
// nil if too many answers wait already.
func (l *loginLimiter) count(network netip.Prefix) (f *failedLogins, delay time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f = l.networks[network]; f == nil {
		l.makeRoom()
		f = &failedLogins{Limiter: rate.NewLimiter(rate.Every(forgivenEvery), freeFailures)}
		l.networks[network] = f
	}
	if f.waiting >= maxDelayed {
		return nil, 0
	}
	delay = min(f.Reserve().Delay()/(forgivenEvery/failureDelay), maxDelay)
	if delay > 0 {
		f.waiting++
	}
	return f, delay
}

// makeRoom bounds the memory however many addresses a client has: it forgets one of a few
// networks picked at random, one whose failures are forgiven if there is any.
func (l *loginLimiter) makeRoom() {
	if len(l.networks) < maxNetworks {
		return
	}
	var victim netip.Prefix
	picks := 16
	for network, f := range l.networks {
		victim = network
		if picks--; picks == 0 || f.Tokens() == freeFailures && f.waiting == 0 {
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
