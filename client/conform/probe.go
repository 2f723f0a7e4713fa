package conform

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"sealift/client"
	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/crypto/keys"
)

// prerequisite says that a rule could not be tried because what comes before
// its point went wrong.
type prerequisite struct{ error }

// probe is one rule being tried.
type probe struct {
	*subject
	ctx context.Context

	mu     sync.Mutex
	closed bool
	links  []*link

	log []Entry
	odd error // the first reply whose header contradicts its code
}

// identity is a client of the rule.
type identity struct {
	name string
	id   codec.ClientID
	key  [keys.AESKeySize]byte
}

// link is a connection of the rule.
type link struct {
	p      *probe
	number int
	nc     net.Conn
	r      *bufio.Reader
}

func (p *probe) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, l := range p.links {
		l.nc.Close()
	}
}

func (p *probe) dial() (*link, error) {
	nc, err := p.subject.dial(p.ctx)
	if err != nil {
		return nil, client.Unreachable(p.subject.address, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		nc.Close()
	}
	l := &link{p: p, number: len(p.links) + 1, nc: nc, r: bufio.NewReader(nc)}
	p.links = append(p.links, l)
	l.note("-", "connected", nil)
	return l, nil
}

// close ends the connection as a client does that is done, or lost.
func (l *link) close() {
	l.note("-", "closed by us", nil)
	l.nc.Close()
}

// maxLog is how many entries a rule keeps: the last ones say why it failed.
const maxLog = 12

func (l *link) note(direction, what string, b []byte) {
	if len(l.p.log) == maxLog {
		l.p.log = append(l.p.log[:0], l.p.log[1:]...)
	}
	l.p.log = append(l.p.log, Entry{Connection: l.number, Direction: direction, What: what, Hex: toHex(b)})
}

// maxHex is how many bytes toHex shows, runs counting as one.
const maxHex = 96

// toHex writes b as docs/PROTOCOL.md does: 00*250 for a run.
func toHex(b []byte) string {
	var out []string
	for i := 0; i < len(b); {
		if len(out) == maxHex {
			out = append(out, fmt.Sprintf("… (%d bytes)", len(b)))
			break
		}
		n := 1
		for i+n < len(b) && b[i+n] == b[i] {
			n++
		}
		if n < 4 {
			n = 1
			out = append(out, fmt.Sprintf("%02x", b[i]))
		} else {
			out = append(out, fmt.Sprintf("%02x*%d", b[i], n))
		}
		i += n
	}
	return strings.Join(out, " ")
}

// send writes a message, or several, in one write, with the server's numbers of
// requests.
func (l *link) send(what string, b []byte) error {
	what, b = l.numbered(what, b)
	l.note(">", what, b)
	l.nc.SetWriteDeadline(time.Now().Add(l.p.sendTimeout()))
	if _, err := l.nc.Write(b); err != nil {
		return fmt.Errorf("sending the %s: %w", what, err)
	}
	return nil
}

// numbered returns a copy of messages with the server's numbers of requests, and
// their description with them.
func (l *link) numbered(what string, b []byte) (string, []byte) {
	b = bytes.Clone(b)
	l.p.codes.Renumber(b)
	for code := codec.CodeRegister; code <= codec.CodeAbort; code++ {
		what = strings.ReplaceAll(what, fmt.Sprint(uint16(code)), fmt.Sprint(uint16(l.p.codes.Of(code))))
	}
	return what, b
}

// reply is what came back.
type reply struct {
	code    codec.Code
	payload []byte
}

// read reads a reply. A Payload Size that contradicts the code is put up with
// where that is possible and remembered: one rule is about it, and the others
// should still be tried.
func (l *link) read() (reply, error) {
	l.nc.SetReadDeadline(time.Now().Add(l.p.o.Timeout))
	raw := make([]byte, codec.ResponseHeaderSize)
	if n, err := io.ReadFull(l.r, raw); err != nil {
		return reply{}, l.readError(err, raw[:n])
	}
	h, _ := codec.ParseResponseHeader(raw)
	want, known := codec.ResponsePayloadSize(h.Code)
	if h.Version != codec.Version || !known {
		l.note("<", "no reply of the protocol", raw)
		return reply{}, fmt.Errorf("what came is no reply: version %d, code %d", h.Version, uint16(h.Code))
	}
	if h.Code == codec.CodeAck && h.PayloadSize == 0 && !l.more() {
		want = 0
		if l.p.odd == nil {
			l.p.odd = fmt.Errorf("the %v has no payload", h.Code)
		}
	}
	raw = append(raw, make([]byte, want)...)
	n, err := io.ReadFull(l.r, raw[codec.ResponseHeaderSize:])
	if err != nil {
		return reply{}, l.readError(err, raw[:codec.ResponseHeaderSize+n])
	}
	if h.PayloadSize != want {
		if l.p.odd == nil {
			l.p.odd = fmt.Errorf("the Payload Size of the %v is %d, not %d", h.Code, h.PayloadSize, want)
		}
		if h.PayloadSize > want {
			_, _ = l.r.Discard(min(l.r.Buffered(), int(h.PayloadSize-want)))
		}
	}
	l.note("<", h.Code.String(), raw)
	return reply{h.Code, raw[codec.ResponseHeaderSize:]}, nil
}

// more reports whether a payload follows a header that says there is none.
func (l *link) more() bool {
	l.nc.SetReadDeadline(time.Now().Add(bareGrace))
	_, err := l.r.Peek(1)
	l.nc.SetReadDeadline(time.Now().Add(l.p.o.Timeout))
	return err == nil
}

// bareGrace is how long the payload of a reply that announces none may take.
const bareGrace = 250 * time.Millisecond

func (l *link) readError(err error, got []byte) error {
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		l.note("<", "nothing more", got)
		return errNoReply{l.p.o.Timeout}
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		l.note("<", "the end of the connection", got)
		return errors.New("the server closed the connection instead of a reply")
	}
	l.note("<", err.Error(), got)
	return fmt.Errorf("the connection was lost instead of a reply: %w", err)
}

