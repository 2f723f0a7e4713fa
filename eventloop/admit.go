package eventloop

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"

	"sealift/session"
)

// census counts connections, from when they are admitted until they are closed.
// All methods may be called from any goroutine.
type census struct {
	max   int // connections served at once
	perIP int // of one address; 0: no limit of its own

	mu      sync.Mutex
	served  int
	from    map[netip.Addr]int
	refused int       // since that was last logged
	told    time.Time // when that was
}

func newCensus(limit, perIP int) *census {
	return &census{max: limit, perIP: perIP, from: make(map[netip.Addr]int)}
}

// source is what counts as one address.
func source(a *net.TCPAddr) netip.Addr {
	ip, _ := netip.AddrFromSlice(a.IP)
	return session.Source(ip)
}

// enter counts a connection if it may be served. Otherwise it counts it as
// refused.
func (n *census) enter(c *conn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.served >= n.max || n.perIP > 0 && n.from[c.ip] >= n.perIP {
		n.refused++
		return false
	}
	n.served++
	n.from[c.ip]++
	return true
}

// leave takes a connection off the count.
func (n *census) leave(c *conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.served--
	if n.from[c.ip]--; n.from[c.ip] == 0 {
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
	n.refused++
	n.mu.Unlock()
}

// report logs refusals, one line a second at most.
func (n *census) report(log *zap.Logger, now time.Time) {
	n.mu.Lock()
	refused := n.refused
	if refused == 0 || now.Sub(n.told) < time.Second {
		n.mu.Unlock()
		return
	}
	n.refused, n.told = 0, now
	n.mu.Unlock()
	log.Warn("connections refused", zap.Int("count", refused), zap.Int("limit", n.max), zap.Int("limit_per_address", n.perIP))
}
