package codec_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"sealift/codec"
)

const (
	whole  = codec.WholeFile
	perPkt = codec.PerPacket
	pktSiz = codec.PacketSize
)

// W in the comments is the size of the whole ciphertext, (Orig/16 + 1) * 16.
func TestInfer(t *testing.T) {
	cases := []struct {
		what          string
		content, orig uint32
		packet, total uint16
		body          uint32
		scheme        codec.Scheme
		first         uint16
	}{
		// The rows of the table of dialects (PROTOCOL.md section 9).
		{"spec, first packet", 10016, 10001, 1, 10, 1024, whole, 1},
		{"spec, last packet", 10016, 10001, 10, 10, 800, whole, 1},
		{"single", 10016, 10001, 1, 1, 10016, whole, 1},
		{"padded, 1024", 10016, 10001, 1, 10, 1024, whole, 1},
		{"padded, 1024, last packet", 10016, 10001, 10, 10, 1024, whole, 1},
		{"padded, 65269", 1000016, 1000003, 1, 16, 65269, whole, 1},
		{"padded, 65269, one packet", 16, 1, 1, 1, 65269, whole, 1},
		{"zero-based, first packet", 10016, 10001, 0, 10, 1024, whole, 0},
		{"zero-based, only packet", 32, 16, 0, 1, 1024, whole, 0},
		{"per-packet, 4000", 4016, 4000, 1, 3, 4016, perPkt, 1},
		{"per-packet, 4096", 4112, 4096, 1, 3, 4112, perPkt, 1},
		{"per-packet, last packet", 2016, 2001, 3, 3, 2016, perPkt, 1},
		{"per-packet, counted from zero", 4016, 4000, 0, 3, 4016, perPkt, 0},
		{"packet-size", 1024, 10001, 1, 10, 1024, pktSiz, 1},
		{"packet-size, last packet", 800, 10001, 10, 10, 800, pktSiz, 1},
		{"packet-size, counted from zero", 1024, 10001, 0, 10, 1024, pktSiz, 0},

		// The empty file: 16 bytes of padding.
		{"empty file", 16, 0, 1, 1, 16, whole, 1},
		{"empty file, padded", 16, 0, 1, 1, 1024, whole, 1},
		{"empty file, no packets", 16, 0, 1, 0, 16, whole, 1},
		{"empty file, no packets, padded", 16, 0, 1, 0, 1024, whole, 1},
		{"empty file, no packets, counted from zero", 16, 0, 0, 0, 16, whole, 0},
		{"empty file in packets of 1", 16, 0, 1, 16, 1, whole, 1},
		{"empty file in packets of 15", 16, 0, 2, 2, 1, whole, 1},

		// Around multiples of 16.
		{"15 bytes", 16, 15, 1, 1, 16, whole, 1},
		{"16 bytes: one more block", 32, 16, 1, 1, 32, whole, 1},
		{"17 bytes", 32, 17, 1, 1, 32, whole, 1},

		// Around multiples of the packet, in ciphertext: W = 1024, 1040, 2048, 2064.
		{"exactly one packet of ciphertext", 1024, 1023, 1, 1, 1024, whole, 1},
		{"one block more than a packet", 1040, 1024, 1, 2, 1024, whole, 1},
		{"one block more, last packet filled up", 1040, 1024, 2, 2, 1024, whole, 1},
		{"one block more, last packet short", 1040, 1024, 2, 2, 16, whole, 1},
		{"exactly two packets of ciphertext", 2048, 2047, 1, 2, 1024, whole, 1},
		{"exactly two packets of plaintext", 2064, 2048, 1, 3, 1024, whole, 1},
		{"packet-size, exactly one packet of ciphertext", 1024, 1023, 1, 1, 1024, whole, 1},
		{"packet-size, last packet of one block", 16, 1024, 2, 2, 16, pktSiz, 1},
		{"per-packet, exactly one packet of plaintext", 4112, 4096, 1, 1, 4112, whole, 1},
		{"per-packet, last packet of one byte", 16, 1, 2, 2, 16, perPkt, 1},
		{"per-packet, an empty packet behind an exact multiple", 16, 0, 2, 2, 16, perPkt, 1},

		// The ends of the fields.
		{"largest file", 1<<32 - 16, 1<<32 - 17, 65535, 65535, 65550, whole, 1},
		{"last packet, counted from zero: seen as one-based", 10016, 10001, 9, 10, 800, whole, 1},
		{"a body of all but one byte", 10016, 10001, 1, 2, 10015, whole, 1},
		{"a last body of one byte", 10016, 10001, 2, 2, 1, whole, 1},
		{"single, more zeros than ciphertext", 16, 0, 1, 1, 1<<32 - 1 - 267, whole, 1},
	}
	for _, c := range cases {
		m := codec.SendFile{ContentSize: c.content, OrigSize: c.orig, Packet: c.packet, Total: c.total}
		p, err := codec.Infer(m, c.body)
		want := codec.Plan{
			Scheme: c.scheme, First: c.first, Total: c.total,
			Ciphertext: int64(c.orig/16+1) * 16, OrigSize: int64(c.orig),
		}
		if c.total == 0 {
			want.Total = 1
		}
		if c.scheme == perPkt {
			want.Ciphertext, want.OrigSize = -1, -1
		}
		if err != nil || p != want {
			t.Errorf("%s: %+v, %v; want %+v", c.what, p, err, want)
		}
	}
}

