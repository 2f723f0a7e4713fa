//go:build linux

package soak

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestFlood has one address register without end.
func TestFlood(t *testing.T) {
	r := newRun(t)
	n := r.size(3000, 30_000)
	const rate, burst = 5, 100
	s := r.start(r.TempDir(), "--register-rate", strconv.Itoa(rate))
	began := time.Now()
	taken, turnedDown := 0, 0
	var p *peer
	for i := range n {
		if p == nil {
			p = s.mustDial()
		}
		switch err := p.register(fmt.Sprint("name ", i)); {
		case err == nil:
			taken++
			p.close()
			p = nil
		case hasRefused(err):
			turnedDown++
		default:
			r.Fatalf("registration %d: %v", i, err)
		}
	}
	took := time.Since(began)
	if limit := burst + int(took.Seconds()*rate) + 1; taken > limit {
		r.Errorf("%d registrations from an address in %v, more than %d", taken, took, limit)
	}
	if taken < burst {
		r.Errorf("only %d registrations were taken, %d may come at once", taken, burst)
	}
	other, err := s.dial("127.0.0.2")
	if err == nil {
		defer other.close()
		err = other.enter("somebody else", 0)
	}
	if err != nil {
		r.Errorf("from another address: %v", err)
	}
	out, _, _, _ := program(sealiftd, "clients", "--json", "--dir", s.dir)
	if rows := len(splitLines(out)); rows != taken+1 {
		r.Errorf("%d clients are recorded, %d were taken", rows, taken+1)
	}
	r.Logf("%d registrations from one address in %.1f s: %d taken, %d refused; another address is served", n, took.Seconds(), taken, turnedDown)
	if p != nil {
		p.close()
	}
	if other != nil {
		other.close()
	}
	s.finish()
}

func splitLines(s string) []string {
	return strings.FieldsFunc(s, func(c rune) bool { return c == '\n' })
}
