package session_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"sealift/codec"
	"sealift/session"
)

// order puts the packets of a file into another order.
type order string

const (
	inOrder  order = "in order"
	reversed order = "reversed"
	shuffled order = "shuffled"
	repeated order = "with repetitions"
)

var orders = []order{inOrder, reversed, shuffled, repeated}

func (o order) put(packets [][]byte, r *rand.Rand) [][]byte {
	p := slices.Clone(packets)
	switch o {
	case reversed:
		slices.Reverse(p)
	case shuffled:
		r.Shuffle(len(p), func(i, j int) { p[i], p[j] = p[j], p[i] })
	case repeated:
		for n := len(p); n > 1; n /= 2 { // any but the first, anywhere behind where it came
			i := 1 + r.IntN(len(p)-1)
			if bytes.Equal(p[i], packets[0]) {
				continue
			}
			j := i + 1 + r.IntN(len(p)-i)
			p = slices.Insert(p, j, p[i])
		}
	}
	return p
}

// notOneFirst makes sure that the first packet to come is not number 1 of a
// dialect that counts from 0: see TestZeroBasedOutOfOrder.
func notOneFirst(d dialect, packets [][]byte) [][]byte {
	if (d == zeroBased || d == zeroSpec) && len(packets) > 1 && number(packets[0]) == 1 {
		packets[0], packets[1] = packets[1], packets[0]
	}
	return packets
}

// number is the Packet Number of a 1028.
func number(packet []byte) int { return int(packet[23+8]) | int(packet[23+9])<<8 }

// verified checks that the file is stored under path, recorded, and whole.
func (w *world) verified(p *peer, path string, content []byte) {
	w.t.Helper()
	f := w.row(p.id, path, true)
	if f == nil {
		w.t.Fatalf("%s is not verified", path)
	}
	stored := w.stored(p.id, path)
	if !bytes.Equal(stored, content) {
		w.t.Fatalf("%s: %d bytes are stored that are not the %d sent", path, len(stored), len(content))
	}
	if want := received("", content); received("", stored) != want || f.Size != int64(len(content)) {
		w.t.Fatalf("%s: recorded as %d bytes %08x", path, f.Size, f.Cksum)
	}
}

// TestUpload sends files of sizes around the cipher's blocks, the buffers and
// the packets in each dialect and order.
func TestUpload(t *testing.T) {
	fileSizes := []int{0, 1, 15, 16, 17, 4096, 100_003, 1 << 20}
	packetSizes := map[dialect][]int{
		spec: {1, 7, 16, 1000, 1024, 65_536}, single: {0}, padded: {1024, 65_269},
		zeroBased: {1024}, zeroSpec: {16, 1000}, perPacket: {4000, 4096}, packetSize: {16, 1024, 30_000},
	}
	for _, d := range dialects {
		for _, size := range packetSizes[d] {
			t.Run(fmt.Sprint(d, " ", size), func(t *testing.T) {
				t.Parallel()
				r := rand.New(rand.NewPCG(1, uint64(size)))
				w := newWorld(t, session.Config{})
				p, c := w.known("alice"), w.dial()
				for i, fileSize := range fileSizes {
					if size > 0 && fileSize/size > 20_000 {
						continue
					}
					content := random(uint64(i), fileSize)
					for _, o := range orders {
						name := fmt.Sprint(fileSize, " ", o)
						packets := p.packets(d, name, content, size)
						if o != inOrder && len(packets) == 1 {
							continue
						}
						if got := c.ask(notOneFirst(d, o.put(packets, r))...); got != received(name, content) {
							t.Fatalf("%s in %d packets: reply %q", name, len(packets), got)
						}
						if got := c.ask(p.ok(name)); got != "1604" {
							t.Fatal(got)
						}
						w.verified(p, name, content)
					}
				}
				w.hangUp()
			})
		}
	}
}

