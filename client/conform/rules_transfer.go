package conform

import (
	"encoding/binary"
	"fmt"
	"slices"

	"sealift/client"
	"sealift/codec"
)

// Offsets in a 1028, in bytes.
const (
	contentSizeAt = payloadAt
	origSizeAt    = payloadAt + 4
	packetAt      = payloadAt + 8
	totalAt       = payloadAt + 10
	bodyAt        = payloadAt + codec.SendFileFieldsSize
)

// upload sends a small file and reads its 1603.
func (l *link) upload(id *identity, name string) error {
	file := content(1000)
	packets, err := client.Packets(l.p.dialect, l.p.packetSize, id.id, name, &id.key, file)
	if err != nil {
		return err
	}
	if err := l.sendPackets(packets); err != nil {
		return err
	}
	return l.expectFile(id, name, file)
}

// one makes the 1028 of a file of 100 bytes. That is one packet in each
// dialect.
func (p *probe) one(id *identity, name string) ([]byte, error) {
	packets, err := p.packets(id, 0, name, content(100))
	if err != nil {
		return nil, prerequisite{err}
	}
	return packets[0], nil
}

var transferRules = []Rule{
	{"transfer", "5.4", "a file gets 1603 with our id, its name and its cksum, and 1029 gets 1604", func(p *probe) error {
		l, id, err := p.ready()
		if err != nil {
			return err
		}
		return l.simple(id, "transfer")
	}},
	{"transfer-size", "5.4", "Content Size in the 1603 is that of the decrypted file; in the later edition it may be what the last packet has there", func(p *probe) error {
		l, id, err := p.ready()
		if err != nil {
			return err
		}
		file := content(10_001)
		packets, err := p.packets(id, 1024, "size", file)
		if err != nil {
			return prerequisite{err}
		}
		if err := l.sendPackets(packets); err != nil {
			return prerequisite{err}
		}
		r, err := l.expect(codec.CodeFileReceived)
		if err != nil {
			return prerequisite{err}
		}
		got := binary.LittleEndian.Uint32(r.payload[codec.IDSize:])
		last := packets[len(packets)-1]
		asSent := binary.LittleEndian.Uint32(last[codec.RequestHeaderSize:])
		if got == uint32(len(file)) || got == asSent && p.codes == client.Codes825 {
			return nil
		}
		return fmt.Errorf("it is %d, the file has %d bytes", got, len(file))
	}},
	{"transfer-spec", "9.1", "a file comes in packets of any size, numbered from 1, the last one short (dialect spec)", func(p *probe) error {
		for _, packetSize := range []int{1024, 1000, 65536} {
			l, id, err := p.ready()
			if err != nil {
				return err
			}
			if err := l.transfer(id, client.Spec, packetSize, "spec", content(70_001)); err != nil {
				return fmt.Errorf("packets of %d bytes: %w", packetSize, err)
			}
		}
		return nil
	}},
	{"transfer-sizes", "6.3", "files of 0, 1, 15, 16, 17, 4096 and 1,000,003 bytes go through", func(p *probe) error {
		for _, size := range []int{0, 1, 15, 16, 17, 4096, 1_000_003} {
			l, id, err := p.ready()
			if err != nil {
				return err
			}
			if err := l.transfer(id, p.dialect, p.packetSize, "file", content(size)); err != nil {
				return fmt.Errorf("%d bytes: %w", size, err)
			}
		}
		return nil
	}},
	{"pipelined", "8", "the next message may come in the same write: a 1029 waits for the 1603", func(p *probe) error {
		l, id, err := p.ready()
		if err != nil {
			return err
		}
		file := content(5000)
		packets, err := p.packets(id, 1024, "pipelined", file)
		if err != nil {
			return prerequisite{err}
		}
		all := append(slices.Concat(packets...), codec.Verdict{Code: codec.CodeCRCOK, FileName: []byte("pipelined")}.Append(nil, id.id)...)
		if err := l.send("all 1028s and the 1029 in one write", all); err != nil {
			return err
		}
		if err := l.expectFile(id, "pipelined", file); err != nil {
			return err
		}
		return l.expectID(codec.CodeAck, id.id)
	}},
}

// several returns a ready client and a file in packets of 1024 bytes, at least
// four; a server that takes one packet only cannot be tried.
func (p *probe) several(name string, file []byte) (*link, *identity, [][]byte, error) {
	l, id, err := p.ready()
	if err != nil {
		return nil, nil, nil, err
	}
	packets, err := p.packets(id, 1024, name, file)
	if err != nil {
		return nil, nil, nil, prerequisite{err}
	}
	if len(packets) < 4 {
		return nil, nil, nil, prerequisite{fmt.Errorf("the server takes the dialect %v only, whose file is in %d packets", p.dialect, len(packets))}
	}
	return l, id, packets, nil
}

// manyPackets is four packets or more in each dialect but single.
const manyPackets = 200_003

