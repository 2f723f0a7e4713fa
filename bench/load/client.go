package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"sealift/codec"
	"sealift/crypto/keys"
)

// ioTimeout is how long a client waits for one reply. A server under load may
// be slow; one that does not answer at all fails the run.
const ioTimeout = 60 * time.Second

// client is one client of the protocol on one connection. One goroutine uses
// it.
type client struct {
	nc     net.Conn
	dec    codec.ResponseDecoder
	buf    [512]byte // the longest reply has 286 bytes
	unread []byte    // of buf
	out    []byte
	id     codec.ClientID
	name   string
	key    *Key
	aes    [keys.AESKeySize]byte
}

// portsPerAddress is how many connections are made from one local address, less
// than the ports that the kernel has to give by default.
const portsPerAddress = 20_000

// connect opens connection i to server. Each 20,000 connections come from an
// address of their own, where the server is on this machine.
func (c *client) connect(server string, i int) error {
	d := net.Dialer{Timeout: ioTimeout}
	if n := i / portsPerAddress; n > 0 {
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(1+n))}
	}
	nc, err := d.Dial("tcp", server)
	if err != nil {
		return err
	}
	c.nc, c.dec, c.unread = nc, codec.ResponseDecoder{}, nil
	return nil
}

func (c *client) close() {
	if c.nc != nil {
		_ = c.nc.Close()
		c.nc = nil
	}
}

// send sends what was gathered in c.out.
func (c *client) send() error {
	if err := c.nc.SetDeadline(time.Now().Add(ioTimeout)); err != nil {
		return err
	}
	_, err := c.nc.Write(c.out)
	c.out = c.out[:0]
	return err
}

// expect reads the next reply, which must have that code. The payload is valid
// until the next call.
func (c *client) expect(code codec.Code) ([]byte, error) {
	for {
		r, n, ok, err := c.dec.Next(c.unread)
		c.unread = c.unread[n:]
		switch {
		case err != nil:
			return nil, err
		case !ok:
			n, err := c.nc.Read(c.buf[:])
			if err != nil {
				return nil, fmt.Errorf("waiting for %v: %w", code, err)
			}
			c.unread = c.buf[:n]
		case r.Header.Code != code:
			return nil, fmt.Errorf("the server sent %v, not %v", r.Header.Code, code)
		default:
			return r.Payload, nil
		}
	}
}

var errID = errors.New("the reply names another client id")

// enrol registers the client and sends its key: 1025, 1600, 1026 and 1602.
func (c *client) enrol() error {
	c.out = codec.Register{Name: []byte(c.name)}.Append(c.out)
	if err := c.send(); err != nil {
		return err
	}
	p, err := c.expect(codec.CodeRegistered)
	if err != nil {
		return err
	}
	r, err := codec.ParseIDReply(codec.CodeRegistered, p)
	if err != nil {
		return err
	}
	c.id = r.ID
	c.out = codec.PublicKey{Name: []byte(c.name), Key: c.key.Public[:]}.Append(c.out, c.id)
	return c.aesKey(codec.CodeAESKey)
}

// reconnect is 1027 and 1605.
func (c *client) reconnect() error {
	c.out = codec.Reconnect{Name: []byte(c.name)}.Append(c.out, c.id)
	return c.aesKey(codec.CodeReconnected)
}

func (c *client) aesKey(code codec.Code) error {
	if err := c.send(); err != nil {
		return err
	}
	p, err := c.expect(code)
	if err != nil {
		return err
	}
	r, err := codec.ParseKeyReply(code, p)
	if err != nil {
		return err
	}
	if r.ID != c.id {
		return errID
	}
	c.aes, err = c.key.Unwrap(r.WrappedKey)
	return err
}

// upload sends f, checks what the server made of it, and has it verified.
func (c *client) upload(f *file) error {
	w := wire{f: f, id: c.id}
	for w.more() {
		if err := c.nc.SetDeadline(time.Now().Add(ioTimeout)); err != nil {
			return err
		}
		if _, err := w.gather().WriteTo(c.nc); err != nil {
			return c.sendError(err)
		}
	}
	p, err := c.expect(codec.CodeFileReceived)
	if err != nil {
		return err
	}
	r, err := codec.ParseFileReceived(p)
	switch {
	case err != nil:
		return err
	case r.ID != c.id:
		return errID
	case string(r.FileName) != f.name || int64(r.ContentSize) != f.size || r.Cksum != f.cksum:
		return fmt.Errorf("sent %q, %d bytes, cksum %d; the server received %q, %d bytes, cksum %d",
			f.name, f.size, f.cksum, r.FileName, r.ContentSize, r.Cksum)
	}
	c.out = codec.Verdict{Code: codec.CodeCRCOK, FileName: []byte(f.name)}.Append(c.out, c.id)
	if err := c.send(); err != nil {
		return err
	}
	if p, err = c.expect(codec.CodeAck); err != nil {
		return err
	}
	a, err := codec.ParseIDReply(codec.CodeAck, p)
	if err == nil && a.ID != c.id {
		err = errID
	}
	return err
}

// sendError is err, with what the server had to say before it hung up.
func (c *client) sendError(err error) error {
	if _, e := c.expect(codec.CodeFileReceived); e != nil {
		err = fmt.Errorf("%w; and then: %w", err, e)
	}
	return err
}

// uploadRaw sends the same bytes to the floor, which knows no protocol: it gets
// their number first, and sends it back when it has written them.
func (c *client) uploadRaw(f *file) error {
	w := wire{f: f}
	var n [8]byte
	binary.LittleEndian.PutUint64(n[:], uint64(w.size()))
	c.out = append(c.out, n[:]...)
	if err := c.send(); err != nil {
		return err
	}
	for w.more() {
		if err := c.nc.SetDeadline(time.Now().Add(ioTimeout)); err != nil {
			return err
		}
		if _, err := w.gather().WriteTo(c.nc); err != nil {
			return err
		}
	}
	var back [8]byte
	if _, err := io.ReadFull(c.nc, back[:]); err != nil {
		return err
	}
	if back != n {
		return fmt.Errorf("the floor wrote %d bytes of %d", binary.LittleEndian.Uint64(back[:]), w.size())
	}
	return nil
}
