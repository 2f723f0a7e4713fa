package conform

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"sealift/client"
	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/crypto/tlskey"
)

// These rules are tried where the server offers Continue, docs/PROTOCOL.md section 15.

// optional reports whether a server may do without what the rule is about.
func (r Rule) optional() bool { return r.Section == "15" || strings.HasPrefix(r.Section, "15.") }

// errNotOffered is what offered finds. Its text says why.
type errNotOffered struct{ why string }

func (e errNotOffered) Error() string { return "Continue is not offered: " + e.why }

// offered asks the server whether it knows 1032, on a connection of its own: by the name
// of the protocol that it chose over TLS, or else by what it does with one.
func (p *probe) offered() error {
	l, id, err := p.ready()
	if err != nil {
		return err
	}
	if t, ok := l.nc.(interface{ ConnectionState() tls.ConnectionState }); ok {
		switch name := t.ConnectionState().NegotiatedProtocol; name {
		case tlskey.ALPNContinue:
			return nil
		case tlskey.ALPN:
			return errNotOffered{fmt.Sprintf("over TLS it chose the protocol %q", name)}
		}
	}
	if err := l.send("1032 continue, to see whether it is known", continuing(id, "offered", 100)); err != nil {
		return errNotOffered{err.Error()}
	}
	switch r, err := l.read(); {
	case err != nil:
		return errNotOffered{"a 1032 got no reply: " + err.Error()}
	case r.code != codec.CodeContinued:
		return errNotOffered{fmt.Sprintf("a 1032 got a %v", r.code)}
	}
	return nil
}

// offers tries offered once for all rules. A server that cannot be asked has it that the
// rules themselves find out why.
func (s *subject) offers(ctx context.Context) bool {
	if !s.asked {
		p := &probe{subject: s, ctx: ctx}
		defer p.close()
		defer context.AfterFunc(ctx, p.close)()
		s.begin("continue, whether it is offered")
		s.asked = true
		_ = errors.As(p.offered(), &s.lacks)
	}
	return s.lacks.why == ""
}

func (s *subject) notOffered(rule Rule) Result {
	return Result{Rule: rule.Name, Section: rule.Section, Text: rule.Text, Status: NotOffered, Problem: s.lacks.why}
}

// continuing is a 1032.
func continuing(id *identity, name string, total int) []byte {
	return codec.Continue{FileName: []byte(name), TotalSize: uint64(total)}.Append(nil, id.id)
}

// holds asks how much of file the server has, and wants its first bytes: offset of them, or
// any number if that is negative.
func (l *link) holds(id *identity, name string, file []byte, offset int) (int, error) {
	if err := l.send("1032 continue", continuing(id, name, len(file))); err != nil {
		return 0, err
	}
	r, err := l.expect(codec.CodeContinued)
	if err != nil {
		return 0, err
	}
	m, err := codec.ParseContinued(r.payload)
	switch {
	case err != nil:
		return 0, fmt.Errorf("the 1608: %w", err)
	case m.ID != id.id:
		return 0, fmt.Errorf("the 1608 has the id %v, not %v", m.ID, id.id)
	case string(m.FileName) != name:
		return 0, fmt.Errorf("the 1608 has the file name %q, not %q", m.FileName, name)
	case m.Offset > uint64(len(file)):
		return 0, fmt.Errorf("the Offset is %d, and Total Size was %d", m.Offset, len(file))
	case offset >= 0 && m.Offset != uint64(offset):
		return 0, fmt.Errorf("the Offset is %d, not %d", m.Offset, offset)
	}
	if want := cksum.Checksum(file[:m.Offset]); m.Cksum != want {
		return 0, fmt.Errorf("the Cksum of the first %d bytes is %d, ours is %d", m.Offset, m.Cksum, want)
	}
	return int(m.Offset), nil
}

// sendSegment sends bytes of file as a segment.
func (l *link) sendSegment(id *identity, name string, file []byte, from, to int) error {
	packets, err := l.p.packets(id, 1024, name, file[from:to])
	if err != nil {
		return prerequisite{err}
	}
	return l.sendPackets(packets)
}