// TestSplits feeds a session single bytes, and the same in one piece, with the
// 1029 sent ahead of the 1603, by Feed alone and with the help of Target.
func TestSplits(t *testing.T) {
	content := random(1, 3000)
	for _, d := range dialects {
		for _, o := range orders {
			for _, direct := range []bool{false, true} {
				for portion, split := range map[string]func(int) int{
					"one byte at a time": func(int) int { return 1 },
					"all in one":         func(n int) int { return n },
					"odd pieces":         func(n int) int { return min(n, 611) },
				} {
					t.Run(fmt.Sprint(d, "/", o, "/", portion, "/", direct), func(t *testing.T) {
						w := newWorld(t, session.Config{})
						w.direct = func() bool { return direct }
						w.portion = split
						p, c := w.known("alice"), w.dial()
						packets := p.packets(d, "f", content, 500)
						messages := append(notOneFirst(d, o.put(packets, rand.New(rand.NewPCG(1, 1)))), p.ok("f"))
						if got, want := c.ask(messages...), received("f", content)+", 1604"; got != want {
							t.Fatalf("got %q, want %q", got, want)
						}
						w.verified(p, "f", content)
						w.hangUp()
					})
				}
			}
		}
	}
}

// TestInterleaved sends two files packet by packet in turn.
func TestInterleaved(t *testing.T) {
	w := newWorld(t, session.Config{})
	p, c := w.known("alice"), w.dial()
	one, two := random(1, 300_000), random(2, 200_001)
	a, b := p.packets(spec, "one", one, 5000), p.packets(padded, "two", two, 3333)
	for i := range max(len(a), len(b)) {
		if i < len(a) {
			c.send(a[i])
		}
		if i < len(b) {
			c.send(b[len(b)-1-i])
		}
	}
	c.send(p.ok("two"), p.ok("one"))
	w.run()
	slices.Sort(c.replies)
	want := []string{received("one", one), received("two", two), "1604", "1604"}
	slices.Sort(want)
	if !slices.Equal(c.replies, want) {
		t.Fatalf("replies %q, want %q", c.replies, want)
	}
	w.verified(p, "one", one)
	w.verified(p, "two", two)
	w.hangUp()
}

// TestBeginAnew sends the first packet again in the middle of a transfer, and
// then another file of the same name.
func TestBeginAnew(t *testing.T) {
	for _, d := range dialects[2:] {
		w := newWorld(t, session.Config{})
		p, c := w.known("alice"), w.dial()
		cut := p.packets(d, "f", random(1, 200_000), 10_000)
		content := random(2, 150_000)
		if got := c.ask(cut[:11]...); got != "" {
			t.Fatal(d, got)
		}
		if got := c.ask(p.packets(d, "f", content, 9000)...); got != received("f", content) {
			t.Fatal(d, got)
		}
		// Complete, and begun anew without a verdict.
		content = content[:100_000]
		if got := c.ask(append(p.packets(d, "f", content, 9000), p.ok("f"))...); got != received("f", content)+", 1604" {
			t.Fatal(d, got)
		}
		w.verified(p, "f", content)
		w.hangUp()
	}
}

// TestPacketPastTheLast: some clients send one packet more than they announce.
func TestPacketPastTheLast(t *testing.T) {
	content := random(1, 5000)
	for _, split := range []int{1, 100_000} {
		for _, wait := range []bool{false, true} {
			w := newWorld(t, session.Config{})
			w.portion = func(n int) int { return min(n, split) }
			p, c := w.known("alice"), w.dial()
			total := uint16(len(p.packets(padded, "f", content, 1024)))
			for n, body := range [][]byte{nil, make([]byte, 1024), bytes.Repeat([]byte{16}, 16)} {
				name := fmt.Sprint("f", n)
				m := codec.SendFile{
					ContentSize: 5008, OrigSize: 5000, Packet: total + 1, Total: total, FileName: []byte(name),
				}
				past := p.packet(m, body)
				packets := p.packets(padded, name, content, 1024)
				got := ""
				if wait { // for the 1603
					got = c.ask(packets...)
					if more := c.ask(past); more != "" {
						t.Error("the packet past the last gets", more)
					}
				} else {
					got = c.ask(append(packets, past)...)
				}
				if got != received(name, content) {
					t.Errorf("got %q", got)
				}
				if got := c.ask(p.ok(name)); got != "1604" {
					t.Error(got)
				}
				w.verified(p, name, content)
			}
			w.hangUp()
		}
	}
}

