package http

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/medilab/webhooks/domain"
)

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
	synctest.Test(t, func(t *testing.T) {
		f := newAuthenticator(Config{}).logins
		const attacker, another = "192.0.2.1:1000", "192.0.2.2:1000"
		waits := func(remote string) time.Duration {
			t.Helper()
			began := time.Now()
			if err := fail(f, remote); !errors.Is(err, domain.KindUnauthorized) {
				t.Fatal(err)
			}
			return time.Since(began)
		}
		for range freeFailures {
			if waited := waits(attacker); waited != 0 {
				t.Fatalf("one of the first %d failures waited %s", freeFailures, waited)
			}
		}
		var last time.Duration
		for range 5 {
			waited := waits(attacker)
			if waited <= last {
				t.Errorf("waited %s after %s", waited, last)
			}
			last = waited
		}
		if waited := waits(another); waited != 0 {
			t.Errorf("another address waits %s", waited)
		}
		time.Sleep(time.Minute)
		if waited := waits(attacker); waited != 0 {
			t.Errorf("nothing is forgiven: waited %s", waited)
		}
		r, began := httptest.NewRequest("GET", "/", nil), time.Now()
		r.RemoteAddr = attacker
		if err := f.delay(r, domain.Forbidden("scope")); !errors.Is(err, domain.KindForbidden) || time.Since(began) != 0 {
			t.Errorf("a known caller waits %s, %v", time.Since(began), err)
		}
	})
}

func TestWaitingFailuresAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newAuthenticator(Config{}).logins
		for range freeFailures {
			_ = fail(f, "[2001:db8::1]:1")
		}
		var group sync.WaitGroup
		for i := range maxDelayed { // of one network, each from an address of its own
			group.Go(func() { _ = fail(f, fmt.Sprintf("[2001:db8::%x]:1", i+2)) })
			synctest.Wait()
		}
		if err := fail(f, "[2001:db8::ffff]:1"); !errors.Is(err, domain.KindThrottled) {
			t.Errorf("got %v", err)
		}
		if err := fail(f, "[2001:db8:0:1::1]:1"); !errors.Is(err, domain.KindUnauthorized) {
			t.Errorf("another network: %v", err)
		}
		group.Wait()
		if err := fail(f, "[2001:db8::1]:1"); !errors.Is(err, domain.KindUnauthorized) {
			t.Errorf("when nobody waits any more: %v", err)
		}
	})
}

func TestMemoryOfFailuresIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newAuthenticator(Config{}).logins
		for i := range 2 * maxNetworks {
			time.Sleep(time.Millisecond)
			_ = fail(f, fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255))
			if len(f.networks) > maxNetworks {
				t.Fatalf("%d addresses are remembered", len(f.networks))
			}
		}
		_ = fail(f, "no address")
	})
}
