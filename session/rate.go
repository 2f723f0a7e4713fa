package session

import (
	"net/netip"
	"sync"
	"time"
)

// maxAddresses bounds what a registrationRate remembers: some 3 MB.
const maxAddresses = 1 << 15

// burstTime is the size of a bucket: so many seconds' worth of registrations may
// come at once.
const burstTime = 20 * time.Second

// mostBetween is the longest time between two registrations that a rate can ask for.
const mostBetween = 100 * 365 * 24 * time.Hour

// registrationRate is a token bucket for each [Source], because anybody may
// register, and each registration stays in the database for good.
//
// Of a bucket it keeps the time at which it will be full again. A full bucket
// equals an unused one and is forgotten when the map reaches its limit. If the map
// is still full, new addresses share one bucket.
type registrationRate struct {
	mu    sync.Mutex
	every time.Duration // for a token; 0: no bound
	full  map[netip.Addr]time.Time
	swept time.Time
}

// newRegistrationRate makes buckets that take perSecond registrations; 0 is no
// bound.
func newRegistrationRate(perSecond float64) *registrationRate {
	r := &registrationRate{full: make(map[netip.Addr]time.Time)}
	r.set(perSecond)
	return r
}

// set is for another rate from now on. A bucket keeps the time at which it will be
// full.
func (r *registrationRate) set(perSecond float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.every = 0
	if perSecond > 0 {
		r.every = time.Duration(min(max(1, float64(time.Second)/perSecond), float64(mostBetween)))
	}
}

// Source is what counts as one address: an IPv4 address, or an IPv6 network of
// 64 bits, which is what one customer gets. It is the same for an IPv4 address
// in the form of IPv6, and has no zone.
func Source(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		p, _ := addr.Prefix(64)
		addr = p.Addr()
	}
	return addr
}

// allow takes a token from the bucket of remote, host:port. It returns false if the
// bucket is empty.
func (r *registrationRate) allow(remote string, now time.Time) bool {
	ap, _ := netip.ParseAddrPort(remote) // an address that does not parse is the zero one
	addr := Source(ap.Addr())
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.every == 0 {
		return true
	}
	full, known := r.full[addr]
	if !known && len(r.full) >= maxAddresses {
		r.sweep(now)
		if len(r.full) >= maxAddresses {
			addr = netip.Addr{}
			full = r.full[addr]
		}
	}
	if full.Before(now) {
		full = now
	}
	if full = full.Add(r.every); full.Sub(now) > max(burstTime, r.every) {
		return false
	}
	r.full[addr] = full
	return true
}

// sweep forgets the buckets that are full, at most once a second.
func (r *registrationRate) sweep(now time.Time) {
	if now.Sub(r.swept) < time.Second {
		return
	}
	r.swept = now
	for addr, full := range r.full {
		if !full.After(now) {
			delete(r.full, addr)
		}
	}
}
