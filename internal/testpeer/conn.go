package testpeer

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"sealift/codec"
)

// Patience is how long a [Conn] waits at least for the server to take or to send
// something before it returns an error; it may be twice as long. It is only there
// for servers that hang.
const Patience = 2 * time.Minute

// Conn is a peer on a connection. One goroutine may send while another one reads.
// The methods that do a step of the protocol send its request, read the reply, and
// return an error if that is another one than it should be ([Refused] tells which).
//
// A copy of a Conn goes on with the same connection, from where that was: only one
// of the two may read from it.
type Conn struct {
	Peer
	Net net.Conn

	// When the connection's deadlines are. Setting one costs a load generator more
	// than looking at the time, so each is set for twice Patience, and anew when
	// less than Patience is left of it.
	writeBy, readBy time.Time

	dec      codec.ResponseDecoder
	buf      [512]byte // the longest reply has 286 bytes
	from, to int       // what of buf is not decoded
}

// Use has the peer go on with another connection. It does not close the last one.
func (c *Conn) Use(nc net.Conn) {
	c.Net, c.dec, c.from, c.to = nc, codec.ResponseDecoder{}, 0, 0
	c.writeBy, c.readBy = time.Time{}, time.Time{}
}

// Close closes the connection.
func (c *Conn) Close() error { return c.Net.Close() }

// extendWrite and extendRead give the next write, or read, its time.
func (c *Conn) extendWrite() {
	if now := time.Now(); c.writeBy.Sub(now) < Patience {
		c.writeBy = now.Add(2 * Patience)
		_ = c.Net.SetWriteDeadline(c.writeBy) // if this fails, so does Write
	}
}

func (c *Conn) extendRead() {
	if now := time.Now(); c.readBy.Sub(now) < Patience {
		c.readBy = now.Add(2 * Patience)
		_ = c.Net.SetReadDeadline(c.readBy) // if this fails, so does Read
	}
}

// Send writes the messages, each at once.
func (c *Conn) Send(messages ...[]byte) error {
	c.extendWrite()
	for _, m := range messages {
		if _, err := c.Net.Write(m); err != nil {
			return err
		}
	}
	return nil
}

// SendPackets writes packets, many at once, without copying them.
func (c *Conn) SendPackets(packets []Packet) error {
	for part := range slices.Chunk(packets, 512) { // a system call takes 1,024 pieces
		var b net.Buffers
		for _, k := range part {
			b = append(b, k.Head, k.Body)
		}
		if err := c.SendBuffers(&b); err != nil {
			return err
		}
	}
	return nil
}

// SendBuffers writes b.
func (c *Conn) SendBuffers(b *net.Buffers) error {
	c.extendWrite()
	_, err := b.WriteTo(c.Net)
	return err
}

// Read reads the next reply. The payload is valid until the next call. io.EOF says
// that the server has ended the connection in good order, between two replies.
func (c *Conn) Read() (code codec.Code, payload []byte, err error) {
	for partial := false; ; {
		r, n, ok, err := c.dec.Next(c.buf[c.from:c.to])
		c.from += n
		if ok || err != nil {
			return r.Header.Code, r.Payload, err
		}
		partial = partial || n > 0
		c.extendRead()
		n, err = c.Net.Read(c.buf[:])
		c.from, c.to = 0, n
		if n == 0 && err != nil {
			if errors.Is(err, io.EOF) && partial {
				err = io.ErrUnexpectedEOF
			}
			return 0, nil, err
		}
	}
}

// unexpected is a reply that came in the place of another one, or of none.
type unexpected struct{ got, want codec.Code }

func (e unexpected) Error() string {
	if e.want == 0 {
		return fmt.Sprintf("the server answers %v", e.got)
	}
	return fmt.Sprintf("the server answers %v where %v is due", e.got, e.want)
}

// Refused reports whether err says that the server answered with that code where
// another one was due.
func Refused(err error, code codec.Code) bool {
	var e unexpected
	return errors.As(err, &e) && e.got == code
}

// Want reads the next reply, which must have that code. The payload is valid until
// the next call.
func (c *Conn) Want(code codec.Code) ([]byte, error) {
	got, payload, err := c.Read()
	switch {
	case err != nil:
		return nil, fmt.Errorf("waiting for %v: %w", code, err)
	case got != code:
		return nil, unexpected{got, code}
	}
	return payload, nil
}

// Ask sends a message and reads its reply, as Want does.
func (c *Conn) Ask(message []byte, code codec.Code) ([]byte, error) {
	if err := c.Send(message); err != nil {
		return nil, err
	}
	return c.Want(code)
}

// SignUp registers the peer's name, and makes the id that it gets the peer's:
// 1025 and 1600.
func (c *Conn) SignUp() error {
	payload, err := c.Ask(c.Register(), codec.CodeRegistered)
	if err != nil {
		return err
	}
	m, err := codec.ParseIDReply(codec.CodeRegistered, payload)
	if err == nil && m.ID.IsZero() {
		err = errors.New("the server gives an id of zeros")
	}
	c.ID = m.ID
	return err
}

// Exchange sends the peer's public key and takes the AES key: 1026 and 1602.
func (c *Conn) Exchange() error {
	payload, err := c.Ask(c.PublicKey(), codec.CodeAESKey)
	if err != nil {
		return err
	}
	return c.Open(codec.CodeAESKey, payload)
}

// Enter is SignUp and Exchange.
func (c *Conn) Enter() error {
	if err := c.SignUp(); err != nil {
		return err
	}
	return c.Exchange()
}

// Rejoin comes back as the client that the peer is and takes the new AES key: 1027
// and 1605.
func (c *Conn) Rejoin() error {
	payload, err := c.Ask(c.Reconnect(), codec.CodeReconnected)
	if err != nil {
		return err
	}
	return c.Open(codec.CodeReconnected, payload)
}

// Received reads the 1603 of f, which must be right in all fields.
func (c *Conn) Received(f *File) error {
	return c.ReceivedAs(f.Name, int64(len(f.Content)), f.Cksum)
}

// ReceivedAs is Received for a file of that name, size and checksum.
func (c *Conn) ReceivedAs(name string, size int64, sum uint32) error {
	payload, err := c.Want(codec.CodeFileReceived)
	if err != nil {
		return err
	}
	return c.checkReceived(payload, name, size, sum)
}

// WantID reads the next reply, which must have that code, 1604 or 1606, and the
// peer's id.
func (c *Conn) WantID(code codec.Code) error {
	payload, err := c.Want(code)
	if err != nil {
		return err
	}
	return c.checkID(code, payload)
}

// Confirm accepts a file: 1029 and 1604.
func (c *Conn) Confirm(name string) error {
	if err := c.Send(c.Verdict(codec.CodeCRCOK, name)); err != nil {
		return err
	}
	return c.WantID(codec.CodeAck)
}

// Upload sends f as Spec has it, reads its 1603 and confirms it.
func (c *Conn) Upload(f *File, size int) error {
	if err := c.SendPackets(f.Packets(Spec, size)); err != nil {
		return err
	}
	if err := c.Received(f); err != nil {
		return err
	}
	return c.Confirm(f.Name)
}