// TestRepeatedAfterCompletion: a packet but the first that comes again changes
// nothing, also when the file is complete and its checksum sent.
func TestRepeatedAfterCompletion(t *testing.T) {
	content := random(1, 5000)
	for _, d := range []dialect{spec, padded, zeroBased, perPacket, packetSize} {
		for n := 1; n < 5; n++ {
			w := newWorld(t, session.Config{})
			p, c := w.known("alice"), w.dial()
			packets := p.packets(d, "f", content, 1024)
			if got := c.ask(packets...); got != received("f", content) {
				t.Fatal(got)
			}
			if got := c.ask(packets[n]); got != "" {
				t.Errorf("%s: packet %d again gets %q", d, n, got)
			}
			if got := c.ask(p.ok("f")); got != "1604" {
				t.Errorf("%s: after packet %d came again, 1029 gets %q", d, n, got)
			}
			w.hangUp()
		}
	}
}

// TestZeroBasedOutOfOrder sends the packets of a client that counts from 0 in
// every order. Only if packet 1 is the first of all, which looks like a client
// that counts from 1, the file has to come twice.
func TestZeroBasedOutOfOrder(t *testing.T) {
	content := random(1, 4000)
	permutations(4, func(perm []int) {
		w := newWorld(t, session.Config{})
		p, c := w.known("alice"), w.dial()
		packets := make([][]byte, 4)
		for i, n := range perm {
			packets[i] = p.packets(zeroBased, "f", content, 1024)[n]
		}
		got := c.ask(packets...)
		if perm[0] == 1 {
			if got != "1607" {
				t.Errorf("%v: got %q", perm, got)
			}
			got = c.ask(packets...)
		}
		if got != received("f", content) {
			t.Errorf("%v: got %q", perm, got)
		}
		if got := c.ask(p.ok("f")); got != "1604" {
			t.Errorf("%v: 1029 gets %q", perm, got)
		}
		w.hangUp()
	})
}

// TestCountsFromOneAfterAll: what was learnt of a client that counted from 0 is
// no obstacle when the file comes in a single packet.
func TestCountsFromOneAfterAll(t *testing.T) {
	content := random(1, 2000)
	w := newWorld(t, session.Config{})
	p, c := w.known("alice"), w.dial()
	packets := p.packets(zeroBased, "f", content, 1024)
	if got := c.ask(packets[1], packets[0]); got != "1607" {
		t.Fatal(got)
	}
	if got := c.ask(p.packets(single, "f", content, 0)...); got != received("f", content) {
		t.Errorf("got %q", got)
	}
	w.hangUp()
}

// permutations calls f with each order of 0…n-1.
func permutations(n int, f func(perm []int)) {
	var extend func(perm []int)
	extend = func(perm []int) {
		if len(perm) == n {
			f(perm)
			return
		}
		for i := range n {
			if !slices.Contains(perm, i) {
				extend(append(perm[:len(perm):len(perm)], i))
			}
		}
	}
	extend(nil)
}

// TestSchedules is a property: files in random dialects and orders, mixed, under
// a random schedule, each get one 1603 with their checksum and one 1604.
func TestSchedules(t *testing.T) {
	cases := 2000
	if testing.Short() {
		cases = 200
	}
	for seed := range uint64(cases) {
		if !scheduled(t, seed) {
			t.Fatalf("with seed %d", seed)
		}
	}
}

