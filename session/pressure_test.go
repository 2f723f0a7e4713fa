package session_test

import (
	"fmt"
	"slices"
	"testing"

	"sealift/session"
)

// stall lets everything arrive while no worker does anything.
func (c *conn) stall() {
	for !c.blocked && len(c.in) > 0 {
		c.feed(min(len(c.in), 64<<10))
	}
}

// TestWindow: while no worker gets to its content, a session takes no more than
// its window, in one transfer or in many, in order or not. World checks that
// the buffers are never more.
func TestWindow(t *testing.T) {
	for _, window := range []int{0, 1<<19 + 12_345} {
		for _, transfers := range []int{1, 10} {
			for _, o := range []order{inOrder, reversed} {
				t.Run(fmt.Sprint(window, " ", transfers, " ", o), func(t *testing.T) {
					w := newWorld(t, session.Config{Window: window})
					w.lend = nil // what is lent is not gathered
					p, c := w.known("alice"), w.dial()
					if got := c.ask(p.packets(single, "small", nil, 0)...); got != received("small", nil) {
						t.Fatal(got)
					}
					c.replies = nil
					content := random(1, (4<<20)/transfers)
					streams := make([][][]byte, transfers)
					total := 0
					for i := range streams {
						streams[i] = o.put(p.packets(spec, fmt.Sprint("f", i), content, 40_000), nil)
					}
					for i := range streams[0] {
						for _, s := range streams {
							c.send(s[i])
							total += len(s[i])
						}
					}
					c.stall()
					if !c.blocked || !c.s.Working() {
						t.Errorf("blocked %v, working %v", c.blocked, c.s.Working())
					}
					taken := total - len(c.in)
					arenas := 0
					if o == reversed {
						arenas = 256 << 10
					}
					if most := w.svc.Window + arenas + total/20; taken > most {
						t.Errorf("%d bytes taken, want no more than %d", taken, most)
					}
					if taken < 100_000 {
						t.Errorf("only %d bytes taken", taken)
					}
					if c.feed(0); len(c.in) != total-taken {
						t.Error("takes more although nothing has ended")
					}
					w.run()
					if len(c.replies) != transfers {
						t.Fatalf("replies %q", c.replies)
					}
					for i := range transfers {
						if got := c.ask(p.ok(fmt.Sprint("f", i))); got != "1604" {
							t.Error(got)
						}
						w.verified(p, fmt.Sprint("f", i), content)
					}
					w.hangUp()
				})
			}
		}
	}
}

// TestNoMemory: a session that the host has no buffer for waits, without having
// taken what it has no room for, and goes on later.
func TestNoMemory(t *testing.T) {
	w := newWorld(t, session.Config{})
	w.lend = nil // what is lent is not gathered
	p, c := w.known("alice"), w.dial()
	content := random(1, 500_000)
	short := true
	w.stingy = func() bool { return short }
	packets := p.packets(spec, "f", content, 100_000)
	c.send(packets...)
	c.feed(len(c.in))
	for len(w.applies)+len(w.dones) > 0 { // recall
		w.step()
	}
	if !c.blocked || !c.short || len(c.in) < 500_000 || c.s.Working() {
		t.Fatalf("blocked %v, short %v, %d bytes left, working %v", c.blocked, c.short, len(c.in), c.s.Working())
	}
	short = false
	if got := c.ask(p.ok("f")); got != received("f", content)+", 1604" {
		t.Fatal(got)
	}
	w.verified(p, "f", content)
	w.hangUp()
}

// TestTargetUnused: a host that asked for a place to read to, and then read
// nothing, or lost the connection, does not keep a buffer by that.
func TestTargetUnused(t *testing.T) {
	for _, end := range []string{"Feed", "Closed", "1607"} {
		w := newWorld(t, session.Config{})
		w.lend = nil // what is lent is not gathered
		p, c := w.known("alice"), w.dial()
		packet := p.packets(single, "f", random(1, session.MaxBuffer+50_000), 0)[0]
		c.ask(packet[:1000])
		target := c.s.Target()
		if target == nil || c.lentNow == 0 {
			t.Fatal("no place to read to")
		}
		switch end {
		case "Feed":
			c.feed(0)
		case "Closed":
			c.close()
		case "1607": // a job fails meanwhile
			w.reg.faults.failAt = w.reg.faults.calls + 1
			c.s.Filled(copy(target, packet[1000:]))
			c.feed(0)
			if c.s.Target() == nil {
				t.Fatal("no place to read to")
			}
		}
		w.run()
		if c.lentNow != 0 {
			t.Errorf("%s: %d bytes of buffers are lent", end, c.lentNow)
		}
		w.hangUp()
	}
}

