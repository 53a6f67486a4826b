package http

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/medilab/webhooks/domain"
)

// fakeLoginLimiter adds up the delays.
func fakeLoginLimiter() (f *loginLimiter, clock *time.Time, waited *time.Duration) {
	at := time.Date(2026, 1, 15, 10, 0, 0, 0, time.UTC)
	f, clock, waited = newLoginLimiter(), &at, new(time.Duration)
	f.now = func() time.Time { return *clock }
	f.wait = func(_ context.Context, d time.Duration) { *waited += d }
	return f, clock, waited
}

// fail is a failed login from the address, however the caller claims to come from
// another: what it claims costs it nothing.
func fail(f *loginLimiter, remote string) error {
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = remote
	claimed := fmt.Sprintf("10.%d.%d.%d", rand.IntN(256), rand.IntN(256), rand.IntN(256))
	for _, header := range []string{"X-Forwarded-For", "X-Real-IP", "True-Client-IP", "CF-Connecting-IP"} {
		r.Header.Set(header, claimed)
	}
	r.Header.Set("Forwarded", "for="+claimed)
	return f.delay(r, domain.Unauthorized("unknown"))
}

func TestFailedLoginsSlowDown(t *testing.T) {
	f, clock, waited := fakeLoginLimiter()
	const attacker, another = "192.0.2.1:1000", "192.0.2.2:1000"
	for range freeFailures {
		if err := fail(f, attacker); !errors.Is(err, domain.KindUnauthorized) {
			t.Fatal(err)
		}
	}
	if *waited != 0 {
		t.Errorf("the first %d failures waited %s", freeFailures, *waited)
	}
	var last time.Duration
	for range 5 {
		*waited = 0
		if err := fail(f, attacker); !errors.Is(err, domain.KindUnauthorized) || *waited <= last {
			t.Errorf("waited %s after %s, %v", *waited, last, err)
		}
		last = *waited
	}
	*waited = 0
	if err := fail(f, another); !errors.Is(err, domain.KindUnauthorized) || *waited != 0 {
		t.Errorf("another address waits %s, %v", *waited, err)
	}
	*clock = clock.Add(time.Minute)
	if err := fail(f, attacker); err == nil || *waited != 0 {
		t.Errorf("nothing is forgiven: waited %s", *waited)
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = attacker
	if err := f.delay(r, domain.Forbidden("scope")); !errors.Is(err, domain.KindForbidden) || *waited != 0 {
		t.Errorf("a known caller waits %s, %v", *waited, err)
	}
}

func TestWaitingFailuresAreBounded(t *testing.T) {
	f, _, _ := fakeLoginLimiter()
	waiting, release := make(chan struct{}, 2*maxDelayed), make(chan struct{})
	f.wait = func(context.Context, time.Duration) { waiting <- struct{}{}; <-release }
	for range freeFailures {
		_ = fail(f, "[2001:db8::1]:1")
	}
	var group sync.WaitGroup
	for i := range maxDelayed { // of one network, each from an address of its own
		group.Go(func() { _ = fail(f, fmt.Sprintf("[2001:db8::%x]:1", i+2)) })
		<-waiting
	}
	if err := fail(f, "[2001:db8::ffff]:1"); !errors.Is(err, domain.KindThrottled) {
		t.Errorf("got %v", err)
	}
	if err := fail(f, "[2001:db8:0:1::1]:1"); !errors.Is(err, domain.KindUnauthorized) {
		t.Errorf("another network: %v", err)
	}
	close(release)
	group.Wait()
	if err := fail(f, "[2001:db8::1]:1"); !errors.Is(err, domain.KindUnauthorized) {
		t.Errorf("when nobody waits any more: %v", err)
	}
}

func TestMemoryOfFailuresIsBounded(t *testing.T) {
	f, clock, _ := fakeLoginLimiter()
	for i := range 2 * maxNetworks {
		*clock = clock.Add(time.Millisecond)
		_ = fail(f, fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255))
		if len(f.networks) > maxNetworks {
			t.Fatalf("%d addresses are remembered", len(f.networks))
		}
	}
	_ = fail(f, "no address")
}
