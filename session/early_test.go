package session_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"sealift/codec"
	"sealift/session"
)

// share is what one connection may keep in memory of packets that came early.
const share = 256 << 10

// TestEarlyShare: a connection that sends packets early, in as many transfers as
// it may, holds no more than its share, and all its files are served.
func TestEarlyShare(t *testing.T) {
	for _, size := range []int{1, 50, 3000} {
		for _, o := range []order{reversed, shuffled} {
			w := newWorld(t, session.Config{})
			p, c := w.known("alice"), w.dial()
			most := 0
			w.hold = func(n int) bool {
				most = max(most, c.held+n)
				return true
			}
			content := random(uint64(size), min(1000*size, 60_000)-5)
			r := rand.New(rand.NewPCG(1, 2))
			streams := make([][][]byte, 16)
			for i := range streams {
				streams[i] = o.put(p.packets(spec, fmt.Sprint("f", i), content, size), r)
			}
			for i := range streams[0] {
				for _, s := range streams {
					c.send(s[i])
				}
			}
			w.portion = func(n int) int { return min(n, 64<<10) }
			w.run()
			if len(c.replies) != 16 {
				t.Fatalf("%d %s: replies %q", size, o, c.replies)
			}
			if most > share {
				t.Errorf("%d %s: %d bytes held", size, o, most)
			}
			if c.held != 0 {
				t.Errorf("%d %s: %d bytes held when all is in", size, o, c.held)
			}
			for i := range streams {
				name := fmt.Sprint("f", i)
				if got := c.ask(p.ok(name)); got != "1604" {
					t.Fatal(got)
				}
				w.verified(p, name, content)
			}
			w.hangUp()
		}
	}
}

// TestEarlyWithoutMemory: a client whose packets come in any order is served also
// if others hold all the memory that there is for that: with the most packets
// that there can be, or in many transfers at once.
func TestEarlyWithoutMemory(t *testing.T) {
	for _, d := range []dialect{spec, zeroSpec} {
		for _, o := range []order{reversed, shuffled} {
			w := newWorld(t, session.Config{})
			left := 1 << 20
			hold := func(n int) bool {
				if left < n {
					return false
				}
				left -= n
				return true
			}
			w.hold = hold
			for i := range 8 {
				hoarder := w.known(fmt.Sprint("hoarder", i))
				c := w.dial()
				for j := range 16 {
					packets := hoarder.packets(spec, fmt.Sprint("f", j), random(1, 40_000), 1000)
					c.send(packets[20:]...)
				}
				w.run()
			}
			if left > 1000 {
				t.Fatalf("%d bytes of memory are left", left)
			}
			p, c := w.known("alice"), w.dial()
			w.portion = func(n int) int { return min(n, 256<<10) }
			content := random(2, 65_519)
			packets := o.put(p.packets(d, "f", content, 1), rand.New(rand.NewPCG(1, 3)))
			if got := c.ask(append(notOneFirst(d, packets), p.ok("f"))...); got != received("f", content)+", 1604" {
				t.Errorf("%s %s: got %q", d, o, got)
			} else {
				w.verified(p, "f", content)
			}
			w.hangUp()
		}
	}
}

// TestEarlyNumbersAreCheap: what remains in memory of packets that wait in a file
// is no more than a part of what it costs to send them.
func TestEarlyNumbersAreCheap(t *testing.T) {
	const conns, transfers = 100, 16
	w := newWorld(t, session.Config{})
	w.hold = func(int) bool { return false }
	w.files.null, w.files.noRoom = true, true
	p := w.known("alice")
	var cs []*conn
	for range conns {
		cs = append(cs, w.dial())
	}
	send := func(packet uint16) {
		for _, c := range cs {
			for i := range transfers {
				m := codec.SendFile{ContentSize: 80_000, OrigSize: 79_999, Packet: packet, Total: 65_535, FileName: fmt.Append(nil, "f", i)}
				c.send(p.packet(m, []byte{1}))
			}
			w.run()
			if len(c.replies) > 0 {
				t.Fatal(c.replies)
			}
			c.in = nil
		}
	}
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	send(2)
	before := heap()
	for n := uint16(10); n <= 20; n++ {
		send(n)
	}
	if grown := (heap() - before) / (conns * transfers); grown > 64 {
		t.Errorf("11 more packets take %d bytes", grown)
	}
	before = heap()
	for n := range uint16(15) {
		send((n + 1) << 12)
	}
	if grown := (heap() - before) / (conns * transfers); grown > 8<<10 {
		t.Errorf("15 packets wide apart take %d bytes", grown)
	}
	w.hangUp()
}

// TestScratchFailsFirst: the file in which early packets wait cannot be written.
// The client gets one 1607, and the file goes through when it comes again, in
// order or not.
func TestScratchFailsFirst(t *testing.T) {
	content := random(1, 5000)
	for _, d := range dialects[2:] {
		for _, fails := range []string{"Scratch", "WriteAt", "ReadAt"} {
			for _, o := range []order{inOrder, reversed, shuffled} {
				w := newWorld(t, session.Config{})
				w.hold = func(n int) bool { return n == 8 } // the numbers of what is refused
				p, c := w.known("alice"), w.dial()
				packets := p.packets(d, "f", content, 1000)
				if d == padded || d == zeroBased {
					packets = p.packets(d, "f", content, 1100)
				}
				first := append([][]byte{packets[2], packets[0], packets[1]}, packets[3:]...)
				w.reg.faults.failOn = fails
				if got := c.ask(first...); got != "1607" || w.reg.faults.hit != fails {
					t.Fatalf("%s, %s fails: got %q", d, fails, got)
				}
				again := notOneFirst(d, o.put(packets, rand.New(rand.NewPCG(1, 4))))
				if got := c.ask(append(again, p.ok("f"))...); got != received("f", content)+", 1604" {
					t.Errorf("%s, %s failed: %s: got %q", d, fails, o, got)
				}
				w.hangUp()
			}
		}
	}
}
