package session_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"sealift/codec"
	"sealift/session"
)

// TestRefusals: a transfer that cannot be taken gets one 1607, although all its
// packets come, in any order; then the file goes through when it comes again
// without the fault, and nothing is left of the first attempt.
func TestRefusals(t *testing.T) {
	content := random(1, 20_000)
	// patch changes a field in all packets.
	patch := func(packets [][]byte, at int, b ...byte) [][]byte {
		for i := range packets {
			packets[i] = slices.Clone(packets[i])
			copy(packets[i][23+at:], b)
		}
		return packets
	}
	last := func(packets [][]byte) []byte { return packets[len(packets)-1] }
	cases := []struct {
		what string
		cfg  session.Config
		bad  func(p *peer) [][]byte
		good func(p *peer) [][]byte // nil: the file "f" in spec
	}{
		{what: "damaged end", bad: func(p *peer) [][]byte {
			b := p.packets(spec, "f", content, 1000)
			last(b)[len(last(b))-1] ^= 1
			return b
		}},
		{what: "another key", bad: func(p *peer) [][]byte {
			q := *p
			q.key[3]++
			return q.packets(spec, "f", content, 1000)
		}},
		{what: "another key for each packet", bad: func(p *peer) [][]byte {
			q := *p
			q.key[3]++
			return q.packets(perPacket, "f", content, 1000)
		}},
		{what: "Orig File Size too large by one", bad: func(p *peer) [][]byte {
			return patch(p.packets(spec, "f", content, 1000), 4, 0x21, 0x4e) // 20,001, not 20,000
		}},
		{what: "padding before the last packet", bad: func(p *peer) [][]byte {
			b := p.packets(padded, "f", content, 5000)
			b = patch(append(b, p.packet(codec.SendFile{FileName: []byte("f")}, make([]byte, 5000))), 10, 6)
			copy(last(b)[23:], b[0][23:23+8]) // the sizes
			last(b)[23+8] = 6
			return b
		}},
		{what: "the sizes of another file", bad: func(p *peer) [][]byte {
			return patch(p.packets(spec, "f", content, 1000), 0, 0x40, 0x4e, 0, 0, 0x3f, 0x4e)
		}},
		{what: "padding that is not zero", bad: func(p *peer) [][]byte {
			b := p.packets(padded, "f", content, 1024)
			last(b)[len(last(b))-1] = 1
			return b
		}},
		{what: "more content than the Content Size", bad: func(p *peer) [][]byte {
			b := p.packets(padded, "f", content, 5000)
			b[len(b)-2] = append(b[len(b)-2], 0)
			b[len(b)-2][19]++ // payload size
			return b
		}},
		{what: "less content than the Content Size", bad: func(p *peer) [][]byte {
			b := p.packets(spec, "f", content, 1000)
			b[4] = b[4][:len(b[4])-1]
			b[4][19]--
			return b
		}},
		{what: "too large", cfg: session.Config{Limits: session.Limits{MaxFileSize: 19_999}},
			bad:  func(p *peer) [][]byte { return p.packets(spec, "f", content, 1000) },
			good: func(p *peer) [][]byte { return p.packets(spec, "f", content[:19_999], 1000) }},
		{what: "too large, by packets", cfg: session.Config{Limits: session.Limits{MaxFileSize: 19_999}},
			bad:  func(p *peer) [][]byte { return p.packets(perPacket, "f", content, 1000) },
			good: func(p *peer) [][]byte { return p.packets(perPacket, "f", content[:19_999], 1000) }},
		{what: "no total", bad: func(p *peer) [][]byte { return patch(p.packets(spec, "f", content, 1000), 10, 0, 0) }},
		{what: "sizes that fit no dialect", bad: func(p *peer) [][]byte {
			return patch(p.packets(spec, "f", content, 1000), 0, 1)
		}},
		{what: "a dialect that changes half-way", bad: func(p *peer) [][]byte {
			return append(p.packets(spec, "f", content, 1000)[:10], p.packets(packetSize, "f", content, 1000)[10:]...)
		}},
		{what: "a size that changes half-way", bad: func(p *peer) [][]byte {
			return append(p.packets(spec, "f", content, 1000)[:10], p.packets(spec, "f", content[:19_998], 1000)[10:]...)
		}},
	}
	for _, name := range []string{"..", `..\..`, "a/..", `C:\..`, "/", `\`, "C:/", ".", "./", "/../etc/.."} {
		cases = append(cases, struct {
			what string
			cfg  session.Config
			bad  func(p *peer) [][]byte
			good func(p *peer) [][]byte
		}{what: "the name " + name, bad: func(p *peer) [][]byte { return p.packets(spec, name, content, 1000) }})
	}
	cases = append(cases, struct {
		what string
		cfg  session.Config
		bad  func(p *peer) [][]byte
		good func(p *peer) [][]byte
	}{what: "a control character in the name", bad: func(p *peer) [][]byte {
		return patch(p.packets(spec, "f-", content, 1000), 13, 7)
	}})

	for _, tc := range cases {
		for seed, o := range []order{inOrder, inOrder, reversed, shuffled, shuffled, shuffled} {
			t.Run(fmt.Sprint(tc.what, "/", seed, " ", o), func(t *testing.T) {
				r := rand.New(rand.NewPCG(uint64(seed), 1))
				w := newWorld(t, tc.cfg)
				p, c := w.login("alice")
				if seed > 0 {
					w.shuffle(r)
				}
				bad := o.put(tc.bad(p), r)
				if strings.HasSuffix(tc.what, "half-way") {
					bad = tc.bad(p) // in order, or it would not change half-way
				}
				if got := c.ask(bad...); got != "1607" {
					t.Fatalf("got %q, want one 1607", got)
				}
				if c.hangup != "" {
					t.Fatal("hung up:", c.hangup)
				}
				w.clean()
				if len(w.files.incoming) != 0 || len(w.rows()) != 0 || c.s.Uploads() != 0 {
					t.Fatal("the transfer left something")
				}
				good := p.packets(spec, "f", content, 1000)
				if tc.good != nil {
					good = tc.good(p)
				}
				if got := c.ask(append(o.put(good, r), p.ok("f"))...); !strings.HasPrefix(got, "1603 f") || !strings.HasSuffix(got, ", 1604") {
					t.Fatalf("then the file gets %q", got)
				}
				if c.held != 0 && strings.Contains(tc.what, "size") {
					t.Error("bytes held:", c.held)
				}
				w.hangUp()
			})
		}
	}
}

// TestRefusedWithVerdictAhead: a transfer that turns out to be short, with its
// 1029 right behind it. Both get their 1607, whichever packet comes last.
func TestRefusedWithVerdictAhead(t *testing.T) {
	permutations(3, func(perm []int) {
		w := newWorld(t, session.Config{})
		p, c := w.known("alice"), w.dial()
		all := p.packets(spec, "f", random(1, 3000), 1024)
		all[1] = all[1][:len(all[1])-8]
		all[1][19] -= 8 // payload size
		if got := c.ask(all[perm[0]], all[perm[1]], all[perm[2]], p.ok("f")); got != "1607, 1607" {
			t.Errorf("%v: got %q", perm, got)
		}
		w.hangUp()
	})
}

// TestRefusedThenStopped: a client that stops sending when it sees the 1607, and
// begins with the first packet again.
func TestRefusedThenStopped(t *testing.T) {
	content := random(1, 20_000)
	for at := 1; at <= 20; at++ {
		w := newWorld(t, session.Config{})
		p, c := w.known("alice"), w.dial()
		w.reg.faults.failAt = w.reg.faults.calls + 2 // the first Write: job by job it is about some packet
		got := ""
		packets := p.packets(spec, "f", content, 1000)
		for i := 0; i < at && got == ""; i++ {
			got = c.ask(packets[i])
		}
		if got == "" {
			t.Fatal("the fault did not come")
		}
		if got := c.ask(packets...); got != received("f", content) {
			t.Errorf("stopped after %d: got %q", at, got)
		}
		w.hangUp()
	}
}

// TestSentAhead: a 1029 that was sent ahead of the 1603 must not verify what an
// earlier connection left under the name, when the transfer failed.
func TestSentAhead(t *testing.T) {
	w := newWorld(t, session.Config{})
	p := w.known("alice")
	one, two := random(1, 1000), random(2, 1000)
	c := w.dial()
	c.ask(p.packets(single, "f", one, 0)...)
	c.close()
	c = w.dial()
	w.reg.faults.failAt = w.reg.faults.calls + 3 // recall, Create, Write
	if got := c.ask(append(p.packets(single, "f", two, 0), p.ok("f"))...); got != "1607, 1607" {
		t.Errorf("got %q", got)
	}
	if f := w.row(p.id, "f", true); f != nil {
		t.Error("the file of the earlier connection was verified")
	}
	if got := c.ask(append(p.packets(single, "f", two, 0), p.ok("f"))...); got != received("f", two)+", 1604" {
		t.Errorf("got %q", got)
	}
	w.verified(p, "f", two)
	w.hangUp()
}

// TestOnePacketTooMany: some clients send one packet more than a file has. It gets 1607, and
// the verdict that follows is about the file all the same, which had its 1603.
func TestOnePacketTooMany(t *testing.T) {
	for what, extra := range map[string]func(packet []byte){
		"from 1":  func(b []byte) { b[23+8]++ },  // Packet Number
		"swapped": func(b []byte) { b[23+10]++ }, // the same of a client that swaps it with Total Packets
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t, session.Config{})
			p, c := w.known("alice"), w.dial()
			packets := p.packets(padded, "empty", nil, 1024)
			if len(packets) != 1 {
				t.Fatalf("%d packets", len(packets))
			}
			more := slices.Clone(packets[0])
			extra(more)
			got := c.ask(packets[0], more, p.ok("empty"))
			if !strings.HasPrefix(got, "1603") || !strings.HasSuffix(got, ", 1604") {
				t.Errorf("got %q", got)
			}
			w.verified(p, "empty", nil)
			w.hangUp()
		})
	}
}

// TestSentAheadOfRefusal: a 1029 that was sent ahead of the 1607 of a file's next version
// is not about the version before, which this connection has had a 1603 for. Whether that
// had its 1604 is all one. While the server goes down, only a file of another shape is told
// from a late repetition of the one before (see TestRepetitionsWhileDraining).
func TestSentAheadOfRefusal(t *testing.T) {
	for name, refused := range map[string]func(w *world, p *peer) [][]byte{
		"too large": func(w *world, p *peer) [][]byte {
			w.svc.Limit(session.Limits{MaxFileSize: 500})
			return p.packets(single, "f", random(2, 900), 0)
		},
		"too many": func(w *world, p *peer) [][]byte {
			w.svc.Limit(session.Limits{MaxUploads: 1})
			return join(p.packets(spec, "other", random(3, 1000), 100)[:3], p.packets(single, "f", random(2, 900), 0))
		},
		"going down": func(w *world, p *peer) [][]byte {
			for _, c := range w.conns {
				c.s.Drain()
			}
			return p.packets(single, "f", random(2, 900), 0)
		},
	} {
		for _, verified := range []bool{false, true} {
			t.Run(fmt.Sprint(name, verified), func(t *testing.T) {
				w := newWorld(t, session.Config{})
				p, c := w.known("alice"), w.dial()
				one := random(1, 1000)
				first := p.packets(single, "f", one, 0)
				if verified {
					first = append(first, p.ok("f"), p.ok("f"))
				}
				c.ask(first...)
				if got := c.ask(join(refused(w, p), p.ok("f"))...); got != "1607, 1607" {
					t.Errorf("got %q", got)
				}
				if v := w.row(p.id, "f", true); (v != nil) != verified {
					t.Errorf("verified is %v", v)
				}
				c = w.dial()
				if got := c.ask(p.ok("f")); got != "1604" { // what was lost is the first one
					t.Errorf("another connection got %q", got)
				}
				w.verified(p, "f", one)
				w.hangUp()
			})
		}
	}
}

// TestTooManyTransfers: transfers that wait for the client count against the
// limit, those that the server is about to end are waited for.
func TestTooManyTransfers(t *testing.T) {
	w := newWorld(t, session.Config{Limits: session.Limits{MaxUploads: 3}})
	p, c := w.known("alice"), w.dial()
	content := random(1, 3000)
	var want []string
	for i := range 20 {
		name := fmt.Sprint("small ", i)
		c.send(p.packets(spec, name, content, 1000)...)
		want = append(want, received(name, content))
	}
	w.run()
	slices.Sort(want)
	slices.Sort(c.replies)
	if !slices.Equal(c.replies, want) {
		t.Fatalf("of 20 files sent at once, got %q", c.replies)
	}
	packets := make([][][]byte, 5)
	for i := range packets {
		packets[i] = p.packets(spec, fmt.Sprint("f", i), content, 1000)
	}
	for i, want := range []string{"", "", "", "1607", "1607"} {
		if got := c.ask(packets[i][:3]...); got != want {
			t.Errorf("transfer %d gets %q", i, got)
		}
	}
	if got := c.ask(packets[1][3:]...); got != received("f1", content) {
		t.Error(got)
	}
	if got := c.ask(packets[3][3:]...); got != "" { // the rest of one that was refused
		t.Error(got)
	}
	if got := c.ask(packets[3]...); got != received("f3", content) {
		t.Error(got)
	}
	w.hangUp()
}

// TestManyRefusals: what is remembered of refused transfers is bounded and
// accounted for, and without memory for it the client still gets its 1607.
func TestManyRefusals(t *testing.T) {
	for _, memory := range []bool{true, false} {
		w := newWorld(t, session.Config{})
		if !memory {
			w.hold = func(int) bool { return false }
		}
		p, c := w.known("alice"), w.dial()
		for i := range 1000 {
			m := codec.SendFile{ContentSize: 1, OrigSize: 1, Packet: 65_535, Total: 65_535, FileName: fmt.Append(nil, "f", i)}
			if got := c.ask(p.packet(m, make([]byte, 100))); got != "1607" {
				t.Fatal(i, got)
			}
			if c.held > 16*8192 {
				t.Fatal(c.held, "bytes held")
			}
		}
		w.hangUp()
	}
}

// TestUnknownClient: a file from a client that the server does not know gets one
// 1607, and when the client has registered the file goes through.
func TestUnknownClient(t *testing.T) {
	priv, pub := pair[0]()
	w := newWorld(t, session.Config{})
	p, c := &peer{name: "alice", id: codec.ClientID{1}}, w.dial()
	content := random(1, 5000)
	if got := c.ask(p.packets(spec, "f", content, 100)...); got != "1607" {
		t.Fatalf("got %q", got)
	}
	if got := c.ask(p.packets(spec, "f", content, 100)...); got != "1607" {
		t.Fatalf("again: %q", got)
	}
	c.ask(p.register())
	p.id = codec.ClientID(c.raw[len(c.raw)-1][7:])
	if got := c.ask(p.packets(spec, "f", content, 100)...); got != "1607" {
		t.Fatalf("without a key: %q", got)
	}
	c.ask(p.publicKey(pub))
	p.key = c.aesKey(t, priv)
	stranger := *p
	stranger.id[5]++
	if got := c.ask(stranger.packets(spec, "f", content, 100)...); got != "1607" {
		t.Fatalf("under another id: %q", got)
	}
	if got := c.ask(append(p.packets(spec, "f", content, 100), p.ok("f"))...); got != received("f", content)+", 1604" {
		t.Fatalf("got %q", got)
	}
	w.verified(p, "f", content)
	w.hangUp()
}

// TestStoreFails makes each call of the store fail in turn, in a session with
// two files, one of them in reverse and larger than what waits in memory. Every
// request gets a reply, nothing is left behind, and after 1607 the same again
// goes through.
func TestStoreFails(t *testing.T) {
	one, two := random(1, 5000), random(2, 400_000)
	for _, panics := range []bool{false, true} {
		for nth := 1; ; nth++ {
			w := newWorld(t, session.Config{})
			p, c := w.known("alice"), w.dial()
			f := w.reg.faults
			f.failAt = nth
			if panics {
				f.fail = func() error { panic(errInjected) }
			}
			steps := [][][]byte{
				{p.reconnect()},
				p.packets(spec, "one", one, 1000),
				{p.ok("one")},
				reversed.put(p.packets(perPacket, "two", two, 4096), nil),
				{p.verdict(codec.CodeCRCBad, "two")},
				p.packets(spec, "two", two, 50_000),
				{p.verdict(codec.CodeAbort, "two")},
				p.packets(padded, "two", two, 50_000),
				{p.ok("two")},
			}
			wants := []string{"1605", received("one", one), "1604", received("two", two), "", received("two", two), "1604", received("two", two), "1604"}
			for i, want := range wants {
				got := c.ask(steps[i]...)
				if got != want && f.hit != "" && got == "1607" {
					if f.lost() {
						c.ask(steps[i-1]...)
					}
					if got = c.ask(steps[i]...); got != want {
						t.Errorf("%s failed, step %d: then %q, want %q", f.hit, i, got, want)
					}
				} else if got != want {
					t.Errorf("%s failed, step %d: got %q, want %q", f.hit, i, got, want)
				}
				if i == 0 {
					p.key = [32]byte(w.client(p.id).AESKey)
					steps[1] = p.packets(spec, "one", one, 1000)
					steps[3] = reversed.put(p.packets(perPacket, "two", two, 4096), nil)
					steps[5] = p.packets(spec, "two", two, 50_000)
					steps[7] = p.packets(padded, "two", two, 50_000)
				}
				if t.Failed() {
					return
				}
			}
			if f.hit == "" {
				if nth < 30 {
					t.Fatal("only", nth, "calls")
				}
				break
			}
			w.verified(p, "one", one)
			w.verified(p, "two", two)
			c.close()
			w.run()
			if strings.HasPrefix(f.hit, "Discard") { // what cannot be removed stays
				clear(w.files.incoming)
			}
			w.clean()
			if t.Failed() {
				t.Fatalf("%s failed (call %d, panic %v)", f.hit, nth, panics)
			}
		}
	}
}

// TestHugeClaims: what packets claim to bring takes neither memory nor scratch
// room before it comes, and no more than the sizes allow.
func TestHugeClaims(t *testing.T) {
	for _, scheme := range []string{"whole file", "per packet", "packet size"} {
		w := newWorld(t, session.Config{Limits: session.Limits{MaxFileSize: 1 << 20}})
		w.files.null, w.files.noRoom = true, true
		p, c := w.known("alice"), w.dial()
		body := make([]byte, 100_000)
		refused := 0
		for n := uint16(65_000); n > 64_900 && refused == 0; n-- {
			m := codec.SendFile{ContentSize: 1 << 20, OrigSize: 1<<20 - 1, Packet: n, Total: 65_535, FileName: []byte("f")}
			switch scheme {
			case "per packet":
				m.ContentSize, m.OrigSize = 100_000, 99_999
			case "packet size":
				m.ContentSize = 100_000
			}
			if got := c.ask(p.packet(m, body)); got == "1607" {
				refused++
			}
		}
		if refused != 1 {
			t.Errorf("%s: 10 MB of early packets of a file of 1 MiB are taken", scheme)
		}
		if w.files.scratched > 3<<20 {
			t.Errorf("%s: %d bytes of scratch room", scheme, w.files.scratched)
		}
		w.hangUp()
	}
	// A packet that declares 4 GiB and brings little.
	w := newWorld(t, session.Config{})
	p := w.known("alice")
	m := codec.SendFile{ContentSize: codec.MaxCiphertext, OrigSize: codec.MaxFileSize, Packet: 2, Total: 2, FileName: []byte("f")}
	for ; m.Packet > 0; m.Packet-- {
		c := w.dial()
		if got := c.ask(m.Append(nil, p.id, 1<<32-1-267), bytes.Repeat([]byte{1}, 1000)); got != "" {
			t.Errorf("got %q", got)
		}
		if c.lentMax > 2*session.MinBuffer || c.held > 4096 {
			t.Errorf("%d bytes of buffers, %d held", c.lentMax, c.held)
		}
	}
	w.hangUp()
}

// TestRefusedNumber: a packet that cannot be of any transfer does not make the
// server deaf to the right one.
func TestRefusedNumber(t *testing.T) {
	w := newWorld(t, session.Config{})
	p, c := w.known("alice"), w.dial()
	content := random(9, 100)
	right := p.packets(single, "f", content, 0)
	wrong := bytes.Clone(right[0])
	wrong[codec.RequestHeaderSize+8] = 2 // packet 2 of 1
	if got := c.ask(wrong); got != "1607" {
		t.Fatal(got)
	}
	if got := c.ask(right...); got != received("f", content) {
		t.Fatalf("the right packet after it: %q", got)
	}
}

// TestPacketUnderWayIsRemembered: a transfer fails in the middle of a packet. When
// that packet comes again, it is of the next attempt, also if it comes first.
func TestPacketUnderWayIsRemembered(t *testing.T) {
	w := newWorld(t, session.Config{})
	p, c := w.known("alice"), w.dial()
	content := random(1, 500)
	packets := p.packets(spec, "f", content, 100)
	w.reg.faults.failOn = "Write"
	third := packets[2]
	if got := c.ask(packets[0], packets[1], third[:len(third)-50]); got != "1607" {
		t.Fatal(got)
	}
	again := append([][]byte{third[len(third)-50:], third, packets[0], packets[1]}, packets[3:]...)
	if got := c.ask(again...); got != received("f", content) {
		t.Errorf("got %q", got)
	}
	w.hangUp()
}
