package eventloop

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/pires/go-proxyproto"
	"go.uber.org/zap"
)

// Behind a proxy, every connection comes from the proxy's address. The PROXY protocol has
// the proxy say first whose connection it is, in a header of one line (version 1) or of a
// few binary fields (version 2). Where Limits.Proxies is set, connections from these
// addresses must begin with such a header, and no other may. The header comes before TLS.
//
// What begins like a header cannot be a TLS client's hello, whose first byte is 16, nor
// the beginning of the plain protocol by an id that this server gives or registers: these
// are UUIDs of version 4, whose byte 6 is 4x, and there a header has a line feed, a T or
// a U.

// via is how a connection has come. The acceptor sets it, and then it is the loop's.
type via uint8

const (
	direct   via = iota // there are no proxies: nobody looks for a header
	stranger            // there are proxies, and this is none: a header is refused
	byProxy             // a header says whose the connection is
	// itself: the header says that the connection is the proxy's own. Mostly the proxy only
	// looks whether the server is there.
	itself
	// turnedAway: it came by a proxy, and was refused when its client was known. It has one
	// of acceptor.refusing.
	turnedAway
)

// via returns how a connection from that address comes.
func (l *Limits) via(a *net.TCPAddr) via {
	if len(l.Proxies) == 0 {
		return direct
	}
	ip, _ := netip.AddrFromSlice(a.IP)
	ip = ip.Unmap()
	for _, p := range l.Proxies {
		if p.Contains(ip) {
			return byProxy
		}
	}
	return stranger
}

const (
	// maxHeader is how many bytes a header may have. A proxy may say more than addresses in
	// one of version 2: names, or a certificate.
	maxHeader = 4 << 10
	// maxLine is how many bytes one of version 1 may have, by its specification.
	maxLine = 107
	// headerTime is how long a proxy may take to send its header. They send it at once; a
	// packet that is lost comes again within that time.
	headerTime = 5 * time.Second
	// maxAwaited is how many connections of one proxy may wait for their header.
	maxAwaited = 256
)

const (
	lineBegin  = "PROXY " // and then TCP4, TCP6 or UNKNOWN
	fieldsSize = 16       // of version 2: signature, command, family, and the length of the rest
)

// Errors of headers. They are about the proxy, whose address the log has.
var (
	errNotTrusted = errors.New("its sender is not one of --trusted-proxies")
	errNoHeader   = errors.New("the connection does not begin with one")
	errLongHeader = errors.New("it is too long")
	errLateHeader = errors.New("it did not come in time")
	errCutHeader  = errors.New("the connection ended in the middle of it")
	errCrowded    = errors.New("many others came first")
	errNoStream   = errors.New("it is about no TCP connection")
)

// looksLikeHeader tells a header from what clients send by the first bytes p. It is
// undecided if they are too few, and hello stands for a header.
func looksLikeHeader(p []byte) kind {
	switch {
	case bytes.HasPrefix(p, proxyproto.SIGV2):
		return hello
	case bytes.HasPrefix(p, []byte(lineBegin)) && len(p) > len(lineBegin):
		if next := p[len(lineBegin)]; next == 'T' || next == 'U' {
			return hello
		}
		return plain
	case bytes.HasPrefix(proxyproto.SIGV2, p), bytes.HasPrefix([]byte(lineBegin), p):
		return undecided
	}
	return plain
}

// headerSize is how many bytes the header has that p begins with. It is 0 if they have
// not all come.
func headerSize(p []byte) (int, error) {
	switch looksLikeHeader(p) {
	case undecided:
		return 0, nil
	case plain:
		return 0, errNoHeader
	}
	size := 0
	if p[0] == lineBegin[0] {
		size = bytes.IndexByte(p[:min(len(p), maxLine)], '\n') + 1
		if size == 0 && len(p) >= maxLine {
			return 0, errLongHeader
		}
	} else if len(p) >= fieldsSize {
		size = fieldsSize + int(binary.BigEndian.Uint16(p[fieldsSize-2:]))
		if size > maxHeader {
			return 0, errLongHeader
		}
	}
	if size > len(p) {
		size = 0
	}
	return size, nil
}

// nginx says TCP6 of an IPv4 address where it has come by IPv6 itself.
func init() { proxyproto.V1AcceptIPv4InTCP6 = true }

// introduction is what a header says.
type introduction struct {
	size   int          // bytes of the header
	client *net.TCPAddr // nil: the proxy's own address counts
	itself bool         // it says that the connection is the proxy's own, or not whose it is
}

