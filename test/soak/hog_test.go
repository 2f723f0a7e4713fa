//go:build linux

package soak

import (
	"fmt"
	"strconv"
	"testing"

	"sealift/codec"
)

// TestHog has one address take all the connections that it can get, with a byte now
// and then: others are served all the same.
func TestHog(t *testing.T) {
	r := newRun(t)
	const limit = 40
	s := r.start(r.TempDir(), "--max-connections", strconv.Itoa(limit))
	taken, turnedDown := 0, 0
	for i := range 2 * limit {
		p, err := s.dial("127.0.0.1")
		if taken >= limit*3/4+1 && hasRefused(err) { // over TLS it is told in the place of a handshake
			turnedDown++
			continue
		}
		if err != nil {
			r.Fatalf("connection %d: %v", i, err)
		}
		defer p.close()
		_ = p.Send([]byte{byte(i)})
		// Who is refused is told at once: the server answers the next one after it.
		if taken < limit*3/4+1 {
			taken++
			continue
		}
		if code, _, err := p.Read(); err != nil || code != codec.CodeError {
			r.Errorf("connection %d of the address: %v %v", i+1, code, err)
		}
		turnedDown++
	}
	var want []stored
	for i := range limit - taken {
		p, err := s.dial(source(i))
		if err == nil {
			defer p.close()
			err = p.enter(fmt.Sprint("client ", i), i)
		}
		if err == nil {
			want = append(want, p.mustUpload("file", pattern(uint64(i), 10_000), 1000))
		} else {
			r.Errorf("another address: %v", err)
		}
	}
	r.Logf("of %d connections an address gets %d, and %d get 1607; %d other addresses are served", limit, taken, turnedDown, len(want))
	r.checkStore(s.dir, want)
}