// errNoReply says that the server was silent for so long.
type errNoReply struct{ timeout time.Duration }

func (e errNoReply) Error() string { return fmt.Sprintf("no whole reply within %v", e.timeout) }

// expect reads a reply of that code.
func (l *link) expect(code codec.Code) (reply, error) {
	r, err := l.read()
	if err != nil {
		return reply{}, fmt.Errorf("%w; a %v was due", err, code)
	}
	if r.code != code {
		return reply{}, fmt.Errorf("a %v came where a %v was due", r.code, code)
	}
	return r, nil
}

// refused sends a message that is due a 1607.
func (l *link) refused(what string, b []byte) error {
	if err := l.send(what, b); err != nil {
		return err
	}
	_, err := l.expect(codec.CodeError)
	return err
}

// expectID reads a reply that has an id and nothing else.
func (l *link) expectID(code codec.Code, id codec.ClientID) error {
	r, err := l.expect(code)
	if err != nil {
		return err
	}
	if len(r.payload) == 0 {
		return nil // a 1604 without: one rule is about that
	}
	if got := codec.ClientID(r.payload); got != id {
		return fmt.Errorf("the %v has the id %v, not %v", code, got, id)
	}
	return nil
}

// register registers name and reads the 1600.
func (l *link) register(name string) (id codec.ClientID, err error) {
	defer func() { err = l.p.failure(basicRegister, err) }()
	if err := l.send("1025 register", codec.Register{Name: []byte(name)}.Append(nil)); err != nil {
		return codec.ClientID{}, err
	}
	r, err := l.expect(codec.CodeRegistered)
	l.p.heard(errors.As(err, new(errNoReply)))
	if err != nil {
		return codec.ClientID{}, err
	}
	return codec.ClientID(r.payload), nil
}

// exchangeKey sends the public key and reads the 1602.
func (l *link) exchangeKey(id *identity) (err error) {
	defer func() { err = l.p.failure(basicKey, err) }()
	pub, err := keys.MarshalPublic(&l.p.key.PublicKey)
	if err != nil {
		return err
	}
	if err := l.send("1026 public key", codec.PublicKey{Name: []byte(id.name), Key: pub[:]}.Append(nil, id.id)); err != nil {
		return err
	}
	return l.takeKey(codec.CodeAESKey, id)
}

// reconnect sends 1027 and reads the 1605.
func (l *link) reconnect(id *identity) (err error) {
	defer func() { err = l.p.failure(basicReconnect, err) }()
	if err := l.send("1027 reconnect", codec.Reconnect{Name: []byte(id.name)}.Append(nil, id.id)); err != nil {
		return err
	}
	return l.takeKey(codec.CodeReconnected, id)
}

func (l *link) takeKey(code codec.Code, id *identity) error {
	r, err := l.expect(code)
	if err != nil {
		return err
	}
	k, err := codec.ParseKeyReply(code, r.payload)
	if err != nil {
		return err
	}
	if k.ID != id.id {
		return fmt.Errorf("the %v has the id %v, not %v", code, k.ID, id.id)
	}
	key, err := keys.Unwrap(l.p.key, k.WrappedKey)
	if err != nil {
		return fmt.Errorf("the AES key does not open as RSAES-OAEP with SHA-1 and 32 bytes inside: %w", err)
	}
	id.key = key
	return nil
}

