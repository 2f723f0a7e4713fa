package session

import (
	"fmt"
	"testing"
	"time"
)

func TestRegistrationRate(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	r := newRegistrationRate(5)
	burst := func(remote string) (n int) {
		for r.allow(remote, now) {
			n++
		}
		return n
	}
	for _, c := range []struct {
		remote string
		after  time.Duration
		want   int
	}{
		{"192.0.2.1:1000", 0, 100},                    // 20 seconds' worth
		{"192.0.2.1:2000", 0, 0},                      // another port is the same address
		{"[::ffff:192.0.2.1]:2000", 0, 0},             // so is IPv4 in IPv6
		{"192.0.2.2:1000", 0, 100},                    // another address is not
		{"192.0.2.1:3000", 200 * time.Millisecond, 1}, // a token has grown
		{"192.0.2.1:3000", time.Second, 5},
		{"[2001:db8::1]:1000", 0, 100},
		{"[2001:db8::2]:1000", 0, 0}, // the same network of 64 bits
		{"[2001:db8:0:1::2]:1000", 0, 100},
		{"192.0.2.1:3000", time.Hour, 100}, // no more than full
	} {
		now = now.Add(c.after)
		if n := burst(c.remote); n != c.want {
			t.Errorf("%s registers %d times, want %d", c.remote, n, c.want)
		}
	}
}

// A rate may be as small as a number can be: one client registers, and no more.
func TestRegistrationRateTiny(t *testing.T) {
	for _, rate := range []float64{1e-9, 1e-11, 1e-300} {
		now := time.Unix(1_700_000_000, 0)
		r := newRegistrationRate(rate)
		if !r.allow("192.0.2.1:1", now) || r.allow("192.0.2.1:1", now) || r.allow("192.0.2.1:1", now.Add(24*time.Hour)) {
			t.Errorf("%g a second: not exactly one registers within a day", rate)
		}
	}
}

func TestRegistrationRateOff(t *testing.T) {
	r := newRegistrationRate(0)
	for range 100_000 {
		if !r.allow("192.0.2.1:1", time.Time{}) {
			t.Fatal("refused although there is no bound")
		}
	}
}

// However many addresses there are, their buckets take a bounded room; a known
// address keeps its own.
func TestRegistrationRateManyAddresses(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	r := newRegistrationRate(0.001)
	for i := range 2 * maxAddresses {
		r.allow(fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255), now)
	}
	if n := len(r.full); n > maxAddresses+1 {
		t.Errorf("%d addresses are remembered, more than %d", n, maxAddresses+1)
	}
	if r.allow("10.0.0.0:1", now) {
		t.Error("an address has got another token because there are many others")
	}
	if r.allow("192.0.2.1:1", now) {
		t.Error("a new address has got a token although those that share a bucket have spent it")
	}
	now = now.Add(time.Hour)
	if !r.allow("192.0.2.1:1", now) || len(r.full) > 2 {
		t.Errorf("full buckets are not forgotten: %d are left", len(r.full))
	}
}
