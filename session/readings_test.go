package session_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"sealift/codec"
	"sealift/session"
)

// later gives requests the codes of the later edition.
func later(messages ...[]byte) [][]byte {
	codes := map[uint16]uint16{1025: 825, 1026: 826, 1027: 827, 1028: 828, 1029: 900, 1030: 901, 1031: 902}
	out := make([][]byte, len(messages))
	for i, m := range messages {
		out[i] = slices.Clone(m)
		binary.LittleEndian.PutUint16(out[i][17:], codes[binary.LittleEndian.Uint16(m[17:])])
	}
	return out
}

// claimed is the Content Size of a 1028.
func claimed(packet []byte) uint32 { return binary.LittleEndian.Uint32(packet[23:]) }

// claims is the 1603 with that Content Size instead of the file's.
func claims(name string, content []byte, size uint32) string {
	text := received(name, content)
	return fmt.Sprintf("1603 %s %d %s", name, size, text[len(text)-8:])
}

// TestContentSizeOf1603: for a client with the codes 825… it is the Content Size
// of the packet that came last, as the client sent it; for one with the codes
// 1025… it is the size of the file.
func TestContentSizeOf1603(t *testing.T) {
	for _, size := range []int{0, 1, 16, 500, 10_001} {
		content := random(uint64(size), size)
		for _, d := range dialects {
			for _, o := range orders {
				w := newWorld(t, session.Config{})
				p, c := w.known("alice"), w.dial()
				all := p.packets(d, "f", content, 1024)
				if o == repeated && len(all) < 3 {
					continue
				}
				sent := notOneFirst(d, o.put(all, rand.New(rand.NewPCG(uint64(size), 1))))
				// The last of those that had not come before.
				last := sent[0]
				for i, m := range sent {
					if !slices.ContainsFunc(sent[:i], func(b []byte) bool { return number(b) == number(m) }) {
						last = m
					}
				}
				if got, want := c.ask(join(sent, p.ok("f"))...), received("f", content)+", 1604"; got != want {
					t.Fatalf("%s %s: 1028 gets %q, want %q", d, o, got, want)
				}
				if got, want := c.ask(later(sent...)...), claims("f", content, claimed(last)); got != want {
					t.Fatalf("%s %s, %d bytes: 828 gets %q, want %q", d, o, size, got, want)
				}
				if got := c.ask(later(p.ok("f"))...); got != "1604" {
					t.Fatal(got)
				}
				w.verified(p, "f", content)
				w.hangUp()
			}
		}
	}
}

// TestContentSizeOfMixedCodes: the request that completed the file decides, not
// what came before it on the connection, and not the packet past the last.
func TestContentSizeOfMixedCodes(t *testing.T) {
	content := random(1, 3000)
	w := newWorld(t, session.Config{})
	p, c := w.known("alice"), w.dial()
	first, edition := p.packets(packetSize, "f", content, 1024), later(p.packets(packetSize, "f", content, 1024)...)
	ask := func(what, want string, messages ...[]byte) {
		t.Helper()
		if got := c.ask(append(messages, p.ok("f"))...); got != want+", 1604" {
			t.Errorf("%s: got %q, want %q", what, got, want)
		}
	}
	ask("828 last", claims("f", content, 960), first[0], first[1], edition[2])
	ask("1028 last", received("f", content), edition[0], edition[1], first[2])
	ask("828 last, in another order", claims("f", content, 1024), edition[2], first[1], edition[0])
	past := slices.Clone(edition[2])
	past[23+8] = 4
	ask("with a packet past the last", claims("f", content, 960), edition[0], edition[1], edition[2], past)
	ask("a packet again", claims("f", content, 960), edition[0], edition[1], first[1], edition[2])
	w.hangUp()

	// Resumed on another connection, by a first message that is an 828 or a 1028.
	if got := w.dial().ask(edition...); got != claims("f", content, 960) {
		t.Errorf("resumed: %q", got)
	}
	if got := w.dial().ask(first...); got != received("f", content) {
		t.Errorf("resumed: %q", got)
	}
	w.hangUp()
}

// TestNoTotal: an empty file with Total Packets 0 is one packet.
func TestNoTotal(t *testing.T) {
	for _, first := range []uint16{0, 1} {
		for _, size := range []int{16, 1024} {
			w := newWorld(t, session.Config{})
			p, c := w.known("alice"), w.dial()
			m := codec.SendFile{ContentSize: 16, Packet: first, FileName: []byte("f")}
			body := append(p.encrypt(nil), make([]byte, size-16)...)
			packet := p.packet(m, body)
			if got := c.ask(packet, p.ok("f")); got != received("f", nil)+", 1604" {
				t.Errorf("packet %d of 0 with %d bytes: %q", first, size, got)
			}
			if got := c.ask(packet, packet, p.ok("f")); got != received("f", nil)+", "+received("f", nil)+", 1604" {
				t.Errorf("the same twice: %q", got)
			}
			w.verified(p, "f", nil)
			w.hangUp()
		}
	}
}