// Clients that have Packet Number and Total Packets in each other's place are
// known by the first packet; the plan holds for the others, as [codec.Plan.Read]
// returns them.
func TestSwappedNumbers(t *testing.T) {
	for _, s := range []sender{spec(10001, 1024), padded(10001, 1024), packetSize(10001, 1024), spec(1023, 1000), spec(1<<20, 17)} {
		swapped := func(i uint32) (codec.SendFile, uint32) {
			m, body := s.packet(i)
			m.Packet, m.Total = m.Total, m.Packet
			return m, body
		}
		p, err := codec.Infer(swapped(0))
		if err != nil || !p.Swapped || p.Scheme != s.scheme || p.First != 1 || uint32(p.Total) != s.total {
			t.Fatalf("%s of %d packets: %+v, %v", s.name, s.total, p, err)
		}
		for i := range s.total {
			m, body := swapped(i)
			read := p.Read(m)
			if err := p.Check(read, body); err != nil || uint32(read.Packet) != i+1 {
				t.Fatalf("%s, packet %d: %+v, %v", s.name, i+1, read, err)
			}
			if i > 0 && i+1 < s.total {
				_, err := codec.Infer(m, body)
				wantError(t, "another packet first", err, codec.ErrPacket)
			}
		}
		past := codec.SendFile{ContentSize: p.Read(codec.SendFile{}).ContentSize, Packet: p.Total, Total: p.Total + 1}
		if p.Check(p.Read(past), 16) == nil {
			t.Errorf("%s: the packet past the last belongs to the transfer", s.name)
		}
	}
	// The server remembers a refused one by the same look.
	for _, c := range []struct {
		m    codec.SendFile
		body uint32
		want bool
	}{
		{codec.SendFile{ContentSize: 10016, OrigSize: 10001, Packet: 10, Total: 1}, 1024, true},
		{codec.SendFile{ContentSize: 4016, OrigSize: 4000, Packet: 3, Total: 1}, 4016, true}, // though it is not served
		{codec.SendFile{ContentSize: 10016, OrigSize: 10001, Packet: 10, Total: 2}, 1024, false},
		{codec.SendFile{ContentSize: 10016, OrigSize: 10001, Packet: 1, Total: 1}, 10016, false},
		{codec.SendFile{ContentSize: 1, OrigSize: 10001, Packet: 10, Total: 1}, 1024, false},
	} {
		if got := c.m.MaybeSwapped(c.body); got != c.want {
			t.Errorf("%+v with %d bytes may be swapped: %v", c.m, c.body, got)
		}
	}
	// A single packet looks the same.
	if p, err := codec.Infer(codec.SendFile{ContentSize: 16, OrigSize: 1, Packet: 1, Total: 1}, 16); err != nil || p.Swapped {
		t.Errorf("1 of 1: %+v, %v", p, err)
	}
}