// TestPhases: what the host's timers go by.
func TestPhases(t *testing.T) {
	w := newWorld(t, session.Config{})
	w.lend = nil // what is lent is not gathered
	p, c := w.known("alice"), w.dial()
	is := func(what string, phase session.Phase, working, done bool) {
		t.Helper()
		if c.s.Phase() != phase || c.s.Working() != working || c.s.Done() != done {
			t.Errorf("%s: phase %d, working %v, done %v; want %d, %v, %v",
				what, c.s.Phase(), c.s.Working(), c.s.Done(), phase, working, done)
		}
	}
	is("accepted", session.Handshake, false, true)
	message := p.reconnect()
	c.ask(message[:1])
	is("in a header", session.InMessage, false, true)
	c.ask(message[1:100])
	is("in a payload", session.InMessage, false, true)
	c.send(message[100:])
	c.feed(len(c.in))
	is("reconnecting", session.Handshake, true, false)
	if !c.s.Busy() {
		t.Error("not busy with a 1027")
	}
	w.run()
	is("reconnected", session.Idle, false, true)
	p.key = [32]byte(w.client(p.id).AESKey)

	content := random(1, 1000)
	packets := p.packets(spec, "f", content, 600)
	c.ask(packets[0][:100])
	is("in the fields of a 1028", session.InMessage, false, true)
	c.ask(packets[0][100:400])
	is("in content", session.InUpload, false, false)
	c.ask(packets[0][400:])
	is("between packets", session.InUpload, false, false)
	c.ask(packets[1][:10])
	is("in the header of the next packet", session.InMessage, false, false)
	c.send(packets[1][10:])
	c.feed(len(c.in))
	is("complete", session.InUpload, true, false)
	if c.s.Busy() {
		t.Error("busy, and the next transfer could begin")
	}
	c.send(p.ok("f"))
	c.feed(len(c.in))
	if !c.s.Busy() {
		t.Error("not busy with a verdict that waits for its 1603")
	}
	c.in = nil
	w.run()
	is("verified", session.Idle, false, true)
	c.ask(p.packets(spec, "g", content, 600)...)
	is("awaiting a verdict", session.Idle, false, false)
	c.ask(p.ok("g"))
	is("verified again", session.Idle, false, true)
	w.hangUp()
}

// TestDrain: a server that goes down takes no new transfer and no new client;
// what is under way comes to its end.
func TestDrain(t *testing.T) {
	w := newWorld(t, session.Config{})
	p, c := w.known("alice"), w.dial()
	content := random(1, 10_000)
	packets := p.packets(spec, "f", content, 1000)
	c.ask(packets[:5]...)
	c.s.Drain()
	if c.s.Done() {
		t.Error("done with a transfer under way")
	}
	if got := c.ask(p.packets(spec, "g", content, 1000)...); got != "1607" {
		t.Errorf("a new transfer gets %q", got)
	}
	if got := c.ask(packets[5:]...); got != received("f", content) {
		t.Errorf("the transfer under way gets %q", got)
	}
	if c.s.Done() {
		t.Error("done with a verdict awaited")
	}
	if got := c.ask(p.verdict(1030, "f")); got != "" {
		t.Error(got)
	}
	if got := c.ask(p.ok("f")); got != "1607" {
		t.Error(got)
	}
	if !c.s.Done() {
		t.Error("not done")
	}
	d := w.dial()
	d.s.Drain()
	if got := d.ask((&peer{name: "bob"}).register()); got != "1607" {
		t.Errorf("a registration gets %q", got)
	}
	if !d.s.Done() {
		t.Error("not done")
	}
	w.hangUp()
}

// TestExtraPacketHoldsUpNothing: the packet past the last, which some clients send,
// does not wait for the file to be stored.
func TestExtraPacketHoldsUpNothing(t *testing.T) {
	w := newWorld(t, session.Config{})
	w.lend = nil // what is lent is not gathered
	p, c := w.known("alice"), w.dial()
	if got := c.ask(p.packets(single, "small", nil, 0)...); got != received("small", nil) {
		t.Fatal(got)
	}
	content := random(1, 1000)
	packets := p.packets(spec, "f", content, 100)
	extra := slices.Clone(packets[len(packets)-1])
	extra[23+8]++ // Packet Number
	c.send(append(packets, extra)...)
	c.stall()
	if c.s.Busy() || len(c.in) > 0 {
		t.Errorf("busy %v, %d bytes left, and no worker has done anything", c.s.Busy(), len(c.in))
	}
	if got := c.ask(p.ok("f")); got != received("f", content)+", 1604" {
		t.Error(got)
	}
	w.hangUp()
}