// swapped puts Packet Number and Total Packets into each other's place.
func swapped(packets [][]byte) [][]byte {
	out := make([][]byte, len(packets))
	for i, m := range packets {
		out[i] = slices.Clone(m)
		copy(out[i][23+8:], m[23+10:23+12])
		copy(out[i][23+10:], m[23+8:23+10])
	}
	return out
}

// TestSwappedNumbers: a client that has Packet Number and Total Packets in each
// other's place is known by its first packet. The others come in any order, are
// repeated, and one past the last is ignored, as with any client.
func TestSwappedNumbers(t *testing.T) {
	for _, d := range []dialect{spec, single, padded, packetSize} {
		for _, size := range []int{0, 1, 1023, 1024, 5000, 100_003} {
			for _, o := range orders {
				t.Run(fmt.Sprint(d, " ", size, " ", o), func(t *testing.T) {
					w := newWorld(t, session.Config{})
					p, c := w.known("alice"), w.dial()
					content := random(uint64(size), size)
					all := swapped(p.packets(d, "f", content, 1024))
					sent := slices.Concat(all[:1], o.put(all[1:], rand.New(rand.NewPCG(1, 1))))
					if o == repeated {
						sent = o.put(all, rand.New(rand.NewPCG(1, 1)))
					}
					if got := c.ask(sent...); got != received("f", content) {
						t.Fatalf("got %q", got)
					}
					if len(all) > 1 { // one past the last, and one that came already
						past := slices.Clone(all[0])
						binary.LittleEndian.PutUint16(past[23+10:], uint16(len(all)+1))
						if got := c.ask(past, all[1]); got != "" {
							t.Errorf("past the last: %q", got)
						}
					}
					if got := c.ask(p.ok("f")); got != "1604" {
						t.Fatal(got)
					}
					w.verified(p, "f", content)
					if got := c.ask(join(sent[:len(sent)/2], all, p.ok("f"))...); got != received("f", content)+", 1604" {
						t.Errorf("begun anew: %q", got)
					}
					w.hangUp()
				})
			}
		}
	}
}

// TestSwappedNumbersRefused: a transfer with swapped numbers that is refused gets
// one 1607 as any other, and its repetition is served once the cause is gone.
func TestSwappedNumbersRefused(t *testing.T) {
	for _, portion := range []int{100, 100_000} {
		t.Run(fmt.Sprint(portion), func(t *testing.T) { swappedNumbersRefused(t, portion) })
	}
}

func swappedNumbersRefused(t *testing.T, portion int) {
	content := random(1, 20_000)
	w := newWorld(t, session.Config{Limits: session.Limits{MaxFileSize: 15_000}})
	w.portion = func(n int) int { return min(n, portion) }
	p, c := w.known("alice"), w.dial()
	small := content[:15_000]
	if got := c.ask(swapped(p.packets(spec, "f", content, 1000))...); got != "1607" {
		t.Errorf("too large: %q", got)
	}
	if got := c.ask(swapped(p.packets(spec, "f", small, 1000))...); got != received("f", small) {
		t.Errorf("then: %q", got)
	}
	broken := swapped(p.packets(spec, "g", small, 1000))
	broken[2][23+4]++ // Orig File Size
	if got := c.ask(broken...); got != "1607" {
		t.Errorf("a packet of another file: %q", got)
	}
	stranger := *p
	stranger.id[3]++
	if got := c.ask(swapped(stranger.packets(spec, "g", small, 1000))...); got != "1607" {
		t.Errorf("under another id: %q", got)
	}
	if got := c.ask(join(swapped(p.packets(spec, "g", small, 1000)), p.ok("g"))...); got != received("g", small)+", 1604" {
		t.Errorf("then: %q", got)
	}
	if got := c.ask(swapped(p.packets(perPacket, "h", small, 1000))...); got != "1607" {
		t.Errorf("each packet on its own: %q", got)
	}
	if got := c.ask(join(p.packets(perPacket, "h", small, 1000), p.ok("h"))...); got != received("h", small)+", 1604" {
		t.Errorf("then with the numbers in their place: %q", got)
	}
	w.hangUp()
}
