//go:build linux

package soak

import (
	"strconv"
	"testing"
	"time"

	"sealift/internal/testpeer"
)

// TestIdle holds connections that say nothing.
func TestIdle(t *testing.T) {
	r := newRun(t)
	n := r.size(10_000, 10_000)
	s := r.start(r.TempDir(), "--max-connections", strconv.Itoa(n+100))
	c := s.join("somebody", 0)
	c.mustUpload("a", pattern(1, 100_000), 1000)

	descriptors, before := s.descriptors(), s.rss()
	began := time.Now()
	peers := make([]*peer, n)
	for i := range peers {
		p, err := s.dial(source(i))
		if err != nil {
			r.Fatalf("connection %d: %v: %s", i, err, s.tail())
		}
		defer p.close()
		peers[i] = p
	}
	r.until("the connections to be accepted", func() bool { return s.descriptors() >= descriptors+n })
	took := time.Since(began)
	after := s.rss()
	c.mustUpload("b", pattern(2, 100_000), 1000)
	if err := peers[n-1].enter("the last one", 1); err != nil {
		r.Errorf("the last connection: %v", err)
	}
	each := float64(after-before) / float64(n)
	r.Logf("%d idle connections in %.1f s: %d KiB more, %.2f KiB each", n, took.Seconds(), after-before, each)
	limit := 4.0
	if testpeer.OverTLS() {
		// crypto/tls keeps 14, and the collector lets what handshakes have left behind
		// be; bench has the figure without that.
		limit = 24
	}
	if each >= limit && !raceEnabled {
		r.Errorf("an idle connection takes %.2f KiB, not under %.0f", each, limit)
	}
	c.close()
	for _, p := range peers {
		p.close()
	}
	s.finish()
}
