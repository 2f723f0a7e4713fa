package eventloop

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"sealift/session"
)

// census counts connections, from when they are admitted until they are closed.
// All methods may be called from any goroutine.
type census struct {
	mu       sync.Mutex
	max      int // connections served at once
	perIP    int // of one address; 0: see mayHold
	served   int
	from     map[netip.Addr]map[*conn]struct{} // the served ones
	evicting int                               // connections that are being closed to make room; they do not count as served
	awaiting int                               // connections that came by a proxy, and whose client is not known yet; not served either
	awaited  map[netip.Addr][]*conn            // these, by proxy, the first to come first
	slow     []*conn                           // connections that can make room, the slowest first
	searched time.Time                         // when slow was made
	refused  int                               // connections, since told
	told     time.Time                         // when the log had the last line about them

	admitted, turnedAway uint64 // connections that were served, and refused, so far
}

func newCensus() *census {
	return &census{from: make(map[netip.Addr]map[*conn]struct{}), awaited: make(map[netip.Addr][]*conn)}
}

// limit sets how many connections are served at once, and of one address, from the
// next on.
func (n *census) limit(all, perIP int) {
	n.mu.Lock()
	n.max, n.perIP = all, perIP
	n.mu.Unlock()
}

// source is the address that a connection counts for: IPv6 networks count as one.
func source(a *net.TCPAddr) netip.Addr {
	ip, _ := netip.AddrFromSlice(a.IP)
	return session.Source(ip)
}

// enter counts a connection if it may be served. Otherwise it counts it as
// refused. victim, if not nil, is a connection that has to be closed now.
func (n *census) enter(c *conn, now time.Time) (ok bool, victim *conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.awaiting > 0 && n.crammed() {
		n.refuse()
		return false, nil
	}
	return n.serve(c, now)
}

// serve is enter. Holds mu.
func (n *census) serve(c *conn, now time.Time) (ok bool, victim *conn) {
	if n.served >= n.max || !n.mayHold(c.ip) {
		if victim = n.makeRoom(c.ip, now); victim == nil {
			n.refuse()
			return false, nil
		}
	}
	c.place = served
	n.served++
	n.admitted++
	if n.from[c.ip] == nil {
		n.from[c.ip] = make(map[*conn]struct{})
	}
	n.from[c.ip][c] = struct{}{}
	return true, victim
}

// place is what a connection counts for.
type place uint8

const (
	nowhere place = iota // not admitted
	awaited              // whose client is not known yet
	served
	evicted // it makes room for another
)

// crammed reports whether there is no descriptor for one more connection. Holds mu.
func (n *census) crammed() bool {
	return n.served+n.awaiting+n.evicting >= n.max+maxEvicting
}

// await counts a connection that came by a proxy, and of whose client nothing is known
// yet. If ok is false it is counted as refused. victim, if not nil, is one of the same
// proxy that has waited for too long, and has to be closed now.
func (n *census) await(c *conn) (ok bool, victim *conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	others := n.awaited[c.ip]
	crowded := len(others) >= maxAwaited
	if n.crammed() || crowded && n.evicting >= maxEvicting {
		n.refuse()
		return false, nil
	}
	if crowded {
		victim = others[0]
		n.dismiss(victim)
		n.evicting++
		victim.place = evicted
	}
	c.place = awaited
	n.awaiting++
	n.awaited[c.ip] = append(n.awaited[c.ip], c)
	return true, victim
}

// dismiss takes a connection off those whose client is not known. Holds mu.
func (n *census) dismiss(c *conn) {
	n.awaiting--
	all := n.awaited[c.ip]
	i := slices.Index(all, c)
	if all = slices.Delete(all, i, i+1); len(all) == 0 {
		delete(n.awaited, c.ip)
		return
	}
	n.awaited[c.ip] = all
}

// introduce is enter for a connection that was counted by await: its client's address is
// ip. It returns false also if the connection makes room for another.
func (n *census) introduce(c *conn, ip netip.Addr, now time.Time) (ok bool, victim *conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.place != awaited {
		return false, nil
	}
	n.dismiss(c)
	c.place, c.ip = nowhere, ip
	return n.serve(c, now)
}