func TestInferRefuses(t *testing.T) {
	cases := []struct {
		what          string
		content, orig uint32
		packet, total uint16
		body          uint32
		detail        string
	}{
		{"no packets, and a file", 32, 16, 1, 0, 32, "Total Packets is 0"},
		{"no packets, and packet 2", 16, 0, 2, 0, 16, "Total Packets is 0"},
		{"no packets, and half a block", 16, 0, 1, 0, 8, "Total Packets is 0"},
		{"no packets, and no content", 16, 0, 1, 0, 0, "Total Packets is 0"},
		{"no packets, and another Content Size", 0, 0, 1, 0, 16, "Total Packets is 0"},
		{"swapped, whole, all in the first packet", 10016, 10001, 10, 1, 10016, "swapped"},
		{"swapped, each packet on its own", 4016, 4000, 3, 1, 4016, "swapped"},
		{"swapped, no content", 10016, 10001, 10, 1, 0, "swapped"},
		{"swapped, not the first packet", 10016, 10001, 10, 2, 1024, "packet 10 of 2"},
		{"swapped, counted from zero", 10016, 10001, 10, 0, 1024, "Total Packets is 0"},
		{"packet behind the last", 10016, 10001, 11, 10, 1024, "packet 11 of 10"},
		{"packet 2 of 1", 16, 0, 2, 1, 16, "packet 2 of 1"},
		{"no content", 10016, 10001, 1, 10, 0, "without content"},
		{"no content, alone", 16, 0, 1, 1, 0, "without content"},
		{"no content, Content Size 0", 0, 0, 1, 1, 0, "without content"},
		{"alone and cut short", 10016, 10001, 1, 1, 10015, "Content Size"},
		{"alone, Content Size without padding block", 16, 16, 1, 1, 16, "Content Size"},
		{"alone, Content Size of the plaintext", 10001, 10001, 1, 1, 10016, "Content Size"},
		{"alone, Content Size of a filled up body", 1024, 10, 1, 1, 1024, "Content Size"},
		{"more than the whole in one of several", 10016, 10001, 1, 2, 10017, "Content Size"},
		{"neither the whole nor the body", 2048, 10001, 1, 10, 1024, "Content Size"},
		{"the body of a packet, larger than the whole", 2048, 100, 1, 10, 2048, "Content Size"},
		{"packet-size with a filled up last packet", 800, 10001, 10, 10, 1024, "Content Size"},
		{"per-packet, Content Size without padding", 4000, 4000, 1, 3, 4016, "Content Size"},
		{"Orig File Size of a ciphertext past 4 GiB", 0, 1<<32 - 16, 1, 65535, 65536, "does not fit"},
		{"the largest Orig File Size", 1<<32 - 16, 1<<32 - 1, 1, 65535, 65536, "does not fit"},
	}
	for _, c := range cases {
		m := codec.SendFile{ContentSize: c.content, OrigSize: c.orig, Packet: c.packet, Total: c.total}
		p, err := codec.Infer(m, c.body)
		wantError(t, c.what, err, codec.ErrPacket)
		if err != nil && !strings.Contains(err.Error(), c.detail) {
			t.Errorf("%s: %q does not say %q", c.what, err, c.detail)
		}
		if p != (codec.Plan{}) {
			t.Errorf("%s: a plan beside the error: %+v", c.what, p)
		}
	}
}

// A sender lays out the packets of a file as one dialect does it. packet gives
// the one with index i, 0 <= i < total.
type sender struct {
	name   string
	scheme codec.Scheme
	total  uint32
	packet func(i uint32) (codec.SendFile, uint32)
}

func ceil(a, b uint64) uint32 { return uint32((a + b - 1) / b) }

func spec(orig, size uint32) sender {
	w := (uint64(orig)/16 + 1) * 16
	n := ceil(w, uint64(size))
	return sender{"spec", whole, n, func(i uint32) (codec.SendFile, uint32) {
		body := min(uint64(size), w-uint64(i)*uint64(size))
		return codec.SendFile{ContentSize: uint32(w), OrigSize: orig, Packet: uint16(i + 1), Total: uint16(n)}, uint32(body)
	}}
}

func padded(orig, size uint32) sender {
	s := spec(orig, size)
	return sender{"padded", whole, s.total, func(i uint32) (codec.SendFile, uint32) {
		m, _ := s.packet(i)
		return m, size
	}}
}

func zeroBased(s sender) sender {
	return sender{"zero-based " + s.name, s.scheme, s.total, func(i uint32) (codec.SendFile, uint32) {
		m, body := s.packet(i)
		m.Packet--
		return m, body
	}}
}

// perPacket cuts the plaintext into packets of size bytes. With one packet the
// layout is that of single.
func perPacket(orig, size uint32) sender {
	n := max(ceil(uint64(orig), uint64(size)), 1)
	scheme := perPkt
	if n == 1 {
		scheme = whole
	}
	return sender{"per-packet", scheme, n, func(i uint32) (codec.SendFile, uint32) {
		plain := min(uint64(size), uint64(orig)-uint64(i)*uint64(size))
		body := uint32(plain/16+1) * 16
		return codec.SendFile{ContentSize: body, OrigSize: uint32(plain), Packet: uint16(i + 1), Total: uint16(n)}, body
	}}
}