// readHeader reads the header that p begins with. Without an error, its size is 0 as long
// as it has not come as a whole.
func readHeader(p []byte) (introduction, error) {
	size, err := headerSize(p)
	if size == 0 || err != nil {
		return introduction{}, err
	}
	in := introduction{size: size}
	if p[0] != lineBegin[0] && p[12] == byte(proxyproto.PROXY) && p[13] == byte(proxyproto.UNSPEC) {
		return in, nil // proxyproto refuses it; the specification lets it mean the proxy's own address
	}
	h, err := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(p[:size]), size)) // it wants a line in one read
	if err != nil {
		return introduction{}, err
	}
	if h.Command.IsLocal() || h.TransportProtocol.IsUnspec() {
		in.itself = true
		return in, nil
	}
	switch from := h.SourceAddr.(type) {
	case *net.TCPAddr:
		in.client = from
	case *net.UnixAddr:
	default:
		return introduction{}, errNoStream
	}
	return in, nil
}

// introduce waits for the header of a connection that comes by a proxy, and finds out
// whose it is. What comes behind the header is the client's. Of another connection it
// makes sure that it does not begin with one.
func (c *conn) introduce() {
	if c.lp.srv.draining.Load() {
		c.close("drained")
		return
	}
	p, _ := c.gc.Peek(-1)
	if c.via == stranger {
		switch looksLikeHeader(p) {
		case hello:
			c.refuseHeader(errNotTrusted)
		case plain:
			c.enter(sniffing, "")
		}
		return
	}
	in, err := readHeader(p)
	switch {
	case err != nil:
		c.refuseHeader(err)
		return
	case in.size == 0:
		return
	case in.itself:
		if c.via = itself; len(p) == in.size { // a look at the server takes nobody's place
			return
		}
	}
	_, _ = c.gc.Discard(in.size)
	ip := c.ip
	if in.client != nil {
		c.remote, ip = in.client.String(), source(in.client)
	}
	if c.lp.srv.seat(c, ip) {
		c.enter(sniffing, "")
		return
	}
	c.Send(errorReply)
	c.enter(ending, "")
	if !c.lp.srv.letLinger(c) {
		c.flush()
		c.close("")
	}
}

// seat counts a connection that came by a proxy if it is to be served, as one of the
// client's address. On the loop.
func (s *Server) seat(c *conn, ip netip.Addr) bool {
	ok, victim := s.census.introduce(c, ip, s.now())
	if victim != nil {
		victim.post(func() { victim.close("made room: too slow") })
	}
	return ok
}

// letLinger has a connection that is refused linger until its client has left. It returns
// false if too many do. On the loop.
func (s *Server) letLinger(c *conn) bool {
	select {
	case s.acceptor.refusing <- struct{}{}:
		c.via = turnedAway
		return true
	default:
		return false
	}
}

// makeWay ends a connection whose header has not come, so that another can wait for its
// own. On the loop.
func (c *conn) makeWay() {
	if c.phase == introducing {
		c.tellOfHeader(errCrowded)
	}
	c.close("")
}

// refuseHeader ends a connection whose header is not as it should be.
func (c *conn) refuseHeader(err error) {
	c.tellOfHeader(err)
	c.Send(errorReply)
	c.enter(ending, "")
}

func (c *conn) tellOfHeader(err error) {
	c.lp.srv.unintroduced.report(c.lp.srv.opts.Log, "PROXY header refused", zap.String("remote", c.remote), zap.Error(err))
}

// introductionEnds is deadline until it is known whose the connection is.
func (c *conn) introductionEnds(handshake time.Duration) (at time.Time, reason string) {
	if c.via == byProxy {
		handshake = min(handshake, headerTime)
	}
	return c.since.Add(handshake), noRegistration
}

// partingReason is what the log says about a connection that is closed, unless enter was told
// before: "" is no line. Who connects and says nothing looks whether the server is there.
func (c *conn) partingReason() string {
	switch {
	case c.phase >= ending: // what ended it without a reason has its own line, once a second at most
		return ""
	case c.phase > sniffing:
		return byClient
	}
	p, _ := c.gc.Peek(-1)
	switch {
	case len(p) == 0, c.phase == introducing && c.via == itself:
		return ""
	case c.phase == introducing && c.via == byProxy:
		c.tellOfHeader(errCutHeader)
		return ""
	}
	return byClient
}
