//go:build linux

package cluster

import (
	"fmt"
	"sync"
	"testing"

	"sealift/codec"
	"sealift/internal/testpeer"
)

// TestAcross has one client use two servers as if they were one: each step goes to another
// one than the step before.
func TestAcross(t *testing.T) {
	r := newRun(t)
	c := r.cluster(clusterOptions{servers: 2, built: true})
	var told promises
	turn := 0
	next := func(p *testpeer.Conn) {
		if p.Net != nil {
			_ = p.Close()
		}
		turn++
		r.must("connecting", dial(c.addrs[turn%2], p))
	}
	p := &testpeer.Conn{Peer: testpeer.Peer{Name: "traveller", Pair: testpeer.SharedPair(1)}}
	next(p)
	r.must("1025", p.SignUp())
	next(p)
	r.must("1026", p.Exchange())
	next(p)
	r.must("1027", p.Rejoin())

	// The file at one server, its verdict at the other.
	b := pattern(r.seed, 5000)
	told.sends(place{p.ID, "file"}, contentOf(b))
	f := p.File("file", b)
	r.must("1028", p.SendPackets(f.Packets(testpeer.Spec, 1000)))
	r.must("1603", p.Received(f))
	next(p)
	r.must("1027", p.Rejoin())
	r.must("1029", p.Confirm("file"))
	told.keeps(place{p.ID, "file"}, contentOf(b))
	next(p)
	r.must("1027", p.Rejoin())
	r.must("1029 again", p.Confirm("file"))

	// The beginning of a file at one server, the rest at the other.
	large := pattern(r.seed, 24<<20)
	told.sends(place{p.ID, "large"}, contentOf(large))
	packets := p.File("large", large).Packets(testpeer.Spec, 60_000)
	r.must("half of the 1028", p.SendPackets(packets[:len(packets)*3/4]))
	next(p)
	r.must("1027", p.Rejoin())
	r.until("the other server to hear of a part", func() bool {
		partials := c.rows().partials
		return len(partials) == 1 && partials[0].Length > 0
	})
	offset, err := p.Resume("large", large, 60_000)
	r.must("1032", err)
	told.keeps(place{p.ID, "large"}, contentOf(large))
	if offset < 16<<20 {
		r.Errorf("the other server has %d bytes, less than a part", offset)
	}
	r.Logf("of %d bytes that were sent, %d are at the other server", len(large)*3/4, offset)

	// A verdict that the other server hears of at once.
	next(p)
	r.must("1027", p.Rejoin())
	r.must("1031 of nothing", p.Send(p.Verdict(codec.CodeAbort, "nothing")))
	if _, _, err := p.Read(); err != nil {
		r.Errorf("1031: %v", err)
	}
	_ = p.Close()

	c.oneName()
	c.keeps(&told)
	c.verify()
}

// oneName has two servers register one name at one instant, over and over: one of them
// gives a 1600.
func (c *cluster) oneName() {
	c.Helper()
	for round := range 30 {
		var peers [2]testpeer.Conn
		for i := range peers {
			peers[i] = testpeer.Conn{Peer: testpeer.Peer{Name: fmt.Sprintf("name %d", round), Pair: testpeer.SharedPair(i)}}
			c.must("connecting", dial(c.addrs[i], &peers[i]))
		}
		var errs [2]error
		var both sync.WaitGroup
		for i := range peers {
			both.Go(func() { errs[i] = peers[i].SignUp() })
		}
		both.Wait()
		got, refused := 0, 0
		for i, err := range errs {
			switch {
			case err == nil:
				got++
			case testpeer.Refused(err, codec.CodeRegisterFailed):
				refused++
			default:
				c.Errorf("server %d: %v", i, err)
			}
			_ = peers[i].Close()
		}
		if got != 1 || refused != 1 {
			c.Errorf("round %d: %d clients have the name, %d were refused", round, got, refused)
		}
	}
}