func packetSize(orig, size uint32) sender {
	s := spec(orig, size)
	scheme := pktSiz
	if s.total == 1 {
		scheme = whole
	}
	return sender{"packet-size", scheme, s.total, func(i uint32) (codec.SendFile, uint32) {
		m, body := s.packet(i)
		m.ContentSize = body
		return m, body
	}}
}

// indexes are the packets worth trying: all of a few, otherwise both ends and
// some in between, for these are all alike.
func indexes(total uint32, r *rand.Rand) []uint32 {
	var is []uint32
	if total <= 20 {
		for i := range total {
			is = append(is, i)
		}
		return is
	}
	return append(is, 0, 1, 1+r.Uint32N(total-2), total-2, total-1)
}

// Whatever the sizes and whichever packet comes first, each dialect's sender
// gets the scheme that it uses, and all its packets belong to the plan. Above
// all, who sends as the documents say never lands in a guess.
func TestEachSenderLandsInItsOwnScheme(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 1028))
	try := func(orig, size uint32) {
		for _, s := range []sender{
			spec(orig, size), padded(orig, size), perPacket(orig, size), packetSize(orig, size),
			zeroBased(spec(orig, size)), zeroBased(padded(orig, size)),
			zeroBased(perPacket(orig, size)), zeroBased(packetSize(orig, size)),
		} {
			if s.total > codec.MaxPackets {
				continue
			}
			all := indexes(s.total, r)
			zero := strings.HasPrefix(s.name, "zero-based")
			for _, i := range all {
				if zero && i > 0 {
					break // see TestZeroBasedOutOfOrder
				}
				m, body := s.packet(i)
				p, err := codec.Infer(m, body)
				if err != nil || p.Scheme != s.scheme || uint32(p.First) != uint32(m.Packet)-i || uint32(p.Total) != s.total {
					t.Fatalf("%s, file of %d, packets of %d, packet %d first: %+v, %v", s.name, orig, size, m.Packet, p, err)
				}
				if s.scheme != perPkt && (p.OrigSize != int64(orig) || p.Ciphertext != codec.CiphertextSize(orig)) {
					t.Fatalf("%s, file of %d: %+v", s.name, orig, p)
				}
				for _, j := range all {
					m, body := s.packet(j)
					if err := p.Check(m, body); err != nil {
						t.Fatalf("%s, file of %d, packets of %d, packet %d after %d: %v", s.name, orig, size, j, i, err)
					}
				}
			}
		}
	}
	// Around multiples of 16, of the packet and of both.
	for _, size := range []uint32{1, 15, 16, 17, 1000, 1024, 4000, 4096, 65269, 65536} {
		for _, k := range []uint32{0, 1, 2, 3, 16} {
			for d := range uint32(35) {
				if at := k*size + d; at >= 17 {
					try(at-17, size)
				} else {
					try(at, size)
				}
			}
		}
	}
	for range 100_000 {
		orig := r.Uint32() >> r.Uint32N(32)
		if orig > codec.MaxFileSize {
			continue
		}
		// No fewer bytes a packet than 65,535 of them need.
		least := ceil(uint64(codec.CiphertextSize(orig)), codec.MaxPackets)
		try(orig, max(least, r.Uint32()>>(8+r.Uint32N(24)), 1))
	}
}

// What the numbers cannot tell. These are the places where a guess remains,
// and what it is.
func TestAmbiguousLayouts(t *testing.T) {
	// A sender that counts from zero is known by its packet 0 alone. If another
	// comes first, it is taken for one that counts from one, as the documents
	// do, and packet 0 does not belong.
	s := zeroBased(padded(10001, 1024))
	for i := uint32(1); i < s.total; i++ {
		p, err := codec.Infer(s.packet(i))
		if err != nil || p.First != 1 {
			t.Fatalf("packet %d first: %+v, %v", i, p, err)
		}
		wantError(t, "packet 0 later", p.Check(s.packet(0)), codec.ErrPacket)
	}

	// Who counts one packet too many where the ciphertext is an exact multiple
	// of the packet (Total = W/1024 + 1), and has all of it in the first, looks
	// like per-packet. With more packets he does not.
	p, err := codec.Infer(codec.SendFile{ContentSize: 1024, OrigSize: 1023, Packet: 1, Total: 2}, 1024)
	if err != nil || p.Scheme != perPkt {
		t.Errorf("one packet counted as two: %+v, %v", p, err)
	}
	p, err = codec.Infer(codec.SendFile{ContentSize: 2048, OrigSize: 2047, Packet: 1, Total: 3}, 1024)
	if err != nil || p.Scheme != whole {
		t.Errorf("two packets counted as three: %+v, %v", p, err)
	}

	// A single packet is the same in spec, single, padded, per-packet and
	// packet-size: the scheme says WholeFile, and all mean the same bytes.
	for _, s := range []sender{spec(1000, 4096), perPacket(1000, 4096), packetSize(1000, 4096)} {
		m, body := s.packet(0)
		if m.ContentSize != 1008 || m.OrigSize != 1000 || body != 1008 || m.Total != 1 {
			t.Errorf("%s: %+v with %d bytes", s.name, m, body)
		}
	}
}