// mayHold reports whether an address may have one more connection. While a
// quarter of all is free, it may have any number; after that, no more than a
// quarter of all.
func (n *census) mayHold(ip netip.Addr) bool {
	held := len(n.from[ip])
	if n.perIP > 0 {
		return held < n.perIP
	}
	return 4*(n.max-n.served) >= n.max || 4*held <= n.max
}

// leave takes a connection off the count.
func (n *census) leave(c *conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch c.place {
	case evicted:
		n.evicting--
	case awaited:
		n.dismiss(c)
	case served:
		n.remove(c)
	}
	c.place = nowhere
}

// remove takes a connection that is served off the count. Holds mu.
func (n *census) remove(c *conn) {
	n.served--
	delete(n.from[c.ip], c)
	if len(n.from[c.ip]) == 0 {
		delete(n.from, c.ip)
	}
}

// count is how many connections are served.
func (n *census) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.served
}

func (n *census) countRefused() {
	n.mu.Lock()
	n.refuse()
	n.mu.Unlock()
}

// refuse counts a connection that is refused. Holds mu.
func (n *census) refuse() {
	n.refused++
	n.turnedAway++
}

const (
	// slowRate is how many bytes a second, over slowTime, a connection has to bring
	// to keep its place when there is no room for another.
	slowRate = 1 << 10
	slowTime = 2 * time.Minute
	// maxEvicting is how many connections may be on their way out to make room. By
	// so many there may be more than the limit.
	maxEvicting = 8
	// maxSlow is how many slow connections one search keeps.
	maxSlow = 64
	// searchPause is the least time between two searches: each looks at all
	// connections, and a loop may wait for it.
	searchPause = 100 * time.Millisecond
)

// makeRoom takes a slow connection off the count, so that ip may have one more, and
// returns it. It returns nil if there is none, or enough are on their way out, or if one
// is too few since a limit was lowered. Holds mu.
func (n *census) makeRoom(ip netip.Addr, now time.Time) *conn {
	if n.evicting >= maxEvicting || n.served > n.max || n.perIP > 0 && len(n.from[ip]) > n.perIP {
		return nil
	}
	own := !n.mayHold(ip) // then one of its own has to go
	fits := func(c *conn) bool {
		_, there := n.from[c.ip][c]
		return there && (!own || c.ip == ip) && c.rate.Load() < slowRate
	}
	i := slices.IndexFunc(n.slow, fits)
	if i < 0 && now.Sub(n.searched) >= searchPause {
		n.searched = now
		n.search(ip, own)
		i = slices.IndexFunc(n.slow, fits)
	}
	if i < 0 {
		return nil
	}
	c := n.slow[i]
	n.slow = slices.Delete(n.slow, i, i+1)
	n.remove(c)
	n.evicting++
	c.place = evicted
	return c
}

// search makes slow the slowest connections of ip, or of those addresses that
// hold most. Holds mu.
func (n *census) search(ip netip.Addr, own bool) {
	type weighed struct {
		c    *conn
		rate int64 // of now: sorting wants one that stays
	}
	var found []weighed
	most := 0
	for from, conns := range n.from {
		if own && from != ip || len(conns) < most {
			continue
		}
		if len(conns) > most {
			most, found = len(conns), nil
		}
		for c := range conns {
			if r := c.rate.Load(); r < slowRate {
				found = append(found, weighed{c, r})
			}
		}
	}
	slices.SortFunc(found, func(a, b weighed) int { return cmp.Compare(a.rate, b.rate) })
	n.slow = nil
	for _, w := range found[:min(len(found), maxSlow)] {
		n.slow = append(n.slow, w.c)
	}
}

// report logs refusals, one line a second at most.
func (n *census) report(log *zap.Logger, now time.Time) {
	n.mu.Lock()
	refused, most, perIP := n.refused, n.max, n.perIP
	if refused == 0 || now.Sub(n.told) < time.Second {
		n.mu.Unlock()
		return
	}
	n.refused, n.told = 0, now
	n.mu.Unlock()
	log.Warn("connections refused", zap.Int("count", refused), zap.Int("limit", most), zap.Int("limit_per_address", perIP))
}