// shuffle makes every choice of w a random one.
func (w *world) shuffle(r *rand.Rand) {
	w.choose = r.IntN
	switch r.IntN(4) {
	case 0:
		w.portion = func(n int) int { return 1 + r.IntN(n) }
	case 1:
		w.portion = func(n int) int { return 1 + r.IntN(min(n, 2000)) }
	case 2:
		w.portion = func(n int) int { return 1 + r.IntN(min(n, 70_000)) }
	}
	if r.IntN(2) == 0 {
		w.direct = func() bool { return r.IntN(4) != 0 }
	}
	if lending {
		w.lend = func() bool { return r.IntN(4) != 0 }
	}
	switch r.IntN(3) {
	case 0:
		w.stingy = func() bool { return r.IntN(3) == 0 }
	case 1:
		w.stingy = func() bool { return r.IntN(10) == 0 }
	}
}

func scheduled(t *testing.T, seed uint64) bool {
	r := rand.New(rand.NewPCG(seed, 7))
	w := newWorld(t, session.Config{})
	w.shuffle(r)
	switch r.IntN(4) {
	case 0: // no memory for what comes early
		w.hold = func(int) bool { return false }
	case 1: // now and then
		w.hold = func(int) bool { return r.IntN(2) == 0 }
	}
	sizes := []int{0, 1, 15, 16, 17, 100, 4096, 20_000, 100_003}
	if seed%40 == 0 {
		sizes = []int{700_000, 1 << 20}
	}
	var want []string
	type file struct {
		p       *peer
		name    string
		content []byte
	}
	var files []file
	for i := range 1 + r.IntN(3) {
		p, c := w.known(fmt.Sprint("peer", i)), w.dial()
		var streams [][][]byte
		for j := range 1 + r.IntN(3) {
			name := fmt.Sprint("file ", j)
			content := random(seed+uint64(j), sizes[r.IntN(len(sizes))]+r.IntN(2))
			d := dialects[r.IntN(len(dialects))]
			size := 1 + r.IntN(5000)
			if d == padded || d == zeroBased {
				size = 500 + r.IntN(5000)
			}
			if len(content) > 200*size {
				size = len(content)/200 + r.IntN(70_000)
			}
			packets := p.packets(d, name, content, size)
			o := orders[r.IntN(len(orders))]
			if o == repeated && r.IntN(2) == 0 {
				// Once complete, too.
				if len(packets) > 1 {
					packets = append(packets, packets[1+r.IntN(len(packets)-1)])
				}
			} else {
				packets = notOneFirst(d, o.put(packets, r))
			}
			streams = append(streams, append(packets, p.ok(name)))
			want = append(want, received(name, content), "1604")
			files = append(files, file{p, name, content})
		}
		for len(streams) > 0 {
			k := r.IntN(len(streams))
			c.send(streams[k][0])
			if streams[k] = streams[k][1:]; len(streams[k]) == 0 {
				streams = slices.Delete(streams, k, k+1)
			}
		}
	}
	w.run()
	var got []string
	for _, c := range w.conns {
		got = append(got, c.replies...)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("replies\n%q, want\n%q", got, want)
		return false
	}
	for _, f := range files {
		w.verified(f.p, f.name, f.content)
	}
	w.hangUp()
	w.counted()
	return !t.Failed()
}

// A worker that does not come to the end of Take gets its buffer back all the same,
// and the transfer that it had fails.
func TestPanicInALoan(t *testing.T) {
	w := newWorld(t, session.Config{})
	w.svc.LendFrom(1)
	w.lend = func() bool { return true }
	p, c := w.login("alice")
	packets := p.packets(spec, "f", random(1, 3000), 1008)
	c.send(packets[0], packets[1])
	c.feed(len(packets[0]) / 2)
	if c.loan == nil {
		t.Fatal("not lent")
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		c.sick = true
		c.take(len(c.in))
	}()
	c.sick = false
	c.in, c.arrived = nil, 0 // what the worker had read is lost
	c.giveBack()
	w.run()
	if len(c.replies) != 1 || c.replies[0] != "1607" || c.s.Uploads() != 0 {
		t.Errorf("replies %q, %d transfers", c.replies, c.s.Uploads())
	}
	c.close()
	w.run()
	w.clean()
}