// segment is sendSegment, and reads the 1603.
func (l *link) segment(id *identity, name string, file []byte, from, to int) error {
	if err := l.sendSegment(id, name, file, from, to); err != nil {
		return err
	}
	return l.expectFile(id, name, file[:to])
}

// half is a connection on which the first half of file has gone as a segment.
func (p *probe) half(name string, file []byte) (*link, *identity, error) {
	l, id, err := p.ready()
	if err != nil {
		return nil, nil, err
	}
	if _, err := l.holds(id, name, file, 0); err != nil {
		return nil, nil, prerequisite{err}
	}
	if err := l.segment(id, name, file, 0, len(file)/2); err != nil {
		return nil, nil, prerequisite{fmt.Errorf("the first half of a file: %w", err)}
	}
	return l, id, nil
}

// again is a new connection of the client.
func (p *probe) again(id *identity) (*link, error) {
	l, err := p.dial()
	if err != nil {
		return nil, err
	}
	if err := l.reconnect(id); err != nil {
		return nil, prerequisite{err}
	}
	return l, nil
}

const segmented = 10_000 // bytes of a file that goes in two segments

var continueRules = []Rule{
	{"continue-nothing", "15.2", "1032 for a file of which nothing is there gets 1608 with Offset 0, our id, and the name", func(p *probe) error {
		l, id, err := p.ready()
		if err != nil {
			return err
		}
		if _, err := l.holds(id, "nothing", content(1000), 0); err != nil {
			return err
		}
		return l.simple(id, "nothing")
	}},
	{"continue-segments", "15.3", "the next 1608 says where a segment has ended, the 1603 has the cksum of all, and 1029 stores the file", func(p *probe) error {
		file := content(segmented)
		l, id, err := p.half("segments", file)
		if err != nil {
			return err
		}
		if _, err := l.holds(id, "segments", file, segmented/2); err != nil {
			return err
		}
		if err := l.segment(id, "segments", file, segmented/2, segmented); err != nil {
			return err
		}
		return l.verdict(codec.CodeCRCOK, id, "segments")
	}},
	{"continue-connection", "15.3", "a segment may follow on another connection, under its key", func(p *probe) error {
		file := content(segmented)
		l, id, err := p.half("connection", file)
		if err != nil {
			return err
		}
		l.close()
		if l, err = p.again(id); err != nil {
			return err
		}
		if _, err := l.holds(id, "connection", file, segmented/2); err != nil {
			return err
		}
		if err := l.segment(id, "connection", file, segmented/2, segmented); err != nil {
			return err
		}
		return l.verdict(codec.CodeCRCOK, id, "connection")
	}},
	{"continue-size", "15.3", "Content Size in the 1603 of a segment is that of the segment; in the later edition it may be what its last packet has there", func(p *probe) error {
		l, id, err := p.ready()
		if err != nil {
			return err
		}
		file := content(segmented)
		if _, err := l.holds(id, "size", file, 0); err != nil {
			return prerequisite{err}
		}
		packets, err := p.packets(id, 1024, "size", file[:3000])
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
		asSent := binary.LittleEndian.Uint32(packets[len(packets)-1][codec.RequestHeaderSize:])
		if got == 3000 || got == asSent && p.codes == client.Codes825 {
			return nil
		}
		return fmt.Errorf("it is %d, the segment has 3000 bytes", got)
	}},
	{"continue-waiting", "15.2", "1608 for a file that awaits its verdict has Offset = Total Size, and the 1029 that follows gets 1604", func(p *probe) error {
		l, id, err := p.ready()
		if err != nil {
			return err
		}
		if err := l.upload(id, "waiting"); err != nil {
			return prerequisite{err}
		}
		l.close()
		if l, err = p.again(id); err != nil {
			return err
		}
		if _, err := l.holds(id, "waiting", content(1000), 1000); err != nil {
			return err
		}
		return l.verdict(codec.CodeCRCOK, id, "waiting")
	}},
	{"continue-secret", "15.2", "who shows no key is not told of a verified file", func(p *probe) error {
		l, id, err := p.ready()
		if err != nil {
			return err
		}
		if err := l.simple(id, "secret"); err != nil {
			return prerequisite{err}
		}
		l.close()
		if l, err = p.again(id); err != nil {
			return err
		}
		_, err = l.holds(id, "secret", content(1000), 0)
		return err
	}},
	{"continue-total", "15.2", "1608 does not speak of a partial file of another Total Size", func(p *probe) error {
		file := content(segmented)
		l, id, err := p.half("total", file)
		if err != nil {
			return err
		}
		_, err = l.holds(id, "total", file[:segmented-1], 0)
		return err
	}},
	{"continue-cut", "15.2", "after a cut, what the 1608 says is there is the file's beginning, and the rest may follow", func(p *probe) error {
		l, id, err := p.ready()
		if err != nil {
			return err
		}
		file := content(3 << 20)
		packets, err := p.packets(id, 60_000, "cut", file)
		if err != nil {
			return prerequisite{err}
		}
		sent := packets[:len(packets)-len(packets)/4]
		if err := l.sendPackets(sent); err != nil {
			return err
		}
		if len(sent) < len(packets) { // whatever is answered, the server has the packets before it then
			if err := l.send("1032 continue", continuing(id, "cut-not", len(file))); err != nil {
				return err
			}
			_, _ = l.expect(codec.CodeContinued)
		}
		l.close()
		if l, err = p.again(id); err != nil {
			return err
		}
		offset, err := l.holds(id, "cut", file, -1)
		if err != nil {
			return err
		}
		if offset == len(file) { // in the server's dialect it was one packet
			return l.verdict(codec.CodeCRCOK, id, "cut")
		}
		if packets, err = p.packets(id, 60_000, "cut", file[offset:]); err != nil {
			return prerequisite{err}
		}
		if err := l.sendPackets(packets); err != nil {
			return err
		}
		if err := l.expectFile(id, "cut", file); err != nil {
			return err
		}
		return l.verdict(codec.CodeCRCOK, id, "cut")
	}},
	{"continue-owner", "15.5", "a partial file is the last 1032's: the segment of another connection gets 1607", func(p *probe) error {
		file := content(segmented)
		l, id, err := p.half("owner", file)
		if err != nil {
			return err
		}
		if _, err := l.holds(id, "owner", file, segmented/2); err != nil {
			return prerequisite{err}
		}
		late, err := p.packets(id, 1024, "owner", file[segmented/2:])
		if err != nil {
			return prerequisite{err}
		}
		other, err := p.again(id)
		if err != nil {
			return err
		}
		if _, err := other.holds(id, "owner", file, segmented/2); err != nil {
			return err
		}
		if err := l.sendPackets(late); err != nil {
			return err
		}
		if _, err := l.expect(codec.CodeError); err != nil {
			return err
		}
		if err := other.segment(id, "owner", file, segmented/2, segmented); err != nil {
			return err
		}
		return other.verdict(codec.CodeCRCOK, id, "owner")
	}},
	{"continue-mismatch", "15.4", "1030 after a segment goes back to the Offset of its 1608, and gets no reply", func(p *probe) error {
		file := content(segmented)
		l, id, err := p.half("mismatch", file)
		if err != nil {
			return err
		}
		if _, err := l.holds(id, "mismatch", file, segmented/2); err != nil {
			return prerequisite{err}
		}
		for range 3 {
			if err := l.segment(id, "mismatch", file, segmented/2, segmented); err != nil {
				return err
			}
			if err := l.sendVerdict(codec.CodeCRCBad, id, "mismatch"); err != nil {
				return err
			}
		}
		if err := l.segment(id, "mismatch", file, segmented/2, segmented); err != nil {
			return err
		}
		return l.verdict(codec.CodeCRCOK, id, "mismatch")
	}},
	{"continue-abort", "15.4", "1031 removes a partial file: 1604, and then Offset 0", func(p *probe) error {
		file := content(segmented)
		l, id, err := p.half("abort", file)
		if err != nil {
			return err
		}
		if err := l.verdict(codec.CodeAbort, id, "abort"); err != nil {
			return err
		}
		_, err = l.holds(id, "abort", file, 0)
		return err
	}},
	{"continue-verdict", "15.4", "1029 for a partial file gets 1607, and the file stays", func(p *probe) error {
		file := content(segmented)
		l, id, err := p.half("verdict", file)
		if err != nil {
			return err
		}
		if err := l.refused("1029 checksum verified, of a partial file", codec.Verdict{Code: codec.CodeCRCOK, FileName: []byte("verdict")}.Append(nil, id.id)); err != nil {
			return err
		}
		_, err = l.holds(id, "verdict", file, segmented/2)
		return err
	}},
	{"continue-beyond", "15.3", "a segment beyond Total Size gets 1607, and the partial file stays", func(p *probe) error {
		file := content(segmented)
		l, id, err := p.half("beyond", file)
		if err != nil {
			return err
		}
		if _, err := l.holds(id, "beyond", file, segmented/2); err != nil {
			return prerequisite{err}
		}
		if err := l.sendSegment(id, "beyond", content(2*segmented), segmented/2, segmented+1); err != nil {
			return err
		}
		if _, err := l.expect(codec.CodeError); err != nil {
			return err
		}
		_, err = l.holds(id, "beyond", file, segmented/2)
		return err
	}},
	{"continue-replaced", "15.5", "a file that is sent from its beginning is whole, though a part of it was there", func(p *probe) error {
		l, id, err := p.half("replaced", content(segmented))
		if err != nil {
			return err
		}
		return l.simple(id, "replaced")
	}},
	{"continue-under-way", "15.5", "1032 between the packets of its file gets 1607, and the transfer goes on", func(p *probe) error {
		l, id, err := p.ready()
		if err != nil {
			return err
		}
		file := content(segmented)
		packets, err := p.packets(id, 1024, "underway", file)
		if err != nil {
			return prerequisite{err}
		}
		if len(packets) < 2 {
			return prerequisite{errors.New("in the server's dialect a file is one packet")}
		}
		if err := l.sendPackets(packets[:1]); err != nil {
			return err
		}
		if err := l.refused("1032 continue, between two packets", continuing(id, "underway", segmented)); err != nil {
			return err
		}
		if err := l.sendPackets(packets[1:]); err != nil {
			return err
		}
		if err := l.expectFile(id, "underway", file); err != nil {
			return err
		}
		return l.verdict(codec.CodeCRCOK, id, "underway")
	}},
	{"continue-order", "15.7", "1032 without an AES key, or under another client's id, gets 1607", func(p *probe) error {
		_, other, err := p.ready()
		if err != nil {
			return err
		}
		l, id, err := p.registered()
		if err != nil {
			return err
		}
		if err := l.refused("1032 continue, before any key", continuing(id, "order", 100)); err != nil {
			return err
		}
		if err := l.exchangeKey(id); err != nil {
			return err
		}
		if err := l.refused("1032 continue, with another id", continuing(other, "order", 100)); err != nil {
			return err
		}
		return l.works(id)
	}},
	{"continue-names", "15.7", "1032 for a name that leads out of the folder, or for more bytes than there can be, gets 1607", func(p *probe) error {
		l, id, err := p.ready()
		if err != nil {
			return err
		}
		if err := l.refused("1032 continue, of no name", continuing(id, "..", 100)); err != nil {
			return err
		}
		huge := codec.Continue{FileName: []byte("huge"), TotalSize: 1<<64 - 1}.Append(nil, id.id)
		if err := l.refused("1032 continue, of 2^64 - 1 bytes", huge); err != nil {
			return err
		}
		return l.works(id)
	}},
	{"continue-size-field", "15.1", "a message 1032 of another Payload Size is an unknown code: 1607, and the connection goes on", func(p *probe) error {
		l, id, err := p.ready()
		if err != nil {
			return err
		}
		message := continuing(id, "sizefield", 100)
		short := edited(message[:len(message)-1], 19, 6, 1) // 262
		if err := l.refused("1032 continue, a byte short", short); err != nil {
			return err
		}
		return l.works(id)
	}},
}