// A transfer's layout does not change half-way.
func TestPlanRefusesAPacketOfAnotherLayout(t *testing.T) {
	first := func(s sender) codec.Plan {
		p, err := codec.Infer(s.packet(0))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	inSpec := codec.SendFile{ContentSize: 10016, OrigSize: 10001, Packet: 2, Total: 10}
	inPerPacket := codec.SendFile{ContentSize: 4016, OrigSize: 4000, Packet: 2, Total: 3}
	inPacketSize := codec.SendFile{ContentSize: 1024, OrigSize: 10001, Packet: 2, Total: 10}
	change := func(m codec.SendFile, f func(*codec.SendFile)) codec.SendFile { f(&m); return m }
	cases := []struct {
		what string
		plan codec.Plan
		m    codec.SendFile
		body uint32
	}{
		{"another file size", first(spec(10001, 1024)), change(inSpec, func(m *codec.SendFile) { m.OrigSize-- }), 1024},
		{"another file and ciphertext size", first(spec(10001, 1024)), change(inSpec, func(m *codec.SendFile) { m.OrigSize, m.ContentSize = 20001, 20016 }), 1024},
		{"another total", first(spec(10001, 1024)), change(inSpec, func(m *codec.SendFile) { m.Total++ }), 1024},
		{"no content", first(spec(10001, 1024)), inSpec, 0},
		{"packet 0 of a transfer counted from one", first(spec(10001, 1024)), change(inSpec, func(m *codec.SendFile) { m.Packet = 0 }), 1024},
		{"packet behind the last", first(spec(10001, 1024)), change(inSpec, func(m *codec.SendFile) { m.Packet = 11 }), 1024},
		{"packet N of N counted from zero", first(zeroBased(spec(10001, 1024))), change(inSpec, func(m *codec.SendFile) { m.Packet = 10 }), 1024},
		{"all of the ciphertext in one of several", first(spec(10001, 1024)), inSpec, 10016},
		{"the only packet again, cut short", first(spec(100, 1024)), codec.SendFile{ContentSize: 112, OrigSize: 100, Packet: 1, Total: 1}, 111},
		{"packet-size in a spec transfer", first(spec(10001, 1024)), inPacketSize, 1024},
		{"per-packet in a spec transfer", first(spec(10001, 5008)), change(inPerPacket, func(m *codec.SendFile) { m.Total = 2 }), 4016},
		{"spec in a packet-size transfer", first(packetSize(10001, 1024)), inSpec, 1024},
		{"packet-size with another file size", first(packetSize(10001, 1024)), change(inPacketSize, func(m *codec.SendFile) { m.OrigSize = 20001 }), 1024},
		{"packet-size, the body is not Content Size", first(packetSize(10001, 1024)), inPacketSize, 1023},
		{"packet-size, a packet larger than the file", first(packetSize(10001, 1024)), change(inPacketSize, func(m *codec.SendFile) { m.ContentSize = 10032 }), 10032},
		{"spec in a per-packet transfer", first(perPacket(12000, 4000)), change(inSpec, func(m *codec.SendFile) { m.Total = 3 }), 4016},
		{"per-packet without its padding", first(perPacket(12000, 4000)), inPerPacket, 4000},
		{"per-packet, sizes that contradict each other", first(perPacket(12000, 4000)), change(inPerPacket, func(m *codec.SendFile) { m.OrigSize = 3999 }), 4016},
	}
	for _, c := range cases {
		wantError(t, c.what, c.plan.Check(c.m, c.body), codec.ErrPacket)
	}
}