var packetRules = []Rule{
	{"packets-reversed", "9.2", "packets may come in reverse order", func(p *probe) error {
		file := content(manyPackets)
		l, id, packets, err := p.several("reversed", file)
		if err != nil {
			return err
		}
		if packets[0][packetAt] == 0 {
			return prerequisite{errFromZero}
		}
		slices.Reverse(packets)
		if err := l.sendPackets(packets); err != nil {
			return err
		}
		if err := l.expectFile(id, "reversed", file); err != nil {
			return err
		}
		return l.verdict(codec.CodeCRCOK, id, "reversed")
	}},
	{"packets-repeated", "9.2", "a packet that comes again is ignored", func(p *probe) error {
		file := content(manyPackets)
		l, id, packets, err := p.several("repeated", file)
		if err != nil {
			return err
		}
		packets = slices.Insert(packets, 3, packets[1], packets[2])
		if err := l.sendPackets(packets); err != nil {
			return err
		}
		if err := l.expectFile(id, "repeated", file); err != nil {
			return err
		}
		return l.verdict(codec.CodeCRCOK, id, "repeated")
	}},
	{"packets-anew", "9.2", "the first packet again begins the transfer anew", func(p *probe) error {
		file := content(manyPackets)
		l, id, packets, err := p.several("anew", file)
		if err != nil {
			return err
		}
		if err := l.sendPackets(packets[:2]); err != nil {
			return err
		}
		if err := l.sendPackets(packets); err != nil {
			return err
		}
		if err := l.expectFile(id, "anew", file); err != nil {
			return err
		}
		return l.verdict(codec.CodeCRCOK, id, "anew")
	}},
	{"packets-extra", "9.2", "one packet more than Total Packets is ignored once the others are in", func(p *probe) error {
		file := content(manyPackets)
		l, id, packets, err := p.several("extra", file)
		if err != nil {
			return err
		}
		last := packets[len(packets)-1]
		extra := edited(last, packetAt, binary.LittleEndian.AppendUint16(nil, binary.LittleEndian.Uint16(last[packetAt:])+1)...)
		if err := l.sendPackets(append(packets, extra)); err != nil {
			return err
		}
		if err := l.expectFile(id, "extra", file); err != nil {
			return err
		}
		return l.verdict(codec.CodeCRCOK, id, "extra")
	}},
	{"packets-interleaved", "9.2", "two files may be under way on one connection", func(p *probe) error {
		file := content(manyPackets)
		l, id, a, err := p.several("a", file)
		if err != nil {
			return err
		}
		b, err := p.packets(id, 1024, "b", file[:manyPackets-1])
		if err != nil {
			return prerequisite{err}
		}
		// The last packet of a follows the 1603 of b, so that the order of the
		// replies is certain.
		var mixed [][]byte
		for i := range b {
			mixed = append(mixed, b[i])
			if i < len(a)-1 {
				mixed = append(mixed, a[i])
			}
		}
		if err := l.sendPackets(mixed); err != nil {
			return err
		}
		if err := l.expectFile(id, "b", file[:manyPackets-1]); err != nil {
			return err
		}
		if err := l.sendPackets(a[len(a)-1:]); err != nil {
			return err
		}
		return l.expectFile(id, "a", file)
	}},
	{"packets-impossible", "9.3", "a packet whose numbers contradict each other gets 1607, and the connection stays open", func(p *probe) error {
		l, id, err := p.ready()
		if err != nil {
			return err
		}
		for i, bad := range []struct {
			what string
			at   int
			b    []byte
		}{
			{"Total Packets 0", totalAt, []byte{0, 0}},
			{"packet 3 of 1", packetAt, []byte{3, 0}},
			{"Content Size 0", contentSizeAt, []byte{0, 0, 0, 0}},
		} {
			good, err := p.one(id, fmt.Sprintf("impossible%d", i))
			if err != nil {
				return err
			}
			if err := l.refused("1028 send file, "+bad.what, edited(good, bad.at, bad.b...)); err != nil {
				return fmt.Errorf("%s: %w", bad.what, err)
			}
		}
		return l.works(id)
	}},
	{"bad-padding", "6.3", "content that does not decrypt to PKCS#7 padding gets 1607, and the connection stays open", func(p *probe) error {
		l, id, err := p.ready()
		if err != nil {
			return err
		}
		packet, err := p.badlyPadded(id, "padding")
		if err != nil {
			return err
		}
		if err := l.refused("1028 send file, with a padding of 17s", packet); err != nil {
			return err
		}
		return l.works(id)
	}},
	{"orig-size", "6.3", "content that is not Orig File Size bytes long gets 1607, and the connection stays open", func(p *probe) error {
		l, id, err := p.ready()
		if err != nil {
			return err
		}
		packet, err := p.one(id, "orig")
		if err != nil {
			return err
		}
		// 99 and 100 bytes make the same ciphertext size.
		if err := l.refused("1028 send file, Orig File Size 99 for 100", edited(packet, origSizeAt, 99)); err != nil {
			return err
		}
		return l.works(id)
	}},
	{"name-escape", "4.4", "a file name of which nothing is left without .. gets 1607, and the connection stays open", func(p *probe) error {
		l, id, err := p.ready()
		if err != nil {
			return err
		}
		for _, name := range []string{"..", `..\..`, "a/..", "/"} {
			packet, err := p.one(id, name)
			if err != nil {
				return err
			}
			if err := l.refused(fmt.Sprintf("1028 send file, the name %q", name), packet); err != nil {
				return fmt.Errorf("%q: %w", name, err)
			}
		}
		return l.works(id)
	}},
}
