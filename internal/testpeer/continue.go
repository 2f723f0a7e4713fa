package testpeer

import (
	"fmt"

	"sealift/codec"
	"sealift/crypto/cksum"
)

// Continue is a 1032.
func (p *Peer) Continue(file string, total int64) []byte {
	return codec.Continue{FileName: []byte(file), TotalSize: uint64(total)}.Append(nil, p.ID)
}

// CheckContinued returns what a 1608 says, and an error unless its payload is for this
// peer and about that file.
func (p *Peer) CheckContinued(payload []byte, file string) (codec.Continued, error) {
	m, err := codec.ParseContinued(payload)
	if err == nil && (m.ID != p.ID || string(m.FileName) != file) {
		err = fmt.Errorf("a 1608 about %q of %v; %q of %v was asked for", m.FileName, m.ID, file, p.ID)
	}
	return m, err
}

// Continue asks how much of a file the server has: 1032 and 1608.
func (c *Conn) Continue(file string, total int64) (offset int64, sum uint32, err error) {
	payload, err := c.Ask(c.Peer.Continue(file, total), codec.CodeContinued)
	if err != nil {
		return 0, 0, err
	}
	m, err := c.CheckContinued(payload, file)
	if err == nil && m.Offset > uint64(total) {
		err = fmt.Errorf("the server has %d bytes of a file of %d", m.Offset, total)
	}
	return int64(m.Offset), m.Cksum, err
}

// Holds is Continue for a file whose content the peer knows: the server must have a
// beginning of it.
func (c *Conn) Holds(file string, content []byte) (offset int64, err error) {
	offset, sum, err := c.Continue(file, int64(len(content)))
	if err == nil && sum != cksum.Checksum(content[:offset]) {
		err = fmt.Errorf("the server says that the first %d bytes have the cksum %d, and they have %d", offset, sum, cksum.Checksum(content[:offset]))
	}
	return offset, err
}

// Segment sends the bytes from one offset to another as a segment, after a 1608 of the
// first of them, and reads its 1603.
func (c *Conn) Segment(file string, content []byte, from, to int64, size int) error {
	f := c.File(file, content[from:to])
	if err := c.SendPackets(f.Packets(Spec, size)); err != nil {
		return err
	}
	return c.ReceivedAs(file, to-from, cksum.Checksum(content[:to]))
}

// Resume goes on with a file where the server has it, and confirms it. It returns where
// that was.
func (c *Conn) Resume(file string, content []byte, size int) (offset int64, err error) {
	if offset, err = c.Holds(file, content); err != nil {
		return offset, err
	}
	if total := int64(len(content)); offset < total || total == 0 {
		if err := c.Segment(file, content, offset, total, size); err != nil {
			return offset, err
		}
	}
	return offset, c.Confirm(file)
}
