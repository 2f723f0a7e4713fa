package storagetest

import (
	"context"
	"crypto/rsa"
	"fmt"
	"sync"
	"time"

	"sealift/codec"
	"sealift/crypto/aescbc"
	"sealift/crypto/keys"
	"sealift/crypto/tlskey"
	"sealift/session"
	"sealift/storage"
)

// someConn returns an open connection, or opens one.
func (m *promiseModel) someConn() *promiseConn {
	open := m.conns[:0]
	for _, c := range m.conns {
		if !c.gone {
			open = append(open, c)
		}
	}
	m.conns = open
	if n := len(m.conns); n == 0 || n < 4 && m.rnd.IntN(4) == 0 {
		c := &promiseConn{
			m: m, n: m.rnd.IntN(1000), receipts: make(map[string]*version), failed: make(map[string]bool),
			asked: make(map[string]*lastAsked), unwanted: make(map[string]bool),
		}
		c.s = session.New(m.svc, c, "")
		if m.pinned {
			c.channel = &session.Channel{TLS: true, Client: promiseTLSKey}
			c.s.Protect(*c.channel)
		}
		if !m.disabled && m.rnd.IntN(4) > 0 {
			c.rejoin()
		}
		m.conns = append(m.conns, c)
		return c
	}
	return m.conns[m.rnd.IntN(len(m.conns))]
}

// promiseConn is a connection, and the host of its session: what the session asks
// for is done one thing after the other.
type promiseConn struct {
	m        *promiseModel
	n        int
	s        *session.Session
	todo     []func()
	replies  string
	receipts map[string]*version
	failed   map[string]bool // an upload got no 1603, and none did before
	asked    map[string]*lastAsked
	unwanted map[string]bool // a 1031 came: no 1608 speaks of what is verified
	channel  *session.Channel
	key      aesKey
	bound    bool // the session knows its client, and has the key
	proven   bool // by a 1027; otherwise by the id alone
	gone     bool
}

type aesKey = [aescbc.KeySize]byte

var promiseTLSKey = tlskey.Fingerprint{5, 6, 7}

// promisePair is the client's key pair, with the public half as it goes over the wire.
var promisePair = sync.OnceValues(func() (*rsa.PrivateKey, [keys.PublicKeySize]byte) {
	private, err := keys.Generate()
	if err != nil {
		panic(err)
	}
	public, err := keys.MarshalPublic(&private.PublicKey)
	if err != nil {
		panic(err)
	}
	return private, public
})

// rejoin has the connection show by a 1027 who the client is.
func (c *promiseConn) rejoin() {
	if got := c.ask(codec.Reconnect{Name: []byte("anna")}.Append(nil, clientID(1))); got != "1605" {
		c.m.fatalf("1027: got %q", got)
	}
	c.bound, c.proven = true, true
}

// bind reads the key that a session has which knows its client by the id alone.
func (c *promiseConn) bind() {
	if c.bound {
		return
	}
	get := &storage.GetClient{Outcome: storage.Outcome{By: storage.Server}, ID: clientID(1)}
	c.m.apply(get)
	c.key, c.bound = aesKey(get.Client.AESKey), !c.m.disabled
}

// upload is content as one packet.
func (c *promiseConn) upload(path string, content []byte) []byte {
	return c.packets(path, content, 1<<20)[0].message
}

// packet is a 1028, and how much content it carries.
type packet struct {
	message []byte
	content int
}

// packets is content in packets of size bytes of ciphertext.
func (c *promiseConn) packets(path string, content []byte, size int) (all []packet) {
	c.bind()
	body := make([]byte, aescbc.CiphertextSize(int64(len(content))))
	aescbc.NewEncrypter(&c.key).Final(body, content)
	total := (len(body) + size - 1) / size
	for i := range total {
		part := body[i*size : min(len(body), (i+1)*size)]
		m := codec.SendFile{
			ContentSize: uint32(len(body)), OrigSize: uint32(len(content)), Packet: uint16(i + 1), Total: uint16(total), FileName: []byte(path),
		}
		all = append(all, packet{append(m.Append(nil, clientID(1), uint32(len(part))), part...), min(len(part), len(content)-i*size)})
	}
	return all
}

func (c *promiseConn) verdict(code codec.Code, path string) []byte {
	c.bind()
	return codec.Verdict{Code: code, FileName: []byte(path)}.Append(nil, clientID(1))
}

// ask sends a message and returns the reply.
func (c *promiseConn) ask(p []byte) string {
	c.replies = ""
	for {
		p = p[c.s.Feed(p):]
		if len(c.todo) == 0 {
			break
		}
		next := c.todo[0]
		c.todo = c.todo[1:]
		next()
	}
	if len(p) > 0 && !c.gone {
		c.m.fatalf("%d bytes are not taken", len(p))
	}
	return c.replies
}

func (c *promiseConn) close() {
	c.gone = true
	c.s.Closed()
	for len(c.todo) > 0 {
		next := c.todo[0]
		c.todo = c.todo[1:]
		next()
	}
}

func (c *promiseConn) Send(reply []byte) {
	var d codec.ResponseDecoder
	r, _, ok, err := d.Next(reply)
	if err != nil || !ok {
		c.m.fatalf("reply %x: %v", reply, err)
	}
	c.replies += fmt.Sprint(uint16(r.Header.Code))
	switch r.Header.Code {
	case codec.CodeFileReceived:
		if f, err := codec.ParseFileReceived(r.Payload); err == nil {
			c.replies += fmt.Sprintf(" %08x", f.Cksum)
		}
	case codec.CodeContinued:
		if f, err := codec.ParseContinued(r.Payload); err == nil {
			c.replies += fmt.Sprintf(" %d %08x", f.Offset, f.Cksum)
		}
	case codec.CodeReconnected:
		private, _ := promisePair()
		f, err := codec.ParseKeyReply(r.Header.Code, r.Payload)
		if err == nil {
			c.key, err = keys.Unwrap(private, f.WrappedKey)
		}
		if err != nil {
			c.m.fatalf("1605: %v", err)
		}
	}
}

func (c *promiseConn) Do(_ session.Lane, work func(ctx context.Context), done func()) {
	c.todo = append(c.todo, func() {
		if work != nil {
			c.m.step()
			work(context.Background())
		}
		if done != nil {
			done()
		}
	})
}

func (c *promiseConn) Apply(op storage.Operation, done func(err error)) {
	c.todo = append(c.todo, func() {
		c.m.step()
		err := c.m.reg.Apply(context.Background(), []storage.Operation{op})
		c.m.step()
		if err == nil {
			err = op.Result().Err
		}
		if done != nil {
			done(err)
		}
	})
}

func (c *promiseConn) Buffer(size int) []byte { return make([]byte, size) }
func (c *promiseConn) Release([]byte)         {}
func (c *promiseConn) Hold(int) bool          { return true }
func (c *promiseConn) Unhold(int)             {}
func (c *promiseConn) Hangup(string)          { c.gone = true }
func (c *promiseConn) Now() time.Time         { return c.m.now }