// registered returns a connection on which a fresh client has registered. What
// goes wrong is a prerequisite.
func (p *probe) registered() (*link, *identity, error) {
	l, err := p.dial()
	if err != nil {
		return nil, nil, prerequisite{err}
	}
	id := &identity{name: p.freshName()}
	if id.id, err = l.register(id.name); err != nil {
		return nil, nil, prerequisite{fmt.Errorf("a registration: %w", err)}
	}
	return l, id, nil
}

// ready returns a connection whose fresh client can send files. What goes wrong
// is a prerequisite.
func (p *probe) ready() (*link, *identity, error) {
	l, id, err := p.registered()
	if err != nil {
		return nil, nil, err
	}
	if err := l.exchangeKey(id); err != nil {
		return nil, nil, prerequisite{fmt.Errorf("a key exchange: %w", err)}
	}
	return l, id, nil
}

// packets makes the 1028s of a file in the server's dialect, in spec cut at
// packetSize.
func (p *probe) packets(id *identity, packetSize int, name string, file []byte) ([][]byte, error) {
	if p.dialect != client.Spec {
		packetSize = p.packetSize
	}
	return client.Packets(p.dialect, packetSize, id.id, name, &id.key, file)
}

// sendPackets writes each message with a write of its own.
func (l *link) sendPackets(packets [][]byte) error {
	for i, b := range packets {
		if err := l.send(fmt.Sprintf("1028 send file, %d of %d", i+1, len(packets)), b); err != nil {
			return err
		}
		if i < len(packets)-1 {
			time.Sleep(l.p.pause)
		}
	}
	return nil
}

// expectFile reads the 1603 for a file and compares all of it.
func (l *link) expectFile(id *identity, name string, file []byte) (err error) {
	defer func() { err = l.p.failure(basicTransfer, err) }()
	r, err := l.expect(codec.CodeFileReceived)
	if err != nil {
		return err
	}
	m, err := codec.ParseFileReceived(r.payload)
	if err != nil {
		return fmt.Errorf("the 1603: %w", err)
	}
	want := cksum.Checksum(file)
	switch {
	case m.Cksum != want:
		return fmt.Errorf("the checksum of %q is %d, the file's is %d", name, m.Cksum, want)
	case m.ID != id.id:
		return fmt.Errorf("the 1603 has the id %v, not %v", m.ID, id.id)
	case string(m.FileName) != name:
		return fmt.Errorf("the 1603 has the file name %q, not %q", m.FileName, name)
	}
	return nil
}

func (l *link) sendVerdict(code codec.Code, id *identity, name string) error {
	return l.send(code.String(), codec.Verdict{Code: code, FileName: []byte(name)}.Append(nil, id.id))
}

// verdict sends 1029 or 1031 and reads the 1604.
func (l *link) verdict(code codec.Code, id *identity, name string) error {
	if err := l.sendVerdict(code, id, name); err != nil {
		return err
	}
	return l.expectID(codec.CodeAck, id.id)
}

// transfer sends a file and confirms it.
func (l *link) transfer(id *identity, d client.Dialect, packetSize int, name string, file []byte) (err error) {
	defer func() { err = l.p.failure(basicTransfer, err) }()
	packets, err := client.Packets(d, packetSize, id.id, name, &id.key, file)
	if err != nil {
		return err
	}
	if err := l.sendPackets(packets); err != nil {
		return err
	}
	if err := l.expectFile(id, name, file); err != nil {
		return err
	}
	return l.verdict(codec.CodeCRCOK, id, name)
}

// simple is transfer in the server's dialect, of a small file.
func (l *link) simple(id *identity, name string) error {
	return l.transfer(id, l.p.dialect, l.p.packetSize, name, content(1000))
}

// works sends a small file to see that the connection is as good as before.
func (l *link) works(id *identity) error {
	if err := l.simple(id, "afterwards"); err != nil {
		return fmt.Errorf("after the 1607, a file on the same connection: %w", err)
	}
	return nil
}

// expectEnd reads the end of the connection.
func (l *link) expectEnd() error {
	l.nc.SetReadDeadline(time.Now().Add(l.p.o.Timeout))
	b := make([]byte, 512)
	n, err := l.r.Read(b)
	if n > 0 {
		l.note("<", "more", b[:n])
		return errors.New("more came where the end of the connection was due")
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		l.note("<", "nothing", nil)
		return fmt.Errorf("the connection was still open after %v", l.p.o.Timeout)
	}
	l.note("<", "the end of the connection", nil)
	return nil
}

// edited returns a copy of a message with other bytes at an offset.
func edited(message []byte, at int, b ...byte) []byte {
	message = bytes.Clone(message)
	copy(message[at:], b)
	return message
}
