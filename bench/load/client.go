package load

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"

	"sealift/codec"
	"sealift/internal/testpeer"
)

// client is one client of the protocol on one connection. One goroutine uses
// it. It does what a testpeer does, but for the content, which is not encrypted
// but found (content.go), and sent without a copy.
type client struct {
	testpeer.Conn
	tls *testpeer.TLS // nil: its connections are plain
}

// portsPerAddress is how many connections are made from one local address, less
// than the ports that the kernel has to give by default.
const portsPerAddress = 20_000

// connect opens connection i to server, or where that is several with commas between them,
// to the next of these. Each 20,000 connections come from an address of their own, where the
// server is on this machine.
func (c *client) connect(server string, i int) error {
	d := net.Dialer{Timeout: testpeer.Patience}
	if n := i / portsPerAddress; n > 0 {
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(1+n))}
	}
	servers := strings.Split(server, ",")
	nc, err := d.Dial("tcp", servers[i%len(servers)])
	if err != nil {
		return err
	}
	return c.UseTLS(nc, c.tls)
}

func (c *client) close() {
	if c.Net != nil {
		_ = c.Close()
		c.Net = nil
	}
}

// send sends all packets of a file.
func (c *client) send(w wire) error {
	for w.more() {
		if err := c.SendBuffers(w.gather()); err != nil {
			return err
		}
	}
	return nil
}

// upload sends f, checks what the server made of it, and has it verified.
func (c *client) upload(f *file) error {
	if err := c.send(wire{f: f, id: c.ID}); err != nil {
		// With what the server had to say before it hung up.
		if _, e := c.Want(codec.CodeFileReceived); e != nil {
			err = fmt.Errorf("%w; and then: %w", err, e)
		}
		return err
	}
	if err := c.ReceivedAs(f.name, f.size, f.cksum); err != nil {
		return err
	}
	return c.Confirm(f.name)
}

// uploadRaw sends the same bytes to the floor, which knows no protocol: it gets
// their number first, and sends it back when it has written them.
func (c *client) uploadRaw(f *file) error {
	w := wire{f: f}
	var n, back [8]byte
	binary.LittleEndian.PutUint64(n[:], uint64(w.size()))
	if err := c.Send(n[:]); err != nil {
		return err
	}
	if err := c.send(w); err != nil {
		return err
	}
	if _, err := io.ReadFull(c.Net, back[:]); err != nil {
		return err
	}
	if back != n {
		return fmt.Errorf("the floor wrote %d bytes of %d", binary.LittleEndian.Uint64(back[:]), w.size())
	}
	return nil
}
