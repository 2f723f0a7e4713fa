//go:build unix

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"sealift/codec"
	"sealift/internal/testpeer"
)

// sizes are those at which the cipher's blocks and the packets behave
// differently, and one that no buffer holds.
func sizes() []int {
	big := 8 << 20
	if large {
		big = 1 << 30
	}
	return []int{0, 1, 15, 16, 17, 4096, 100_003, big}
}

// Every size of file in packets of every size, in order and not.
func TestSizesPacketsAndOrders(t *testing.T) {
	t.Parallel()
	d := serve(t)
	for _, size := range sizes() {
		t.Run(fmt.Sprintf("%d bytes", size), func(t *testing.T) {
			t.Parallel()
			p := login(t, d, t.Name())
			f := p.File("", randomBytes(size, byte(size)))
			whole := len(f.Ciphertext)
			least := (whole + codec.MaxPackets - 1) / codec.MaxPackets
			var done []int
			for _, packetSize := range []int{1, 7, 1007, 1024, 33_333, 65_536, whole} {
				packetSize = min(max(packetSize, least), whole)
				if slices.Contains(done, packetSize) {
					continue
				}
				done = append(done, packetSize)
				for _, order := range orders {
					f.Name = fmt.Sprintf("%d %s", packetSize, order.name)
					packets := cut(f, packetSize)
					if len(packets) == 1 && order.name != "in order" {
						continue
					}
					order.put(packets)
					p.sendPackets(packets)
					p.expectReceived(f)
					p.confirm(f.Name)
					path := d.stored(p.ID, f.Name)
					checkFile(t, path, bytes.NewReader(f.Content))
					if size > 100<<20 {
						os.Remove(path) // ten of them are more than some disks have
					}
				}
			}
		})
	}
}

// As many packets as the field for their number can count.
func TestTheMostPackets(t *testing.T) {
	t.Parallel()
	d := serve(t)
	packetSize := 16
	if large {
		packetSize = 1024
	}
	p := login(t, d, "many")
	f := p.File("f", randomBytes(codec.MaxPackets*packetSize-1, 1))
	for _, order := range orders {
		packets := cut(f, packetSize)
		if len(packets) != codec.MaxPackets {
			t.Fatal(len(packets))
		}
		order.put(packets)
		p.sendPackets(packets)
		p.expectReceived(f)
		p.confirm(f.Name)
		checkFile(t, d.stored(p.ID, f.Name), bytes.NewReader(f.Content))
	}
}

// Two files at once on one connection, each with its own packet size and order.
func TestInterleaved(t *testing.T) {
	d := serve(t)
	p := login(t, d, "weaver")
	for _, orderA := range orders {
		for _, orderB := range orders {
			a := p.File("a "+orderA.name+", b "+orderB.name, randomBytes(300_000, 1))
			b := p.File("b "+orderB.name+", a "+orderA.name, randomBytes(200_000, 2))
			as, bs := cut(a, 1007), cut(b, 4096)
			orderA.put(as)
			orderB.put(bs)
			var mixed []testpeer.Packet
			for i := range max(len(as), len(bs)) {
				if i < len(as) {
					mixed = append(mixed, as[i])
				}
				if i < len(bs) {
					mixed = append(mixed, bs[i])
				}
			}
			p.sendPackets(mixed)
			for range 2 {
				payload := p.expect(codec.CodeFileReceived)
				f := a
				if m, err := codec.ParseFileReceived(payload); err == nil && m.FileName[0] == 'b' {
					f = b
				}
				p.must(p.CheckReceived(payload, f))
			}
			for _, f := range []*testpeer.File{b, a} {
				p.confirm(f.Name)
				checkFile(t, d.stored(p.ID, f.Name), bytes.NewReader(f.Content))
			}
		}
	}
}

// A whole session, each byte in a segment of its own.
func TestOneByteAtATime(t *testing.T) {
	d := serve(t)
	p := connect(t, d, "slow")
	p.bytewise = true
	p.signUp()
	p.exchange()
	for _, size := range []int{0, 16, 4096} {
		f := p.File(fmt.Sprint(size), randomBytes(size, 3))
		p.sendPackets(cut(f, 1000))
		p.expectReceived(f)
		p.confirm(f.Name)
		checkFile(t, d.stored(p.ID, f.Name), bytes.NewReader(f.Content))
	}
	p.dial()
	p.rejoin()
	p.upload("after the reconnect", []byte("content"))
}

// Everything about a transfer, and about two of them, in one write: each 1029
// is there before the 1603 that it is about.
func TestAllInOneWrite(t *testing.T) {
	t.Parallel()
	d := serve(t)
	p := login(t, d, "hasty")
	for _, resume := range []bool{false, true} {
		for _, packetSize := range []int{0, 1007} {
			for _, size := range []int{0, 17, 100_003} {
				var all []byte
				var fs []*testpeer.File
				for i := range 2 {
					f := p.File(fmt.Sprint(i, packetSize, size, resume), randomBytes(size, byte(i)))
					fs = append(fs, f)
					for _, k := range cut(f, packetSize) {
						all = append(all, k.Bytes()...)
					}
					all = append(all, p.Verdict(codec.CodeCRCOK, f.Name)...)
				}
				if resume { // even the first message of a connection
					p.dial()
				}
				p.send(all)
				for _, f := range fs {
					p.expectReceived(f)
					p.expectID(codec.CodeAck)
					checkFile(t, d.stored(p.ID, f.Name), bytes.NewReader(f.Content))
				}
			}
		}
	}
}

// The same sizes with sealift: all files over one connection.
func TestSealiftSends(t *testing.T) {
	d, dir := serve(t), t.TempDir()
	var names []string
	for _, size := range sizes() {
		names = append(names, fmt.Sprint(size))
		put(t, filepath.Join(dir, fmt.Sprint(size)), randomBytes(size, 4))
	}
	for i, flags := range [][]string{{}, {"--dialect", "single"}, {"--packet-size", "33333"}} {
		me := fmt.Sprintf("me %d", i)
		args := slices.Concat([]string{"send", "--server", d.addr, "--name", me, "--identity", me}, flags, names)
		run(t, dir, sealift, args...).succeeded(t)
		id := readMe(t, filepath.Join(dir, me)).id
		for _, name := range names {
			sent, err := os.Open(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			checkFile(t, d.stored(id, name), sent)
			sent.Close()
		}
	}
	for _, row := range d.files() {
		if !row.Verified {
			t.Errorf("not verified: %+v", row)
		}
	}
}
