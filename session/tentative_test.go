package session_test

import (
	"fmt"
	"slices"
	"testing"

	"sealift/codec"
	"sealift/session"
)

// TestSentAgain: on the connection that has the 1603 of a file, the file is sent
// again and again, with its packets in every order, before and after its
// verdict, or without a pause. Each time it gets its 1603.
func TestSentAgain(t *testing.T) {
	one, two, three := random(1, 4000), random(2, 4000), random(3, 3990)
	for _, d := range []dialect{spec, padded, zeroBased, zeroSpec, perPacket, packetSize} {
		for _, next := range []struct {
			what    string
			content []byte
			size    int
		}{
			{"the same", one, 1024},
			{"other content", two, 1024},
			{"another size", three, 1024},
			{"other packets", one, 1500},
		} {
			for _, hold := range []bool{true, false} {
				for _, verdict := range []string{"none", "1029", "pipelined", "repetition"} {
					packets := func(p *peer, content []byte, size int) [][]byte { return p.packets(d, "f", content, size) }
					total := 4
					if next.size == 1500 {
						total = 3
					}
					permutations(total, func(perm []int) {
						if perm[0] == 1 && next.what != "the same" && next.what != "other content" && (d == zeroBased || d == zeroSpec) {
							return // see TestZeroBasedOutOfOrder
						}
						w := newWorld(t, session.Config{})
						w.hold = func(int) bool { return hold }
						p, c := w.known("alice"), w.dial()
						var again [][]byte
						for _, n := range perm {
							again = append(again, packets(p, next.content, next.size)[n])
						}
						first := packets(p, one, 1024)
						want := received("f", next.content)
						switch verdict {
						case "none":
							c.ask(first...)
						case "1029":
							c.ask(append(first, p.ok("f"))...)
						case "pipelined":
							again = append(first, again...)
							want = received("f", one) + ", " + want
						case "repetition":
							c.ask(first...)
							if next.what == "the same" {
								c.ask(first[1], first[3], first[2])
							}
						}
						for i := range 2 { // the third time in the same order
							if got := c.ask(again...); got != want {
								t.Fatalf("%s, %s, %s, memory %v: %v, time %d: got %q, want %q", d, next.what, verdict, hold, perm, i+2, got, want)
							}
						}
						if got := c.ask(p.ok("f")); got != "1604" || !c.s.Done() {
							t.Errorf("%s, %s, %s: %v: 1029 gets %q, done %v", d, next.what, verdict, perm, got, c.s.Done())
						}
						w.verified(p, "f", next.content)
						w.hangUp()
					})
				}
			}
		}
	}
}

// TestSentAgainBySchedule sends a file a second time right behind the first, its
// packets reversed, under every schedule.
func TestSentAgainBySchedule(t *testing.T) {
	content := random(1, 20)
	n := every(t, func(w *world) {
		p, c := w.known("alice"), w.dial()
		packets := p.packets(spec, "f", content, 16)
		w.hold = func(int) bool { return false }
		c.send(packets...)
		c.send(packets[1], packets[0], p.ok("f"))
		w.portion = func(n int) int { return min(n, len(packets[0])) }
	}, func(w *world) {
		got := w.conns[0].replies
		if want := []string{received("f", content), received("f", content), "1604"}; !slices.Equal(got, want) {
			w.t.Errorf("got %q", got)
		}
	})
	t.Log(n, "schedules")
}

// TestRepetitionsAreHarmless: packets but the first that come again after the
// 1603, any of them and any number of times, and one packet more than there are,
// change nothing: not what a verdict gets, not what a drain waits for, and not
// how many transfers may be under way.
func TestRepetitionsAreHarmless(t *testing.T) {
	content := random(1, 5000)
	for _, d := range []dialect{spec, padded, zeroBased, zeroSpec, perPacket, packetSize} {
		for code, want := range map[codec.Code]string{codec.CodeCRCOK: "1604", codec.CodeCRCBad: "", codec.CodeAbort: "1604"} {
			for _, verified := range []bool{false, true} {
				w := newWorld(t, session.Config{Limits: session.Limits{MaxUploads: 2}})
				p, c := w.known("alice"), w.dial()
				for i := range 5 {
					name := fmt.Sprint("f", i)
					packets := p.packets(d, name, content, 1024)
					c.ask(packets...)
					if verified {
						c.ask(p.ok(name))
					}
					past := slices.Clone(packets[4])
					past[23+8]++
					for _, m := range join(packets[1:], packets[3], past, packets[1:], past) {
						if got := c.ask(m); got != "" {
							t.Fatalf("%s: a repetition gets %q", d, got)
						}
					}
				}
				if verified != c.s.Done() {
					t.Errorf("%s: done %v, verified %v", d, c.s.Done(), verified)
				}
				if c.s.Phase() != session.Idle {
					t.Errorf("%s: phase %v", d, c.s.Phase())
				}
				a, b := p.packets(d, "a", content, 1024), p.packets(d, "b", content, 1024)
				if got := c.ask(join(a[:2], b[:2], a[2:], b[2:])...); got != received("a", content)+", "+received("b", content) {
					t.Errorf("%s: two more files get %q", d, got)
				}
				c.ask(p.ok("a"), p.ok("b"))
				for i := range 5 {
					name := fmt.Sprint("f", i)
					if got := c.ask(p.packets(d, name, content, 1024)[2]); got != "" {
						t.Error(got)
					}
					if got := c.ask(p.verdict(code, name)); got != want {
						t.Errorf("%s: %v gets %q", d, code, got)
					}
					if code == codec.CodeCRCOK || verified {
						w.verified(p, name, content)
					}
				}
				if !c.s.Done() || c.s.Uploads() != 0 {
					t.Errorf("%s: done %v, %d transfers", d, c.s.Done(), c.s.Uploads())
				}
				w.hangUp()
			}
		}
	}
}

// TestRepetitionsWhileDraining: a server that goes down does not begin a file that
// is sent again, and judges the one it has.
func TestRepetitionsWhileDraining(t *testing.T) {
	for _, before := range []bool{true, false} {
		w := newWorld(t, session.Config{})
		p, c := w.known("alice"), w.dial()
		content := random(1, 3000)
		packets := p.packets(spec, "f", content, 1000)
		c.ask(packets...)
		if before {
			c.ask(packets[1])
		}
		c.s.Drain()
		if got := c.ask(packets[2], packets[1]); got != "" {
			t.Error(got)
		}
		if got := c.ask(packets[0], packets[3]); got != "1607" {
			t.Error(got)
		}
		if got := c.ask(p.ok("f")); got != "1604" || !c.s.Done() {
			t.Errorf("got %q, done %v", got, c.s.Done())
		}
		w.verified(p, "f", content)
		w.hangUp()
	}
}

// TestRepetitionsOfAnotherKey: what a client repeated before it got a new AES key
// does not spoil the file that it sends under the new one.
func TestRepetitionsOfAnotherKey(t *testing.T) {
	w := newWorld(t, session.Config{})
	priv, _ := pair[0]()
	p, c := w.known("alice"), w.dial()
	content := random(1, 3000)
	packets := p.packets(spec, "f", content, 1000)
	c.ask(append(packets, packets[2])...)
	if got := c.ask(p.reconnect()); got != "1605" {
		t.Fatal(got)
	}
	p.key = c.aesKey(t, priv)
	if got := c.ask(reversed.put(p.packets(spec, "f", content, 1000), nil)...); got != received("f", content) {
		t.Error(got)
	}
	w.hangUp()
}
