package storagetest

import (
	"context"
	"fmt"
	"time"

	"sealift/codec"
	"sealift/crypto/aescbc"
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
		c := &promiseConn{m: m, n: m.rnd.IntN(1000), receipts: make(map[string]*version), failed: make(map[string]bool)}
		c.s = session.New(m.svc, c, "")
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
	gone     bool
}

func (c *promiseConn) upload(path string, v *version) []byte {
	body := make([]byte, aescbc.CiphertextSize(int64(len(v.content))))
	aescbc.NewEncrypter(&promiseKey).Final(body, v.content)
	m := codec.SendFile{
		ContentSize: uint32(len(body)), OrigSize: uint32(len(v.content)), Packet: 1, Total: 1, FileName: []byte(path),
	}
	return append(m.Append(nil, clientID(1), uint32(len(body))), body...)
}

func (c *promiseConn) verdict(code codec.Code, path string) []byte {
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
	if f, err := codec.ParseFileReceived(r.Payload); r.Header.Code == codec.CodeFileReceived && err == nil {
		c.replies += fmt.Sprintf(" %08x", f.Cksum)
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
